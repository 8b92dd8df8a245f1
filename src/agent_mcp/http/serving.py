"""The process that serves HTTP: from a socket to a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator
from typing import NoReturn

import uvicorn
from fastapi import FastAPI

from agent_mcp.http.access import url_of
from agent_mcp.service import Service

logger = logging.getLogger(__name__)

GRACE_SECONDS = 2.0
"""How long turns have to end once the process is told to stop."""
_CLOSE_SECONDS = 2
"""How long answers have to be sent then."""


class _Server(uvicorn.Server):
    """Uvicorn without its own handling of signals: it would raise them again at the end instead of exiting with 0."""

    def __init__(self, config: uvicorn.Config, *, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._told = started

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._told()


def server_of(app: FastAPI, *, started: Callable[[], None]) -> uvicorn.Server:
    """A server for an application; `started` is called once it answers."""
    # Its access log has the queries, in which people search; ours has not.
    logging.getLogger("uvicorn.access").disabled = True
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=_CLOSE_SECONDS,
    )
    return _Server(config, started=started)


async def serve_http(
    app: FastAPI, service: Service, listening: socket.socket, *, warm_up: Callable[[], None]
) -> NoReturn:
    """Serves until a signal, and ends the process.

    Turns have a moment to end and to be answered; then they are cancelled and closed.
    """
    url = url_of(listening)

    def started() -> None:
        print(f"agent-mcp serves MCP at {url}/mcp and REST at {url}/api/v1", file=sys.stderr, flush=True)

    server = server_of(app, started=started)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, stopping.set)
    loop.run_in_executor(None, warm_up)

    async def stop() -> None:
        await stopping.wait()
        logger.info("stopping")
        await service.drain(grace=GRACE_SECONDS)
        server.should_exit = True

    stopper = asyncio.create_task(stop())
    await server.serve([listening])
    stopper.cancel()
    await service.close(grace=0)
    logging.shutdown()
    sys.stderr.flush()
    # Python would wait for threads in which a stream or a tool hangs.
    os._exit(0)
