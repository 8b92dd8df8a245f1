"""Notices: clients are told of new messages and sessions, also of those that another process made.

On 2026-07-28 a client asks with `subscriptions/listen`; before it with `resources/subscribe`, and is told of list
changes without asking. Both kinds are fed by one watch over each subject's changes: nobody is told of another one's.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from mcp.server import ServerRequestContext
from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ResourceUpdated
from mcp_types import EmptyResult, SubscriptionsListenRequestParams, SubscriptionsListenResult

from agent_mcp.domain import Caller
from agent_mcp.errors import AgentMcpError, InvalidArgument
from agent_mcp.server.resources import protocol_error
from agent_mcp.server.tool_table import HANDSHAKE_LAST
from agent_mcp.service import Service
from agent_mcp.service.change_cases import Changes, Mark

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.25
_SEND_SECONDS = 5.0
"""How long a client may take to accept a notice; one that takes longer is told of nothing any more."""
_MOST_LISTENERS = 256
"""Clients of one subject that are told, of each generation."""
_MOST_URIS = 512
_LONGEST_URI = 300
_BUFFERED = 1024
_SEEN: Final = "agent_mcp.seen"
_OPENS_STORE = {"resources/list", "resources/read", "resources/subscribe", "tools/call"}
"""Requests that open the store anyway: what changes behind one of them is told."""

Context = ServerRequestContext[Any, Any]
_Seen = tuple[str, tuple[str, ...] | None]
"""What a caller may be told of: its subject, and of that the actors that it may act for."""


class Notices:
    """The watches over one service. Also middleware, for what connections with a handshake are told unasked."""

    def __init__(self, service: Service, caller_of: Callable[[Context], Awaitable[Caller]]) -> None:
        self._service = service
        self._caller_of = caller_of
        self._watches: dict[_Seen, _Watch] = {}
        self._starting: set[asyncio.Task[None]] = set()

    async def listen(self, ctx: Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        """Serves one stream of notices, until the client leaves it."""
        uris = params.notifications.resource_subscriptions or []
        try:
            for uri in uris:
                _check(uri, uris)
            async with self._watch(await self._caller_of(ctx)) as watch:
                return await watch.listen(ctx, params)
        except AgentMcpError as error:
            raise protocol_error(error) from None

    async def subscribe(self, ctx: Context, uri: str) -> EmptyResult:
        try:
            subscribed = await self._join(ctx)
            if subscribed is None:
                raise InvalidArgument("This connection carries no notices: there is no way to you but through answers.")
            _check(uri, [*subscribed, uri])
            subscribed.add(uri)
        except AgentMcpError as error:
            raise protocol_error(error) from None
        return EmptyResult()

    async def unsubscribe(self, ctx: Context, uri: str) -> EmptyResult:
        try:
            subscribed = await self._join(ctx)
        except AgentMcpError as error:
            raise protocol_error(error) from None
        if subscribed is not None:
            subscribed.discard(uri)
        return EmptyResult()

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        if ctx.protocol_version <= HANDSHAKE_LAST:
            if ctx.method in _OPENS_STORE:
                with suppress(AgentMcpError):  # The request itself says what is wrong.
                    await self._join(ctx)
            elif ctx.method == "notifications/initialized":
                # Not waited for: the handshake must not wait until the store is open.
                task = asyncio.get_running_loop().create_task(self._begin(ctx))
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)
        return await call_next(ctx)

    async def _begin(self, ctx: Context) -> None:
        with suppress(AgentMcpError):
            await self._join(ctx)

    async def _join(self, ctx: Context) -> set[str] | None:
        """Has a connection told of what changes from now on; returns what it is subscribed to, None if it can't be."""
        # There is no public way from a request to its connection, whose end has to be known.
        connection = ctx.session._connection  # pyright: ignore[reportPrivateUsage]
        caller = await self._caller_of(ctx)
        if not connection.has_standalone_channel:
            return None
        before = connection.state.get(_SEEN)
        if before != (seen := _seen_by(caller)):
            if before is not None and (old := self._watches.get(before)) is not None:
                old.leave(connection)
            else:
                connection.exit_stack.callback(self._leave, connection)
            connection.state[_SEEN] = seen
        async with self._watch(caller) as watch:
            return watch.join(connection)

    def _leave(self, connection: Connection) -> None:
        watch = self._watches.get(connection.state[_SEEN])
        if watch is not None:
            watch.leave(connection)
            self._give_up(connection.state[_SEEN])

    @asynccontextmanager
    async def _watch(self, caller: Caller) -> AsyncGenerator[_Watch]:
        """The watch of those who see the same, running; given up with the last who is told."""
        watch = self._watches.setdefault(_seen_by(caller), _Watch(self._service, caller))
        watch.users += 1
        try:
            await watch.begin()
            yield watch
        finally:
            watch.users -= 1
            self._give_up(_seen_by(caller))

    def _give_up(self, seen: _Seen) -> None:
        watch = self._watches.get(seen)
        if watch is not None and watch.is_idle:
            watch.stop()
            del self._watches[seen]


def _seen_by(caller: Caller) -> _Seen:
    return caller.subject, caller.actors


class _Watch:
    """Looks for the changes that callers may see, four times a second, and tells who wants to know."""

    def __init__(self, service: Service, caller: Caller) -> None:
        self._service = service
        self._caller = caller
        self._bus = InMemorySubscriptionBus()
        self._listen = ListenHandler(self._bus, max_subscriptions=_MOST_LISTENERS, max_buffered_events=_BUFFERED)
        self._listened: Counter[str] = Counter()
        self._connections: dict[Connection, set[str]] = {}
        self._beginning = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.users = 0

    @property
    def is_idle(self) -> bool:
        return not self.users and not self._connections

    async def begin(self) -> None:
        """Starts to look, if it does not yet: what is written after this call is told. Raises StorageFailed."""
        async with self._beginning:
            if self._task is None:
                mark = await self._service.changes.mark(self._caller)
                self._task = asyncio.get_running_loop().create_task(self._run(mark))

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def listen(self, ctx: Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        uris = params.notifications.resource_subscriptions or []
        self._listened.update(uris)
        try:
            return await self._listen(ctx, params)
        finally:
            self._listened.subtract(uris)
            self._listened += Counter()  # drops what nobody listens for

    def join(self, connection: Connection) -> set[str]:
        """The URIs that a connection is told about, to be changed; raises InvalidArgument if there are too many."""
        if connection not in self._connections and len(self._connections) >= _MOST_LISTENERS:
            raise InvalidArgument(f"{_MOST_LISTENERS} connections are told of changes already: close some.")
        return self._connections.setdefault(connection, set())

    def leave(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    async def _run(self, mark: Mark) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                changes = await self._service.changes.since(self._caller, mark)
                mark = changes.mark
                if changes.lists or changes.anything or changes.uris:
                    await self._tell(changes)
            except AgentMcpError:
                logger.warning("changes can't be looked for", exc_info=True)
            except Exception:
                logger.exception("telling of changes failed")

    async def _tell(self, changes: Changes) -> None:
        uris = {uri for changed in changes.uris for uri in _with_kin(changed)}
        if changes.lists or changes.anything:
            await self._bus.publish(ResourcesListChanged())
        for uri in sorted(self._listened if changes.anything else uris & self._listened.keys()):
            await self._bus.publish(ResourceUpdated(uri=uri))
        for connection, subscribed in list(self._connections.items()):
            try:
                async with asyncio.timeout(_SEND_SECONDS):
                    if changes.lists or changes.anything:
                        await connection.send_resource_list_changed()
                    for uri in sorted(subscribed if changes.anything else uris & subscribed):
                        await connection.send_resource_updated(uri)
            except TimeoutError:
                logger.warning("a client does not read its notices, and gets no more")
                self.leave(connection)


def _with_kin(uri: str) -> tuple[str, ...]:
    """What changes with a resource: a session's messages with its transcript."""
    return (uri, f"{uri.removesuffix('/transcript')}/messages") if uri.endswith("/transcript") else (uri,)


def _check(uri: str, together: Sequence[str]) -> None:
    if len(uri) > _LONGEST_URI:
        raise InvalidArgument(f"There is no resource {uri[:60]!r}...: resources/templates/list shows the forms.")
    if len(together) > _MOST_URIS:
        raise InvalidArgument(f"{_MOST_URIS} resources at most are told about on one connection: leave some out.")
