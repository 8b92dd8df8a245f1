"""The memory of each subject, opened when it is first wanted."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from agent_mcp.memory.agentcore import AgentCoreFacts
from agent_mcp.memory.aws import Wire
from agent_mcp.memory.local import LocalFacts
from agent_mcp.memory.meaning import vectors_if_installed
from agent_mcp.storage.store import Store

_THREADS = 8

Facts = LocalFacts | AgentCoreFacts
"""The memories there are."""


class MemoryRoom:
    """Memories by store. `executor` is for what turns ask of them, so that a slow memory holds no other thread."""

    def __init__(self, *, sync: bool, agentcore: str | None = None) -> None:
        self._sync = sync
        self._wire = Wire(agentcore) if agentcore else None
        self._opened: dict[Store, Facts] = {}
        self._opening = threading.Lock()
        self.executor = ThreadPoolExecutor(_THREADS, "memory")
        self._wire_executor = ThreadPoolExecutor(2 * _THREADS, "agentcore")

    def of(self, store: Store, subject: str) -> Facts:
        """The memory of the subject whose store it is."""
        with self._opening:
            if store not in self._opened:
                self._opened[store] = self._open(store, subject)
            return self._opened[store]

    def _open(self, store: Store, subject: str) -> Facts:
        if self._wire is None:
            return LocalFacts(store.database("memory"), sync=self._sync, vectors=vectors_if_installed())
        path = store.database("outbox")
        return AgentCoreFacts(self._wire, subject=subject, path=path, sync=self._sync, executor=self._wire_executor)

    @property
    def describes(self) -> str:
        """Which memory is used, in words for `doctor`."""
        if self._wire is not None:
            return f"Bedrock AgentCore {self._wire.memory_id}; what can't be sent waits in outbox.db"
        by = "words and meaning" if vectors_if_installed() else "words (agent-mcp[embeddings] adds meaning)"
        return f"memory.db in the data directory, searched by {by}"

    def close(self) -> None:
        for executor in (self.executor, self._wire_executor):
            executor.shutdown(wait=False, cancel_futures=True)
        for facts in self._opened.values():
            facts.close()
