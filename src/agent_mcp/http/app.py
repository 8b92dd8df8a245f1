"""The application: MCP at /mcp and REST at /api/v1, over one service and for one caller of each request."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from mcp.server import ServerRequestContext
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.routes import create_protected_resource_routes
from mcp.server.auth.settings import AuthSettings
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from agent_mcp.domain import Caller
from agent_mcp.http import problems, rest_agents, rest_memories, rest_sessions, rest_turns
from agent_mcp.http.access import LONGEST_REQUEST, Allowed, BodyLimit, HostsAndOrigins
from agent_mcp.http.access_log import AccessLog
from agent_mcp.http.callers import Identified, Identify, caller_of
from agent_mcp.http.metrics import Readers, metrics_router
from agent_mcp.http.openapi import DescribedApi
from agent_mcp.http.parts import known_query
from agent_mcp.server.app import build_server
from agent_mcp.service import Service

_IDLE_SECONDS = 3600.0
"""A connection of the older revisions on which nothing came for so long is given up; what it began goes on."""

ROUTERS = (rest_agents.router, rest_memories.router, rest_sessions.router, rest_turns.router)


def build_app(
    service: Service,
    *,
    identify: Identify,
    allowed: Allowed,
    readers: Readers,
    stateless: bool = False,
    resource: tuple[str, str] | None = None,
) -> FastAPI:
    """Everything that is served over HTTP.

    `identify` finds the caller of a request, `allowed` names the hosts and origins that are answered, `readers` who is
    shown the metrics. With `stateless` MCP keeps no connections, for platforms that spread requests over many servers.
    `resource` are the URL of the MCP door and the issuer of its tokens, for clients that look for them (RFC 9728).
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
        # Behind a proxy that ends TLS it would send callers, with their tokens, to a plain http URL.
        redirect_slashes=False,
        # Its own traces have queries in them, in which people search.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        middleware=[
            Middleware(AccessLog),
            Middleware(HostsAndOrigins, allowed=allowed),
            Middleware(
                CORSMiddleware,
                allow_origin_regex=_any_of(allowed.origins),
                allow_methods=["GET", "POST", "PATCH", "DELETE"],
                allow_headers=["*"],
                expose_headers=["Mcp-Session-Id", "Retry-After", "WWW-Authenticate"],
            ),
            Middleware(Identified, identify=identify),
            Middleware(AuthContextMiddleware),
            Middleware(BodyLimit, longest=LONGEST_REQUEST),
        ],
    )
    app.state.service = service
    problems.install(app)
    app.router.routes.append(Route("/mcp", StreamableHTTPASGIApp(connections)))
    if resource is not None:
        url, issuer = resource
        # The SDK's settings keep a URL as it is written: clients compare the issuer letter by letter.
        kept = AuthSettings.model_validate({"issuer_url": issuer, "resource_server_url": url})
        assert kept.resource_server_url is not None
        routes = create_protected_resource_routes(
            kept.resource_server_url, [kept.issuer_url], resource_name="agent-mcp"
        )
        app.router.routes.extend(routes)
    for router in ROUTERS:
        app.include_router(router, dependencies=[Depends(known_query)])
    app.include_router(metrics_router(service, readers), dependencies=[Depends(known_query)])

    @app.get("/healthz", tags=["operation"])
    async def health() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction] the route holds it
        """Whether the server answers."""
        return {"status": "ok"}

    return app


def _any_of(origins: tuple[str, ...]) -> str:
    """The origins as one expression; a port `*` is any port."""
    return "|".join(re.escape(one).replace(r":\*", r":\d+") for one in origins) or r"(?!)"


async def _mcp_caller(ctx: ServerRequestContext[Any, Any]) -> Caller:
    assert ctx.request is not None, "over HTTP every message comes with its request"
    return await caller_of(ctx.request)
