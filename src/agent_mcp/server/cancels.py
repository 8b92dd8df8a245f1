"""Over HTTP a request of the older revisions ends in two ways that look alike: its client cancels it, or goes away."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from agent_mcp.domain import Caller, TurnId
from agent_mcp.service import Service

Context = ServerRequestContext[Any, Any]

_CANCELLED = "notifications/cancelled"
_MOST = 4096
"""Turns that are remembered; those of connections that went away are never asked for again."""


class Cancels:
    """Knows which request started which turn, and so what a cancelled request means for its turn.

    On stdio and on 2026-07-28 a request is cancelled by its client only. Over HTTP on older revisions the end of a
    connection cancels its requests too, and then the turn goes on: there it is the notification that counts, which this
    middleware sees.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._turns: OrderedDict[tuple[str, str], tuple[Caller, TurnId]] = OrderedDict()

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        if ctx.method == _CANCELLED and (key := _key(ctx, (ctx.params or {}).get("requestId"))) is not None:
            started = self._turns.pop(key, None)
            if started is not None:
                self._service.turns.abandon(*started)
        return await call_next(ctx)

    def started(self, ctx: Context, caller: Caller, turn_id: TurnId) -> None:
        """Notes that a request has started a turn."""
        if (key := _key(ctx, ctx.request_id)) is not None:
            self._turns[key] = (caller, turn_id)
            while len(self._turns) > _MOST:
                self._turns.popitem(last=False)

    def answered(self, ctx: Context) -> None:
        """Notes that a request has its answer: nothing can cancel it any more."""
        if (key := _key(ctx, ctx.request_id)) is not None:
            self._turns.pop(key, None)

    def interrupted(self, ctx: Context, caller: Caller, turn_id: TurnId) -> None:
        """Cancels the turn of a request that was cancelled, unless it is the connection that ended."""
        if not _is_handshake_http(ctx):
            self._service.turns.abandon(caller, turn_id)


def _is_handshake_http(ctx: Context) -> bool:
    return ctx.request is not None and ctx.protocol_version in HANDSHAKE_PROTOCOL_VERSIONS


def _key(ctx: Context, request_id: object) -> tuple[str, str] | None:
    """Names a request of a connection over HTTP; None where nobody needs to tell it from others."""
    if not _is_handshake_http(ctx) or ctx.request is None or request_id is None:
        return None
    connection = ctx.request.headers.get("mcp-session-id")
    return (connection, str(request_id)) if connection else None
