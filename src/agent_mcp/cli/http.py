"""`agent-mcp serve --http`: what it takes to serve over HTTP, put together."""

from __future__ import annotations

import asyncio
import os
from typing import NoReturn

from agent_mcp.compose import build_service, warm_up
from agent_mcp.config import Settings
from agent_mcp.errors import InvalidArgument

HTTP_ADDRESS = "127.0.0.1:8080"


def serve_over_http(settings: Settings, address: str, *, stateless: bool) -> NoReturn:
    """Serves on an address until a signal; raises InvalidArgument where that can't or must not be."""
    # Imported here: on stdio nobody waits for a web framework.
    from agent_mcp.http.access import is_loopback, listen, loopback_only, parse_address
    from agent_mcp.http.app import build_app
    from agent_mcp.http.callers import nobody_authenticates
    from agent_mcp.http.serving import serve_http

    host, port = parse_address(address)
    if not is_loopback(host):
        raise InvalidArgument(
            f"{host!r} can be reached from other machines, and nobody would be asked who they are: serve on "
            f"{HTTP_ADDRESS} or another loopback address."
        )
    listening = listen(host, port)

    async def run() -> None:
        service = build_service(settings, os.environ)
        app = build_app(service, identify=nobody_authenticates, allowed=loopback_only(), stateless=stateless)
        await serve_http(app, service, listening, warm_up=warm_up)

    asyncio.run(run())
    raise AssertionError("serving ends the process")
