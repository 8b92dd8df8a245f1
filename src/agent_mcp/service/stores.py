"""The store of each subject, and the way off the event loop to it."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio.to_thread

from agent_mcp.config import Settings
from agent_mcp.domain import Caller
from agent_mcp.errors import InvalidArgument
from agent_mcp.storage.failures import storage_errors
from agent_mcp.storage.store import Store
from agent_mcp.storage.subjects import list_subjects, process_lock

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

MAX_OPEN = 64
"""How many subjects' stores are kept open."""
DEFAULT_PAGE = 50
MAX_PAGE = 200


class Stores:
    """One store for each subject: what is another's can't be found, whatever the id.

    Those that were used last are kept open. One that is put away and still in use, by a turn, opens again what it
    needs: nothing but files is shared between the stores of a subject.
    """

    def __init__(self, settings: Settings, *, opened: Callable[[Store, str], None]) -> None:
        self._settings = settings
        self._opened = opened
        self._process = process_lock(settings.data_dir)
        self._stores: OrderedDict[str, Store] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, caller: Caller) -> Store:
        """The store of the caller's subject, with what the caller may see of it. Blocking at first.

        Raises StorageFailed.
        """
        away: Store | None = None
        with self._lock:
            store = self._stores.get(caller.subject)
            new = store is None
            if store is None:
                with storage_errors(self._settings.data_dir):
                    self._process.acquire()
                store = self._stores[caller.subject] = self._make(caller.subject)
                if len(self._stores) > MAX_OPEN:
                    _, away = self._stores.popitem(last=False)
            self._stores.move_to_end(caller.subject)
            store.open()
            if new:
                self._opened(store, caller.subject)
        if away is not None:
            away.close()  # Its sweep ends first, which holds up this caller and nobody else.
        return store.seen_by(caller)

    def subjects(self) -> list[str]:
        """The authenticated subjects of which something is kept. Blocking; raises StorageFailed."""
        return list_subjects(self._settings.data_dir)

    def count(self) -> int:
        """How many stores are open, one for each subject that was seen lately."""
        return len(self._stores)

    def close(self) -> None:
        with self._lock:  # One may just be opened, by a client that came and went.
            for store in self._stores.values():
                store.close()
        self._process.release()

    def _make(self, subject: str) -> Store:
        settings = self._settings
        return Store(
            settings.data_dir, subject, process=self._process, sync=settings.fsync, default_ttl=settings.session_ttl
        )


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
