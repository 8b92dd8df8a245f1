"""What callers do with what is remembered of an actor: remember, recall, forget."""

from __future__ import annotations

from agent_mcp.domain import ActorId, Caller, Fact, MemoryId
from agent_mcp.errors import InvalidArgument, MemoryNotFound
from agent_mcp.memory.facts import FactStore, Memory, Origin
from agent_mcp.memory.room import MemoryRoom
from agent_mcp.memory.worker import Worker
from agent_mcp.service.stores import Stores, page_size, threaded

DEFAULT_HITS = 10


class RememberedFact(Fact):
    memory_id: MemoryId
    confirmed: bool


class RecalledFacts(Fact):
    """The facts that fit, the best first. `note` says what is missing, where something is."""

    memories: tuple[Memory, ...]
    note: str | None = None


class ForgottenFact(Fact):
    memory_id: MemoryId
    deleted: bool = True


class MemoryCases:
    """The use cases of memory: of the caller's subject, and of one actor each."""

    def __init__(self, *, stores: Stores, room: MemoryRoom, worker: Worker) -> None:
        self._stores = stores
        self._room = room
        self._worker = worker

    @threaded
    def remember(
        self,
        caller: Caller,
        *,
        text: str | None = None,
        memory_id: MemoryId | None = None,
        actor_id: ActorId | None = None,
    ) -> RememberedFact:
        """Keeps a fact on the caller's word, or confirms one that an agent noted. Raises MemoryNotFound."""
        actor = caller.actor_for(actor_id)
        store = self._stores.of(caller)
        facts = self._room.of(store, caller.subject)
        if (text is None) == (memory_id is None):
            raise InvalidArgument("Give either text (a fact to remember) or memory_id (one to confirm).")
        if text is not None:
            memory = facts.add(actor, text, Origin())
        else:
            assert memory_id is not None
            memory = facts.confirm(actor, memory_id)
            if memory is None:
                raise _not_found(memory_id)
        self._worker.keep_up(store, caller.subject)
        return RememberedFact(memory_id=memory.memory_id, confirmed=memory.confirmed)

    @threaded
    def recall(
        self, caller: Caller, query: str, *, actor_id: ActorId | None = None, limit: int = DEFAULT_HITS
    ) -> RecalledFacts:
        """Facts that fit the query, the best first; those that nobody confirmed yet too."""
        actor = caller.actor_for(actor_id)
        found = self._facts(caller).search(actor, query, limit=page_size(limit))
        note = found.note or (None if found.memories else "Nothing that fits is remembered of this actor.")
        return RecalledFacts(memories=found.memories, note=note)

    @threaded
    def forget(self, caller: Caller, memory_id: MemoryId, *, actor_id: ActorId | None = None) -> ForgottenFact:
        """Deletes a fact for good. Raises MemoryNotFound."""
        actor = caller.actor_for(actor_id)
        store = self._stores.of(caller)
        if not self._room.of(store, caller.subject).forget(actor, memory_id):
            raise _not_found(memory_id)
        self._worker.keep_up(store, caller.subject)
        return ForgottenFact(memory_id=memory_id)

    @property
    def where(self) -> str:
        """Which memory is used, in words."""
        return self._room.describes

    async def settled(self, seconds: float) -> None:
        """Waits until what turns taught is learnt, not longer than some seconds: for a command that is over then."""
        await self._worker.idle(seconds)

    def _facts(self, caller: Caller) -> FactStore:
        return self._room.of(self._stores.of(caller), caller.subject)


def _not_found(memory_id: MemoryId) -> MemoryNotFound:
    return MemoryNotFound(
        f"Nothing is remembered of this actor under {memory_id!r}: recall finds what there is. Nothing was changed."
    )
