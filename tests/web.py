"""HTTP servers: in the test's own process, on a loop and a thread of its own, for many tests; and as a process."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from mcp.client import Client

from agent_mcp.compose import build_service
from agent_mcp.config import Settings
from agent_mcp.http.access import listen, url_of
from agent_mcp.http.serving import server_of
from agent_mcp.letting_in import app_for, authenticates
from conftest import server_environment
from contract_record import RecordingClient

DEADLINE = 60.0


@dataclass(frozen=True)
class Web:
    """A running server: its URL, a client of its REST door, and its data directory."""

    url: str
    rest: httpx.Client
    data: Path
    server: uvicorn.Server

    def post(self, path: str, body: Mapping[str, Any] | None = None, **options: Any) -> httpx.Response:
        return self.rest.post(f"/api/v1{path}", json=body, **options)

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self.rest.get(f"/api/v1{path}", params=query)

    def ask(self, prompt: str, agent: str = "assistant", **body: Any) -> dict[str, Any]:
        """One turn that must be completed; its reply."""
        answer = self.post(f"/agents/{agent}/invoke", {"prompt": prompt, **body})
        assert answer.status_code == 200, answer.text
        return answer.json()

    @contextmanager
    def dropped(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "POST",
    ) -> Generator[None]:
        """Sends a request, and hangs up at the end of the block without an answer; waits until the server noticed."""
        content = b"" if body is None else json.dumps(body).encode()
        given = {"Host": self.url.removeprefix("http://"), "Content-Type": "application/json", **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            start = f"{method} {path} HTTP/1.1\r\n{head}Content-Length: {len(content)}\r\n\r\n"
            connection.sendall(start.encode() + content)
            mine = connection.getsockname()
            yield
        end = time.monotonic() + DEADLINE
        while any(getattr(one, "client", None) == mine for one in list(self.server.server_state.connections)):
            assert time.monotonic() < end, "the server did not notice that its client went away"
            time.sleep(0.01)

    @asynccontextmanager
    async def mcp(self, mode: str = "auto", **client: Any) -> AsyncGenerator[Client]:
        """A client of the MCP door."""
        async with RecordingClient(f"{self.url}/mcp", mode=mode, read_timeout_seconds=DEADLINE, **client) as connected:
            yield connected


@contextmanager
def serving(
    data_dir: Path,
    *,
    model: str = "offline",
    environ: Mapping[str, str] | None = None,
    stateless: bool = False,
    **settings: Any,
) -> Generator[Web]:
    """A server over `data_dir` until the end of the block."""
    chosen: dict[str, Any] = {"data_dir": data_dir, "model": model, "fsync": False, **settings}
    listening = listen("127.0.0.1", 0)
    url = url_of(listening)
    started = threading.Event()
    stop = threading.Event()
    servers: list[uvicorn.Server] = []

    async def run() -> None:
        validated = Settings.model_validate(chosen)
        service = build_service(validated, dict(environ or {}), authenticated=authenticates(validated))
        app = app_for(service, url=url, loopback=True, stateless=stateless)
        server = server_of(app, started=started.set)
        servers.append(server)
        task = asyncio.create_task(server.serve([listening]))
        await asyncio.to_thread(stop.wait)
        await service.close(grace=0)
        server.should_exit = True
        await task

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="web", daemon=True)
    thread.start()
    try:
        assert started.wait(DEADLINE), "the server did not start"
        with httpx.Client(base_url=url, timeout=DEADLINE, trust_env=False) as rest:
            yield Web(url, rest, data_dir, servers[0])
    finally:
        stop.set()
        thread.join(DEADLINE)
        assert not thread.is_alive()


@contextmanager
def process(
    data: Path, *options: str, env: Mapping[str, str] | None = None, address: str = "127.0.0.1:0"
) -> Generator[tuple["subprocess.Popen[str]", str]]:
    """A server on a free port, once it has said where."""
    server = subprocess.Popen(
        [sys.executable, "-m", "agent_mcp", "serve", "--http", address, *options],
        env=server_environment(data, env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        for line in server.stderr:  # the test's own deadline ends a wait for a line that does not come
            if found := re.search(r"serves MCP at (http://\S+)/mcp", line):
                break
        else:
            raise AssertionError("the server ended before it said where it serves")
        yield server, found[1]
    finally:
        server.kill()
        server.communicate()
