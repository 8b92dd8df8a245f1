"""MCP on stdin and stdout."""

from __future__ import annotations

import json
import logging
import os
import signal
from contextlib import suppress
from typing import Any, cast

import anyio
from mcp.server import Server
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import INVALID_PARAMS, ErrorData, JSONRPCError
from pydantic import ValidationError

from agent_mcp.service import Service

logger = logging.getLogger(__name__)

GRACE_SECONDS = 2.0
"""How long turns have to end once the client has gone or the process is told to stop."""
_FLUSH_SECONDS = 0.1


async def serve_stdio(server: Server[Any], service: Service) -> None:
    """Serves one client until the end of stdin or SIGTERM, and then gives running turns a moment to answer.

    The SDK cancels every request as soon as stdin ends. So the end is held back here until the turns had their time.
    """
    stopped = False
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
                        await service.drain(grace=GRACE_SECONDS)

            async def watch_signals() -> None:
                nonlocal stopped
                with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                    async for number in signals:
                        logger.info("stopping on signal %s", number)
                        stopped = True
                        await service.drain(grace=GRACE_SECONDS)
                        relayed.close()

            tasks.start_soon(relay)
            if os.name != "nt":  # asyncio has no signal handlers there; the host ends stdin
                tasks.start_soon(watch_signals)
            await server.run(received, outgoing, server.create_initialization_options())
            await service.close(grace=0)
            if stopped:
                # A thread still waits on stdin, and nothing can wake it: leave once the last answer is out.
                await anyio.sleep(_FLUSH_SECONDS)
                os._exit(0)
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
