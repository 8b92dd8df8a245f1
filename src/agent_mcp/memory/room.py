"""The memory of each subject, opened when it is first wanted."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from agent_mcp.memory.agentcore import AgentCoreFacts
from agent_mcp.memory.aws import Wire
from agent_mcp.memory.local import LocalFacts
from agent_mcp.memory.meaning import vectors_if_installed
from agent_mcp.storage.store import Store

_THREADS = 8
_MAX_OPEN = 64
"""How many subjects' memories are kept open."""

Facts = LocalFacts | AgentCoreFacts
"""The memories there are."""


class MemoryRoom:
    """Memories by subject, of one data directory. One that is put away and still in use opens again what it needs.

    `executor` is for what turns ask of them, so that a slow memory holds no other thread.
    """

    def __init__(self, *, sync: bool, agentcore: str | None = None) -> None:
        self._sync = sync
        self._wire = Wire(agentcore) if agentcore else None
        self._opened: OrderedDict[str, Facts] = OrderedDict()
        self._opening = threading.Lock()
        self.executor = ThreadPoolExecutor(_THREADS, "memory")
        self._wire_executor = ThreadPoolExecutor(2 * _THREADS, "agentcore")

    def of(self, store: Store, subject: str) -> Facts:
        """The memory of the subject whose store it is."""
        with self._opening:
            facts = self._opened.pop(subject, None) or self._open(store, subject)
            self._opened[subject] = facts
            if len(self._opened) > _MAX_OPEN:
                _, away = self._opened.popitem(last=False)
                away.close()
            return facts

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
        by = "words and meaning" if vectors_if_installed() else "words (the package wordllama adds meaning)"
        return f"memory.db in the data directory, searched by {by}"

    def close(self) -> None:
        for executor in (self.executor, self._wire_executor):
            executor.shutdown(wait=False, cancel_futures=True)
        for facts in self._opened.values():
            facts.close()
