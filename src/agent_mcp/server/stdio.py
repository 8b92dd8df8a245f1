"""MCP on stdin and stdout."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn, cast

import anyio
from mcp.server import Server, ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import INVALID_PARAMS, ErrorData, JSONRPCError
from pydantic import ValidationError

from agent_mcp.service import Service

logger = logging.getLogger(__name__)

GRACE_SECONDS = 2.0
"""How long turns have to end once the client has gone or the process is told to stop."""
_ANSWER_SECONDS = 1.0
"""How long the calls that follow those turns have to answer then."""
_FLUSH_SECONDS = 0.1


class _Calls:
    """Middleware that knows how many tools are being called."""

    def __init__(self) -> None:
        self._running = 0
        self._ended = anyio.Event()

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if ctx.method != "tools/call":
            return await call_next(ctx)
        self._running += 1
        try:
            return await call_next(ctx)
        finally:
            self._running -= 1
            self._ended.set()

    async def answered(self) -> None:
        """Waits, not for long, until all have answered and the answers are on their way."""
        with anyio.move_on_after(_ANSWER_SECONDS):
            while self._running:
                self._ended = anyio.Event()
                await self._ended.wait()
        await anyio.sleep(_FLUSH_SECONDS)


async def serve_stdio(server: Server[Any], service: Service) -> NoReturn:
    """Serves one client until the end of stdin, a signal, or a broken pipe, and ends the process.

    Turns have a moment to end and to be answered; then they are cancelled and closed.
    """
    status = 0
    try:
        await _serve(server, service)
    except* OSError as gone:
        logger.info("the client took its pipes with it: %s", gone.exceptions[0])
    except* Exception:
        logger.exception("serving failed")
        status = 1
    await service.close(grace=GRACE_SECONDS)
    _leave(status)


def _leave(status: int) -> NoReturn:
    """Ends the process at once: Python would wait for threads in which a stream or a tool hangs, or stdin is read."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)


async def _serve(server: Server[Any], service: Service) -> None:
    """Serves until the end. The SDK cancels every request as soon as stdin ends: so the end is held back here."""
    stopped = False
    calls = _Calls()
    server.middleware.append(calls)

    async def drain() -> None:
        await service.drain(grace=GRACE_SECONDS)
        await calls.answered()

    async with stdio_server() as (incoming, outgoing):
        relayed, received = anyio.create_memory_object_stream[SessionMessage | Exception]()
        async with anyio.create_task_group() as tasks:

            async def relay() -> None:
                with suppress(anyio.ClosedResourceError):  # stopped by a signal
                    async with relayed:
                        async for item in incoming:
                            if isinstance(item, ValidationError) and (answer := _unreadable(item)) is not None:
                                await outgoing.send(SessionMessage(answer))
                            await relayed.send(item)
                        await drain()

            async def watch_signals() -> None:
                nonlocal stopped
                with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                    async for number in signals:
                        logger.info("stopping on signal %s", number)
                        stopped = True
                        await drain()
                        relayed.close()

            tasks.start_soon(relay)
            if os.name != "nt":  # asyncio has no signal handlers there; the host ends stdin
                tasks.start_soon(watch_signals)
            await server.run(received, outgoing, server.create_initialization_options())
            if stopped:
                # A thread still waits on stdin, and nothing can wake it: there is no way back out of here.
                await service.close(grace=0)
                _leave(0)
            tasks.cancel_scope.cancel()


def _unreadable(error: ValidationError) -> JSONRPCError | None:
    """The answer to a request that the SDK could not read, None where nobody waits for one.

    The SDK drops such a line, and its caller waits for ever. What comes in practice is half of a surrogate pair, from a
    client that cut a text inside an emoji: JSON can write it, but no text can hold it.
    """
    try:
        request: object = json.loads(error.errors()[0]["input"])
    except (ValueError, TypeError, RecursionError):
        return None
    if not isinstance(request, dict):
        return None
    items = cast("dict[str, object]", request)
    request_id = items.get("id")
    if "method" not in items or not isinstance(request_id, str | int) or not str(request_id).isprintable():
        return None
    text = (
        "The request can't be read: it is no JSON-RPC, or a text in it holds half of a surrogate pair. Send whole "
        "Unicode characters. Nothing was changed. [invalid_argument]"
    )
    failure = ErrorData(code=INVALID_PARAMS, message=text, data={"code": "invalid_argument"})
    return JSONRPCError(jsonrpc="2.0", id=request_id, error=failure)
