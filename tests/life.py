"""What the tests of the life of agents, sessions and turns share: a person at the host, and the shell beside it."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mcp.client import ClientRequestContext
from mcp.client.session import ClientSession
from mcp_types import CallToolResult, ElicitRequestParams, ElicitResult

from conftest import server_environment, text_of
from engine import Served

KEY = "agent-mcp/idempotency-key"
DEADLINE = 120.0
"""Seconds after which a test that waits gives up. Far more than anything takes."""


def order(tool: str, **arguments: Any) -> str:
    """A prompt that has the offline model use a tool."""
    return f"Use the tool {tool} with {json.dumps(arguments)}"


async def until(condition: Callable[[], bool]) -> None:
    """Waits until something that sends no word is so: outside of this process, or in its log."""

    def wait() -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.05)

    await asyncio.to_thread(wait)


Action = Literal["accept", "untick", "decline", "cancel"]


@dataclass
class Person:
    """Somebody at a host with elicitation, who decides as `decide` says and remembers what was asked."""

    decide: Callable[[str], Action] = lambda _: "accept"
    asked: list[str] = field(default_factory=list[str])

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        self.asked.append(params.message)
        action = self.decide(params.message)
        if action == "untick":
            return ElicitResult(action="accept", content={"allow": False})
        return ElicitResult(action=action, content={"allow": True} if action == "accept" else None)


@dataclass(frozen=True)
class Done:
    """What a command of the shell gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


async def shell(data: Path, *words: str, env: Mapping[str, str] | None = None, stdin: str = "") -> Done:
    """Runs `agent-mcp` with these words, to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "agent_mcp",
        *words,
        env=server_environment(data, env),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def ask_keyed(server: Served, key: str, prompt: str, **arguments: Any) -> CallToolResult:
    """Asks under an idempotency key."""
    return await server.client.call_tool("ask_agent", {"prompt": prompt, **arguments}, meta={KEY: key})


def reply_of(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, text_of(result)
    assert result.structured_content is not None
    return result.structured_content


def files_of(data: Path, name: str) -> list[str]:
    """The files of a data directory whose path or content has `name` in it, the index and locks included."""
    found = [path for path in data.rglob("*") if path.is_file()]
    return sorted(
        str(path.relative_to(data))
        for path in found
        if name in str(path.relative_to(data)) or name.encode() in path.read_bytes()
    )


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, byte for byte."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


@dataclass
class Fifo:
    """A place at which a command of the tool `shell` waits: `cat PATH` runs until it is let go."""

    path: Path

    def __post_init__(self) -> None:
        os.mkfifo(self.path)
        self._end: int | None = None

    async def reached(self) -> None:
        """Waits until a command reads from it."""
        async with asyncio.timeout(DEADLINE):
            self._end = await asyncio.to_thread(os.open, self.path, os.O_WRONLY)

    def release(self) -> None:
        if self._end is not None:
            os.close(self._end)
            self._end = None


@asynccontextmanager
async def waiting_at(path: Path) -> AsyncGenerator[Fifo]:
    fifo = Fifo(path)
    try:
        yield fifo
    finally:
        fifo.release()


def statuses(calls: Sequence[Mapping[str, Any]]) -> list[str | None]:
    return [call["status"] for call in calls]


RawSession = ClientSession
