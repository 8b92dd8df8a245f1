"""Erasing an actor: what is remembered of them, and if wanted all that was ever said with them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import anyio.to_thread

from agent_mcp.domain import ActorId, Caller, Fact, SessionId, now
from agent_mcp.errors import SessionNotFound
from agent_mcp.memory.room import MemoryRoom
from agent_mcp.service.stores import MAX_PAGE, Stores
from agent_mcp.service.turn_cases import TurnCases
from agent_mcp.storage.searching import Listed, Position
from agent_mcp.storage.store import Store

logger = logging.getLogger(__name__)

_PASSES = 3
"""How often it is looked for sessions: one may be begun while others are deleted."""


class ErasedActor(Fact):
    """What was erased. `unclear` are damaged sessions of which nothing tells whose they are: they are still there."""

    actor_id: ActorId
    facts: int
    sessions: int = 0
    unclear: tuple[SessionId, ...] = ()


class Erasure:
    """Erases, for the operator: no caller can."""

    def __init__(self, *, stores: Stores, room: MemoryRoom, turns: TurnCases) -> None:
        self._stores = stores
        self._room = room
        self._turns = turns

    async def erase(self, caller: Caller, actor: ActorId, *, everything: bool) -> ErasedActor:
        """Erases what is remembered of an actor; with `everything` also sessions, turns and what the index has of them.

        None of the words is left in any file then, whoever else serves the directory. Raises StorageFailed,
        SessionBusy: what was erased by then stays erased, and it can be called again.
        """
        store = await anyio.to_thread.run_sync(self._stores.of, caller)
        gone: set[SessionId] = set()
        unclear: set[SessionId] = set()
        for _ in range(_PASSES if everything else 0):
            sessions, unclear = await anyio.to_thread.run_sync(_sessions, store, actor)
            if not sessions:
                break
            for session_id in sessions:
                try:
                    await self._turns.delete_session(caller, session_id)
                except SessionNotFound:
                    continue  # somebody else deleted it
                gone.add(session_id)
        facts = await anyio.to_thread.run_sync(self._room.of(store, caller.subject).erase, actor)
        if everything:
            await anyio.to_thread.run_sync(_clear, store, actor, sorted(gone))
        logger.info("erased %s facts and %s sessions of an actor", facts, len(gone))
        return ErasedActor(actor_id=actor, facts=facts, sessions=len(gone), unclear=tuple(sorted(unclear)))


def _clear(store: Store, actor: ActorId, gone: Sequence[SessionId]) -> None:
    for record in store.list_turns(None):
        if record.actor_id == actor and not store.has_session(record.session_id):
            store.remove_turn(record.turn_id)
    store.remove_begun()
    store.erase_from_index(gone)


def _sessions(store: Store, actor: ActorId) -> tuple[set[SessionId], set[SessionId]]:
    """The sessions of an actor, and damaged ones that may be anybody's."""
    listed = list(_listed(store, None))
    damaged = {one.session_id for one in listed if one.damaged}
    found = {one.session_id for one in _listed(store, actor)}
    whose = {record.session_id: record.actor_id for record in store.list_turns(None)}
    found.update(session_id for session_id in damaged if whose.get(session_id) == actor)
    return found, {session_id for session_id in damaged if session_id not in found and session_id not in whose}


def _listed(store: Store, actor: ActorId | None) -> Iterator[Listed]:
    after: Position | None = None
    while page := store.list_sessions(now=now(), limit=MAX_PAGE, actor_id=actor, after=after):
        yield from page
        after = page[-1].position
