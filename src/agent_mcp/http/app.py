"""The application: MCP at /mcp and REST at /api/v1, over one service and for one caller of each request."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from mcp.server import ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.middleware import Middleware
from starlette.routing import Route

from agent_mcp.domain import Caller
from agent_mcp.http import problems, rest_agents, rest_memories, rest_sessions, rest_turns
from agent_mcp.http.access import LONGEST_REQUEST, BodyLimit, HostsAndOrigins
from agent_mcp.http.callers import Identified, Identify, caller_of
from agent_mcp.http.openapi import DescribedApi
from agent_mcp.http.parts import known_query
from agent_mcp.server.app import build_server
from agent_mcp.service import Service

_IDLE_SECONDS = 3600.0
"""A connection of the older revisions on which nothing came for so long is given up; what it began goes on."""

ROUTERS = (rest_agents.router, rest_memories.router, rest_sessions.router, rest_turns.router)


def build_app(
    service: Service, *, identify: Identify, allowed: TransportSecuritySettings, stateless: bool = False
) -> FastAPI:
    """Everything that is served over HTTP.

    `identify` finds the caller of a request, `allowed` names the hosts and origins that are answered. With `stateless`
    MCP keeps no connections, for platforms that spread requests over many servers.
    """
    server = build_server(service, caller_of=_mcp_caller)
    connections = StreamableHTTPSessionManager(
        server,
        stateless=stateless,
        # Hosts and origins are checked before, for all that is served here.
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        session_idle_timeout=None if stateless else _IDLE_SECONDS,
        max_request_body_size=LONGEST_REQUEST,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with connections.run():
            yield

    app = DescribedApi(
        title="agent-mcp",
        version=version("agent-mcp"),
        description="Agents that remember. The session_id of a reply is the key to the agent's memory.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(HostsAndOrigins, allowed=allowed),
            Middleware(Identified, identify=identify),
            Middleware(BodyLimit, longest=LONGEST_REQUEST),
        ],
    )
    app.state.service = service
    problems.install(app)
    app.router.routes.append(Route("/mcp", StreamableHTTPASGIApp(connections)))
    for router in ROUTERS:
        app.include_router(router, dependencies=[Depends(known_query)])

    @app.get("/healthz", tags=["operation"])
    async def health() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction] the route holds it
        """Whether the server answers."""
        return {"status": "ok"}

    return app


async def _mcp_caller(ctx: ServerRequestContext[Any, Any]) -> Caller:
    assert ctx.request is not None, "over HTTP every message comes with its request"
    return await caller_of(ctx.request)
