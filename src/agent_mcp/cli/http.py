"""`agent-mcp serve --http`: what it takes to serve over HTTP, put together."""

from __future__ import annotations

import asyncio
import os
from typing import NoReturn

from agent_mcp.compose import build_service, warm_up
from agent_mcp.config import Settings
from agent_mcp.traces import start_traces

HTTP_ADDRESS = "127.0.0.1:8080"


def serve_over_http(settings: Settings, address: str, *, stateless: bool) -> NoReturn:
    """Serves on an address until a signal; raises InvalidArgument where that can't or must not be."""
    # Imported here: on stdio nobody waits for a web framework.
    from agent_mcp import letting_in
    from agent_mcp.http.access import is_loopback, listen, parse_address, url_of
    from agent_mcp.http.serving import serve_http

    host, port = parse_address(address)
    letting_in.check_address(settings, host, loopback=is_loopback(host))
    listening = listen(host, port)

    async def run() -> None:
        service = build_service(
            settings,
            os.environ,
            authenticated=letting_in.authenticates(settings),
            at_end=start_traces(os.environ),
        )
        app = letting_in.app_for(
            service, url=settings.public_url or url_of(listening), loopback=is_loopback(host), stateless=stateless
        )
        await serve_http(app, service, listening, warm_up=warm_up)

    asyncio.run(run())
    raise AssertionError("serving ends the process")
