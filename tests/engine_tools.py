"""Tools of an operator (AGENT_MCP_TOOLS), for tests of what tools do to a turn."""

import asyncio
import contextlib
import os
import socket
import sys
from datetime import datetime
from typing import Any

from strands import ToolContext, tool  # pyright: ignore[reportUnknownVariableType] a parameter of it is a bare dict


@tool
def hold(port: int) -> str:
    """Run until the test lets go.

    Args:
        port: Where the test listens.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=180) as connection:
        connection.recv(1)
    return "held"


@tool
def chatter() -> str:
    """Print on stdout, as tools do."""
    print("This is not JSON-RPC.", flush=True)
    print("Nor is this, which nobody flushes.")
    return f"read {sys.stdin.read()!r}"


@tool
async def give_up() -> str:
    """Raise what asyncio raises in a task that is cancelled."""
    raise asyncio.CancelledError


@tool
def leave() -> str:
    """Call sys.exit, as the functions of command lines do."""
    sys.exit(3)


@tool
async def leave_behind() -> str:
    """Leave something on the loop that calls sys.exit."""
    asyncio.get_running_loop().call_soon(sys.exit, 3)
    return "left"


@tool(context=True)
async def stubborn(port: int, tool_context: ToolContext) -> str:
    """Go on whatever happens until the test lets go, then ask the agent something, and connect once more behind that.

    Args:
        port: Where the test listens.
        tool_context: What Strands gives.
    """
    loop = asyncio.get_running_loop()

    def wait() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=180) as connection:
            connection.recv(1)

    async def go_on() -> None:
        await loop.run_in_executor(None, wait)
        with contextlib.suppress(Exception):
            await tool_context.agent.invoke_async("I am still here")
        await loop.run_in_executor(None, wait)

    left = loop.create_task(go_on())
    _left.add(left)
    await asyncio.shield(left)
    return "gone on"


_left: set[asyncio.Task[None]] = set()
"""Keeps them from being collected."""


MALFORMED: dict[str, Any] = {
    "half of a character": "cut \ud83d",
    "a name that is no UTF-8": os.fsdecode(b"cut \xff"),
    "nothing": "",
    "content of text": {"status": "success", "content": "as it is"},
    "content of nothing": {"status": "success", "content": [None]},
    "text that is none": {"status": "success", "content": [{"text": 5}]},
    "bytes": {"status": "success", "content": [{"text": b"raw"}]},
    "a time": {"status": "success", "content": [{"json": {"at": datetime(2026, 1, 2)}}]},
    "a set": {"status": "success", "content": [{"json": {"all": {1}}}]},
    "no number": {"status": "success", "content": [{"json": {"n": float("nan")}}]},
    "a list": {"status": "success", "content": [{"json": [1, 2]}]},
    "a kind of its own": {"status": "success", "content": [{"table": [1]}]},
    "a status of its own": {"status": "done", "content": [{"text": "well"}]},
}
"""What a tool may return by mistake; some of it no file takes, some of it no model."""


@tool
def malformed(kind: str) -> Any:
    """Return something that nobody expects.

    Args:
        kind: What.
    """
    return MALFORMED[kind]


@tool
async def deaf(port: int) -> str:
    """Run until the test lets go, whoever cancels it.

    Args:
        port: Where the test listens.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while not reader.at_eof():
        with contextlib.suppress(asyncio.CancelledError):
            await reader.read(1)
    writer.close()
    return "let go"
