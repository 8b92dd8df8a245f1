"""Strands' model classes that take the end of a connection for the end of an answer, told the difference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import httpx

from agent_mcp.models.guarded import BrokenOff, whole

_SECONDS_TO_END = 1.0
"""How long the rest of an answer is waited for that has ended already."""


def has_finished(chunk: Any) -> bool:
    """Whether a chunk in OpenAI's form, or in Gemini's, says why the answer ends."""
    choices = getattr(chunk, "choices", None) or getattr(chunk, "candidates", None) or ()
    blocked = getattr(getattr(chunk, "prompt_feedback", None), "block_reason", None)
    return bool(blocked) or any(choice.finish_reason for choice in choices)


class OpenAIClient:
    """An OpenAI client, as much of it as Strands' model uses."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    async def _create(self, **request: Any) -> AsyncGenerator[Any, None]:
        answer = await self._client.chat.completions.create(**request)
        answer.response.stream = _Lines(answer.response.stream, must_end=False)
        return whole(answer, has_finished)


class GeminiClient:
    """A Gemini client, as much of it as Strands' model uses."""

    vertexai = False

    def __init__(self, client: Any) -> None:
        self._client = client
        self.aio = SimpleNamespace(models=SimpleNamespace(generate_content_stream=self._stream))

    async def _stream(self, **request: Any) -> AsyncGenerator[Any, None]:
        return whole(await self._client.aio.models.generate_content_stream(**request), has_finished)


class StreamingClient(httpx.AsyncClient):
    """What Strands' llama.cpp model posts with: it would wait for the whole answer before it reads the first line."""

    async def post(self, url: Any, **request: Any) -> httpx.Response:  # pyright: ignore[reportIncompatibleMethodOverride] the one form that is used
        response = await self.send(self.build_request("POST", url, json=request["json"]), stream=True)
        if response.is_error:
            await response.aread()
        else:
            response.stream = _Lines(response.stream, must_end=True)
        return response


class _Lines(httpx.AsyncByteStream):
    """The bytes of an answer in OpenAI's form, which ends with a line of its own; with `must_end` it is broken else.

    Readers stop at that line. What follows is read here, so that the connection is free for the next request.
    """

    def __init__(self, stream: Any, *, must_end: bool) -> None:
        self._stream = stream
        self._must_end = must_end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        end = b""
        async for piece in self._stream:
            end = (end + piece)[-200:]
            if b"data: [DONE]" in end:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_SECONDS_TO_END):
                        async for _ in self._stream:
                            pass
                await self._stream.aclose()
                yield piece
                return
            yield piece
        if self._must_end:
            raise BrokenOff("it ended without its end")

    async def aclose(self) -> None:
        await self._stream.aclose()
