"""The memory of each subject, opened when it is first wanted."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from agent_mcp.memory.facts import FactStore
from agent_mcp.memory.local import LocalFacts
from agent_mcp.storage.store import Store

_THREADS = 8


class MemoryRoom:
    """Memories by store. `executor` is for what turns ask of them, so that a slow memory holds no other thread."""

    def __init__(self, *, sync: bool) -> None:
        self._sync = sync
        self._opened: dict[Store, FactStore] = {}
        self._opening = threading.Lock()
        self.executor = ThreadPoolExecutor(_THREADS, "memory")

    def of(self, store: Store) -> FactStore:
        """The memory of the store's subject."""
        with self._opening:
            if store not in self._opened:
                self._opened[store] = LocalFacts(store.memory_file, sync=self._sync)
            return self._opened[store]

    def close(self) -> None:
        self.executor.shutdown(wait=False, cancel_futures=True)
        for facts in self._opened.values():
            facts.close()
