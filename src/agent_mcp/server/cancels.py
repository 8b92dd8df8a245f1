"""Over HTTP a request of the older revisions ends in two ways that look alike: its client cancels it, or goes away."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from agent_mcp.domain import Caller, TurnId
from agent_mcp.service import Service

Context = ServerRequestContext[Any, Any]

_Key = tuple[str, str, str]

_CANCELLED = "notifications/cancelled"
_MOST = 4096
"""Turns that are remembered; those of connections that went away are never asked for again."""


class Cancels:
    """Knows which request started which turn, and so what a cancelled request means for its turn.

    On stdio and on 2026-07-28 a request is cancelled by its client only. Over HTTP on older revisions the end of a
    connection cancels its requests too, and then the turn goes on: there it is the notification that counts, which this
    middleware sees.
    """

    def __init__(self, service: Service, caller_of: Callable[[Context], Awaitable[Caller]]) -> None:
        self._service = service
        self._caller_of = caller_of
        self._turns: OrderedDict[_Key, tuple[Caller, TurnId]] = OrderedDict()

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        if ctx.method == _CANCELLED and _is_handshake_http(ctx):
            key = _key(ctx, await self._caller_of(ctx), (ctx.params or {}).get("requestId"))
            started = self._turns.pop(key, None) if key is not None else None
            if started is not None:
                self._service.turns.abandon(*started)
        return await call_next(ctx)

    def started(self, ctx: Context, caller: Caller, turn_id: TurnId) -> None:
        """Notes that a request has started a turn."""
        if (key := _key(ctx, caller, ctx.request_id)) is not None:
            self._turns[key] = (caller, turn_id)
            while len(self._turns) > _MOST:
                self._turns.popitem(last=False)

    def answered(self, ctx: Context, caller: Caller) -> None:
        """Notes that a request has its answer: nothing can cancel it any more."""
        if (key := _key(ctx, caller, ctx.request_id)) is not None:
            self._turns.pop(key, None)

    def interrupted(self, ctx: Context, caller: Caller, turn_id: TurnId) -> None:
        """Cancels the turn of a request that was cancelled, unless it is the connection that ended."""
        if not _is_handshake_http(ctx):
            self._service.turns.abandon(caller, turn_id)


def _is_handshake_http(ctx: Context) -> bool:
    return ctx.request is not None and ctx.protocol_version in HANDSHAKE_PROTOCOL_VERSIONS


def _key(ctx: Context, caller: Caller, request_id: object) -> _Key | None:
    """Names a request of a connection over HTTP; None where nobody needs to tell it from others.

    By its subject too: where no connections are kept, their ids are what a platform or a client says.
    """
    if not _is_handshake_http(ctx) or ctx.request is None or request_id is None:
        return None
    connection = ctx.request.headers.get("mcp-session-id")
    return (caller.subject, connection, str(request_id)) if connection else None
