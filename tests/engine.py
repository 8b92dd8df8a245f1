"""What the turn engine's tests share: servers of which a test knows the process, models and tools that it can hold."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import anyio
from mcp import StdioServerParameters
from mcp.client import Client

from bedrock_server import BedrockServer, Gate, Received, Reply, Script, say
from conftest import server_environment, text_of
from contract_record import RecordingClient

MODEL = "bedrock:us.anthropic.claude-sonnet-4-20250514-v1:0"
DEADLINE = 120.0
"""Seconds after which a test that waits gives up. Far more than anything takes."""
NOTE = "interrupted before it was finished"
"""What the note that closes an interrupted turn says."""


def bedrock_env(server: BedrockServer, **settings: str) -> dict[str, str]:
    """The environment of an agent-mcp server whose model is `server`. One request for each call: boto retries none."""
    return {**server.env, "AGENT_MCP_MODEL": MODEL, "AWS_MAX_ATTEMPTS": "1", **settings}


def by_prompt(replies: Mapping[str, Reply | Callable[[], Reply]]) -> Script:
    """A script that answers each prompt as told; other prompts are echoed."""

    def script(received: Received) -> Reply:
        reply = replies.get(received.last_text)
        if reply is None:
            return say(f"You said: {received.last_text or received.tool_results}")
        return reply() if callable(reply) else reply

    return script


async def reached(gate: Gate) -> None:
    await asyncio.to_thread(gate.wait_until_reached)


async def requests(server: BedrockServer, n: int) -> list[Received]:
    return await asyncio.to_thread(server.wait_for_requests, n)


def roles(received: Received) -> str:
    """The roles of a request's messages, by their initials."""
    return "".join(message["role"][0] for message in received.messages)


def said(received: Received) -> list[str]:
    """The texts of a request's messages, in order; tools' blocks as JSON."""
    return [
        " ".join(
            block["text"] if "text" in block else json.dumps(block)
            for block in message["content"]
            if "cachePoint" not in block  # says nothing: it marks what the service may keep for the next request
        )
        for message in received.messages
    ]


@dataclass
class Progress:
    """Takes progress notifications: pass it as `progress_callback`."""

    messages: list[str] = field(default_factory=list[str])
    times: list[float] = field(default_factory=list[float])
    steps: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        self._news = asyncio.Event()

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        self.steps.append(progress)
        self.times.append(time.monotonic())
        self.messages.append(message or "")
        self._news.set()

    async def until(self, text: str) -> None:
        """Waits for a message that contains `text`."""
        async with asyncio.timeout(DEADLINE):
            while not any(text in message for message in self.messages):
                self._news.clear()
                await self._news.wait()


class ToolDesk:
    """The test's end of the tools in `engine_tools`: they connect here when they run, and wait to be let go."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(DEADLINE)
        self.port: int = self._listener.getsockname()[1]
        self._waiting: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._listener.close()

    async def started(self) -> None:
        """Waits until one more tool runs."""
        connection, _ = await asyncio.to_thread(self._listener.accept)
        self._waiting.append(connection)

    def release(self) -> None:
        """Lets all tools that run come to their end."""
        for connection in self._waiting:
            connection.close()
        self._waiting.clear()


def tools_env() -> dict[str, str]:
    """Lets a server find the operator's tools in `engine_tools`."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    return {"AGENT_MCP_TOOLS": "engine_tools", "PYTHONPATH": path}


@dataclass(frozen=True)
class Served:
    """A client of a server process of its own."""

    client: Client
    _pid_file: Path

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Calls a tool that must succeed, and returns its structured result."""
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, text_of(result)
        assert result.structured_content is not None
        return result.structured_content

    async def ask(self, prompt: str, **arguments: Any) -> dict[str, Any]:
        return await self.call("ask_agent", prompt=prompt, **arguments)

    async def refused(self, tool: str, **arguments: Any) -> str:
        """Calls a tool that must fail, and returns the error: one line that ends with its code."""
        result = await self.client.call_tool(tool, arguments)
        assert result.is_error, result.structured_content
        text = text_of(result)
        assert "\n" not in text
        assert re.search(r" \[[a-z_]+\]$", text), text
        return text

    async def start_session(self, session_id: str, **arguments: Any) -> str:
        return str((await self.call("start_session", session_id=session_id, **arguments))["session_id"])

    async def open_turn(self, session_id: str) -> dict[str, Any] | None:
        """The session's open turn as list_sessions shows it."""
        listed = await self.call("list_sessions")
        found = [s for s in listed["sessions"] if s["session_id"] == session_id]
        assert len(found) == 1, listed
        turn: dict[str, Any] | None = found[0]["open_turn"]
        return turn

    def kill(self) -> None:
        """Ends the server without a chance to clean up. It must have answered once."""
        os.kill(int(self._pid_file.read_text()), signal.SIGKILL)


def record_of(data_dir: Path, turn_id: str) -> dict[str, Any]:
    """A turn's record as it stands on disk."""
    return json.loads((data_dir / "turns" / f"{turn_id}.json").read_bytes())


@asynccontextmanager
async def serving(
    data_dir: Path, *, env: Mapping[str, str] | None = None, mode: str = "auto", **client: Any
) -> AsyncGenerator[Served]:
    """Starts `agent-mcp serve` and connects a real client to it; the process is known, so that it can be killed."""
    pid_file = data_dir.parent / f"pid-{time.monotonic_ns()}"
    server = StdioServerParameters(
        command="/bin/sh",
        args=["-c", 'echo $$ > "$0"; exec "$@"', str(pid_file), sys.executable, "-m", "agent_mcp", "serve"],
        env=server_environment(data_dir, env),
    )
    async with RecordingClient(server, mode=mode, read_timeout_seconds=120, **client) as connected:
        await connected.list_tools()  # later revisions have no handshake, and the process may not have begun
        yield Served(connected, pid_file)


async def cancelled_by_client(request: Callable[[], Coroutine[Any, Any, object]], when: Awaitable[object]) -> None:
    """Makes a request, and once `when` is done cancels it as a client does: by leaving it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(request)
        await when
        tasks.cancel_scope.cancel()
