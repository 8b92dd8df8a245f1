"""Any provider's model, held to one behaviour: whole answers, one tree of errors, one way to be tried again."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from typing import Any, TypeVar

from strands import ModelRetryStrategy
from strands.models.model import Model
from strands.types.content import Messages
from strands.types.event_loop import Usage
from strands.types.exceptions import ContextWindowOverflowException, ModelThrottledException
from strands.types.streaming import StreamEvent

from agent_mcp import characters
from agent_mcp.errors import AgentMcpError, ModelFailed
from agent_mcp.models.failures import AGAIN, Kind, kind_of, reason_of
from agent_mcp.tally import Tally

logger = logging.getLogger(__name__)

C = TypeVar("C")


class Again(ModelThrottledException):
    """A call that may be made again, up to `retries` times; `failure` is what it comes to if that does not help."""

    def __init__(self, failure: ModelFailed, *, retries: int) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.retries = retries


class BrokenOff(Exception):
    """An answer ended without its provider saying that this is the end."""


class Patience(ModelRetryStrategy):
    """Strands' own retries, with their waits and their word to whoever follows, for what a guarded model raises."""

    def is_retryable(self, exception: Exception) -> bool:
        if isinstance(exception, Again):
            return self._current_attempt < exception.retries
        return super().is_retryable(exception)


class GuardedModel(Model):
    """`inner` with its failures told in our words, under the model's `name`. `secrets` never stand in them. What it
    cost is counted, whatever the call was for.

    Nothing of an answer is kept, and no tool is run, before it is whole. So a throttled call is made again even where
    it wrote something already. A lost connection is so only before the first word: what came later is the caller's to
    see, and is kept.
    """

    def __init__(self, inner: Model, *, name: str, secrets: Collection[str], tally: Tally) -> None:
        self.inner = inner
        self._name = name
        self._tally = tally
        self._secrets = frozenset(secrets)

    @property
    def stateful(self) -> bool:
        return self.inner.stateful

    @property
    def config(self) -> Any:
        """Read by Strands' traces."""
        return self.inner.get_config()

    def update_config(self, **model_config: Any) -> None:
        self.inner.update_config(**model_config)

    def get_config(self) -> Any:
        return self.inner.get_config()

    async def count_tokens(self, *args: Any, **kwargs: Any) -> int:
        return await self.inner.count_tokens(*args, **kwargs)

    def structured_output(self, *args: Any, **kwargs: Any) -> AsyncGenerator[dict[str, Any], None]:
        return self.inner.structured_output(*args, **kwargs)

    async def stream(self, messages: Messages, *args: Any, **kwargs: Any) -> AsyncGenerator[StreamEvent, None]:  # pyright: ignore[reportIncompatibleMethodOverride] passed on as it comes
        cancelled: threading.Event | None = kwargs.get("cancel_signal")
        started = whole = False
        usage: Usage | None = None
        pieces = _Pieces()
        try:
            async for event in self.inner.stream(messages, *args, **kwargs):
                started = started or "contentBlockDelta" in event
                whole = whole or "messageStop" in event
                event = _with_all_that_was_read(event)
                if "metadata" in event:
                    usage = event["metadata"].get("usage")
                for whole_event in pieces.take(event):
                    yield whole_event
            if not whole and not (cancelled and cancelled.is_set()):
                raise BrokenOff("it ended without its end")
        except (ContextWindowOverflowException, AgentMcpError):
            raise
        except Exception as error:
            raise self._told(error, messages, started=started) from error
        finally:
            if usage is not None:
                self._tally.spent(self._name, read=usage["inputTokens"], written=usage["outputTokens"])

    def _told(self, error: Exception, messages: Messages, *, started: bool) -> Exception:
        """The error in our words: one to be raised to Strands, which retries some."""
        cause = error.__cause__ if isinstance(error, ModelThrottledException) and error.__cause__ else error
        kind = Kind.DROPPED if isinstance(cause, BrokenOff) else kind_of(cause)
        if isinstance(error, ModelThrottledException) and kind in (Kind.FAILED, Kind.REJECTED):
            kind = Kind.THROTTLED
        if kind is Kind.DROPPED and started:
            kind = Kind.BROKEN
        said = "" if isinstance(cause, BrokenOff) else reason_of(cause, hidden=self._secrets | _prompt(messages))
        logger.warning("model %s: %s (%s)", self._name, kind.name.lower(), type(cause).__name__)
        reason = f" ({type(cause).__name__}: {said})" if said else ""
        failure = ModelFailed(f"The model {self._name} {kind.value}.{reason}")
        retries = AGAIN.get(kind, 0)
        return Again(failure, retries=retries) if retries else failure


class _Pieces:
    """The text of one answer in whole characters: some services cut one in two, and a half can't be sent or kept."""

    def __init__(self) -> None:
        self._half = ""

    def take(self, event: StreamEvent) -> list[StreamEvent]:
        """What is to be handed on for an event that came."""
        delta = event.get("contentBlockDelta", {}).get("delta")
        if delta is not None and "text" in delta:
            text, self._half = self._half + delta["text"], ""
            if characters.ends_in_half(text):
                text, self._half = text[:-1], text[-1]
            delta["text"] = characters.whole(text)
        elif self._half and "contentBlockStop" in event:
            rest, self._half = characters.whole(self._half), ""
            return [{"contentBlockDelta": {"delta": {"text": rest}}}, event]
        return [event]


def _with_all_that_was_read(event: StreamEvent) -> StreamEvent:
    """The event; where it tells usage, with input tokens that count what the provider had in its cache.

    Anthropic and Bedrock tell those apart from the others, and in the total; the rest of the providers count them as
    input already. So a reply's usage and a budget mean the same for all: what the model read and wrote.
    """
    if "metadata" in event and "usage" in event["metadata"]:
        usage = event["metadata"]["usage"]
        cached = usage.get("cacheReadInputTokens", 0) + usage.get("cacheWriteInputTokens", 0)
        if usage["totalTokens"] - usage["outputTokens"] >= usage["inputTokens"] + cached:
            event["metadata"]["usage"] = {**usage, "inputTokens": usage["inputTokens"] + cached}
    return event


def _prompt(messages: Messages) -> frozenset[str]:
    return frozenset(block["text"] for message in messages[-1:] for block in message["content"] if "text" in block)


async def whole(chunks: AsyncIterator[C], is_end: Callable[[C], bool]) -> AsyncGenerator[C, None]:
    """The chunks of a stream; raises BrokenOff behind the last one unless one of them said that it is the end.

    For model classes that take the end of a connection for the end of an answer.
    """
    ended = False
    async for chunk in chunks:
        ended = ended or is_end(chunk)
        yield chunk
    if not ended:
        raise BrokenOff("it ended without its end")
