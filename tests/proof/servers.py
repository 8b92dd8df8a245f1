"""Server processes as the proof drives them: a bare client of each, and a way to say where it is to stop or fail."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from conftest import server_environment

_BEGINNING = 600.0
"""Seconds for importing everything, on the busiest of machines."""
DEADLINE = 120.0
"""Seconds after which something that was waited for counts as never happening."""


class Refused(Exception):
    """A tool's error, as its text."""

    @property
    def code(self) -> str:
        return str(self).rpartition("[")[2].rstrip("]")


class Gone(Exception):
    """The server ended before it answered."""


class Nursery:
    """Starts servers by forking them from one process that has imported everything."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = str(Path(__file__).with_name("nursery.py"))
        paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, program, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # glibc keeps an arena for each thread that ever allocated, and what they hold hides what grows. It reads
            # this when a program begins, not when it is forked.
            env=server_environment(Path("unused"))
            | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "MALLOC_ARENA_MAX": "2"},
        )
        theirs.close()
        self._orders.settimeout(_BEGINNING)

    def __enter__(self) -> Self:
        assert self._orders.recv(64) == b"{}"
        return self

    def __exit__(self, *_: object) -> None:
        self._orders.close()
        self._process.wait(timeout=DEADLINE)

    async def start(self, data: Path, **settings: str) -> "Server":
        """A server on `data`, whose first message is yet to come."""
        environment = server_environment(data, {"AGENT_MCP_TOOLS": "engine_tools", **settings})
        protocol, its_protocol = socket.socketpair()
        control, its_control = socket.socketpair()
        log = os.open(data.with_name(f"{data.name}.log"), os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        try:
            theirs = [its_protocol.fileno(), its_control.fileno(), log]
            socket.send_fds(self._orders, [json.dumps(environment).encode()], theirs)
            pid = json.loads(self._orders.recv(64))["pid"]
        finally:
            its_protocol.close()
            its_control.close()
            os.close(log)
        server = Server(pid, await _Lines.over(protocol), await _Lines.over(control))
        await server.handshake()
        return server


class _Lines:
    """JSON objects, one a line, both ways."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> Self:
        return cls(*await asyncio.open_connection(sock=sock, limit=1 << 24))

    def send(self, message: Mapping[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """The next object, None at the end."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        return json.loads(line) if line.endswith(b"\n") else None

    def close(self) -> None:
        self._writer.close()


class Server:
    """A server process and its one client."""

    def __init__(self, pid: int, protocol: _Lines, control: _Lines) -> None:
        self.pid = pid
        self._protocol = protocol
        self._control = control
        self._next = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading = asyncio.create_task(self._read())

    async def handshake(self) -> None:
        client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "proof", "version": "1"}}
        await self._answer(self._request("initialize", client))
        self._protocol.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, tool: str, **arguments: Any) -> "asyncio.Future[dict[str, Any]]":
        """Calls a tool without waiting for it."""
        return self._request("tools/call", {"name": tool, "arguments": arguments})

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Calls a tool; raises Refused, Gone."""
        return await self.result(self.send(tool, **arguments))

    async def result(self, sent: "asyncio.Future[dict[str, Any]]") -> dict[str, Any]:
        """What a tool that was called gave; raises Refused, Gone."""
        answer = await self._answer(sent)
        if answer.get("isError"):
            raise Refused(answer["content"][0]["text"])
        return answer["structuredContent"]

    async def ask(self, prompt: str, session: str, **arguments: Any) -> dict[str, Any]:
        """Asks, however long it takes; raises Refused, Gone."""
        asked = await self.call("ask_agent", prompt=prompt, session_id=session, **arguments)
        return asked if asked["status"] != "working" else await self.reply(asked["turn_id"])

    async def reply(self, turn_id: str) -> dict[str, Any]:
        """The reply of a turn, however long it takes; raises Refused, Gone."""
        async with asyncio.timeout(DEADLINE):
            while (reply := await self.call("get_reply", turn_id=turn_id, wait_seconds=30))["status"] == "working":
                pass
        return reply

    async def plan(self, **plan: Any) -> list[tuple[str, str]]:
        """Says what is to happen at which operation from here on; returns those since the last plan."""
        return [(kind, name) for kind, name in (await self._order({"plan": plan}, "done"))["done"]]

    async def watch(self, name: str) -> None:
        """Has the server tell when it next opens a file whose path contains `name`; see `told`."""
        await self._order({"watch": name}, "watching")

    async def limit_files(self, more: int | None) -> None:
        """Lets it open only so many files more; None: as many as at first."""
        await self._order({"files": more}, "limited")

    async def told(self, key: str) -> dict[str, Any] | None:
        """Waits for news with this key from the spy: `paused` or `watched`; None if the server ended."""
        async with asyncio.timeout(DEADLINE):
            while (news := await self._control.receive()) is not None:
                if key in news:
                    return news
        return None

    def go(self) -> None:
        """Lets it go on where it is paused."""
        self._control.send({"go": True})

    async def kill(self) -> None:
        """Ends the process without a chance to clean up, and waits until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        await self.end()

    async def close(self) -> None:
        """Ends the server as a host does."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        await self.end()

    async def end(self) -> None:
        async with asyncio.timeout(DEADLINE):
            await self._reading
        self._protocol.close()
        self._control.close()

    async def _order(self, order: dict[str, Any], key: str) -> dict[str, Any]:
        self._control.send(order)
        news = await self.told(key)
        if news is None:
            raise Gone(f"the server {self.pid} ended")
        return news

    def _request(self, method: str, params: dict[str, Any]) -> "asyncio.Future[dict[str, Any]]":
        self._next += 1
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self._reading.done():
            future.set_exception(Gone(f"the server {self.pid} ended"))
            return future
        self._waiting[self._next] = future
        self._protocol.send({"jsonrpc": "2.0", "id": self._next, "method": method, "params": params})
        return future

    async def _answer(self, sent: "asyncio.Future[dict[str, Any]]") -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE + 30):
            return await sent

    async def _read(self) -> None:
        while (message := await self._protocol.receive()) is not None:
            future = self._waiting.pop(message.get("id", -1), None)
            if future is None or future.done():
                continue
            if "result" in message:
                future.set_result(message["result"])
            else:
                future.set_exception(Refused(str(message["error"])))
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Gone(f"the server {self.pid} ended"))
        self._waiting.clear()
