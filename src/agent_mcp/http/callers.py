"""Who makes a request: found once, before anything else looks at it, and the same for REST and MCP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_mcp.domain import LOCAL_SUBJECT, Caller
from agent_mcp.errors import AgentMcpError
from agent_mcp.http.problems import problem_response

Identify = Callable[[HTTPConnection], Awaitable[Caller]]
"""Finds the caller of a request, or raises the error that it is refused with."""

_KEY = "agent_mcp.caller"
METRICS_PATH = "/metrics"
"""Has its own rule for who is let in."""
_OPEN = ("/healthz", "/openapi.json", "/.well-known/oauth-protected-resource")
"""What anybody may see: it tells nothing about anyone."""


async def nobody_authenticates(connection: HTTPConnection) -> Caller:
    """The one subject there is; its actor is the `actor_id` that a request gives, else `local`."""
    return Caller(subject=LOCAL_SUBJECT)


class Identified:
    """Middleware that lets nobody in whom `identify` refuses, and notes in the scope who calls."""

    def __init__(self, app: ASGIApp, identify: Identify) -> None:
        self._app = app
        self._identify = identify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _looks_after_itself(scope["path"]):
            try:
                scope[_KEY] = await self._identify(HTTPConnection(scope))
            except AgentMcpError as error:
                await problem_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _looks_after_itself(path: str) -> bool:
    return path == METRICS_PATH or path.startswith(_OPEN)


async def caller_of(connection: HTTPConnection) -> Caller:
    """Who makes this request: the one place where REST and MCP learn it."""
    return cast("Caller", connection.scope[_KEY])
