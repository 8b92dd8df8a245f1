"""The store of each subject, and the way off the event loop to it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio.to_thread

from agent_mcp.config import Settings
from agent_mcp.domain import Caller
from agent_mcp.errors import InvalidArgument
from agent_mcp.storage.store import Store

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

DEFAULT_PAGE = 50
MAX_PAGE = 200


class Stores:
    """One store for each subject: what is another's can't be found, whatever the id."""

    def __init__(self, settings: Settings, *, opened: Callable[[Store, str], None]) -> None:
        self._settings = settings
        self._opened = opened
        self._stores: dict[str, Store] = {}
        self._opening = threading.Lock()

    def of(self, caller: Caller) -> Store:
        """The store of the caller's subject. Blocking at first; raises StorageFailed."""
        with self._opening:
            store = self._stores.get(caller.subject)
            new = store is None
            if store is None:
                settings = self._settings
                store = Store(settings.data_dir, sync=settings.fsync, default_ttl=settings.session_ttl)
                self._stores[caller.subject] = store
            store.open()
            if new:
                self._opened(store, caller.subject)
            return store

    def close(self) -> None:
        with self._opening:  # One may just be opened, by a client that came and went.
            for store in self._stores.values():
                store.close()


def threaded(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Makes a blocking method one that is awaited while a thread runs it, so that no door can block its loop."""

    @functools.wraps(method)
    async def run(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        return await anyio.to_thread.run_sync(functools.partial(method, self, *args, **kwargs))

    return run


def page_size(limit: int) -> int:
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidArgument(f"The limit {limit} can't be used: give 1 to {MAX_PAGE}.")
    return limit


def one_line(text: str, what: str, *, longest: int) -> str:
    """`text` on one line; raises InvalidArgument if it is too long."""
    joined = " ".join(text.split())
    if len(joined) > longest:
        raise InvalidArgument(f"The {what} has {len(joined)} characters: shorten it to {longest}.")
    return joined
