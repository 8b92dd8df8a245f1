"""The embedded memory: facts in one SQLite file of the data directory."""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from agent_mcp.domain import ActorId, MemoryId, SessionId, TurnId, new_memory_id, now
from agent_mcp.errors import InvalidArgument
from agent_mcp.memory import queue
from agent_mcp.memory.facts import MOST, Found, Memory, Origin, checked, key_of
from agent_mcp.memory.queue import Job, Queue
from agent_mcp.memory.ranking import Ranking, Vectors
from agent_mcp.storage.database import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (
    row INTEGER PRIMARY KEY AUTOINCREMENT, memory_id TEXT NOT NULL UNIQUE, actor_id TEXT NOT NULL, key TEXT NOT NULL,
    text TEXT NOT NULL, created_ms INTEGER NOT NULL, session_id TEXT, turn_id TEXT, confirmed INTEGER NOT NULL,
    UNIQUE (actor_id, key)
);
"""
_COLUMNS = "memory_id, text, created_ms, session_id, turn_id, confirmed"
_RANKINGS = 16
"""How many actors' indexes are kept in memory."""


class LocalFacts:
    """The facts of one subject. The index for searching is in memory, made anew where the table has changed.

    An index on disk would be words to erase in a second place, and SQLite 3.40 can't erase them there.
    """

    def __init__(self, path: str, *, sync: bool, vectors: Vectors | None = None) -> None:
        self.database = Database(path, _SCHEMA + queue.SCHEMA, sync=sync)
        self.queue = Queue(self.database)
        self._vectors = vectors
        self._rankings: OrderedDict[ActorId, tuple[object, list[Memory], Ranking]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, actor: ActorId, text: str, origin: Origin) -> Memory:
        """As FactStore.add. Raises InvalidArgument where the actor has as many facts as it may have."""
        line = checked(text)
        return self.database.write(lambda db: put(db, actor, line, origin))

    def confirm(self, actor: ActorId, memory_id: MemoryId) -> Memory | None:
        def change(db: sqlite3.Connection) -> Memory | None:
            values = (actor, memory_id)
            db.execute("UPDATE facts SET confirmed = 1 WHERE actor_id = ? AND memory_id = ?", values)
            row = db.execute(f"SELECT {_COLUMNS} FROM facts WHERE actor_id = ? AND memory_id = ?", values).fetchone()
            return _memory(row) if row else None

        return self.database.delete(change)

    def search(self, actor: ActorId, query: str, *, limit: int, confirmed_only: bool = False) -> Found:
        memories, ranking = self._ranking(actor)
        hits = ranking.search(query, limit=len(memories))
        found = (memories[index].model_copy(update={"score": score}) for index, score in hits)
        return Found(memories=tuple(memory for memory in found if memory.confirmed or not confirmed_only)[:limit])

    def brief(self, actor: ActorId, query: str, *, limit: int) -> Sequence[Memory]:
        fitting = self.search(actor, query, limit=limit // 2, confirmed_only=True).memories
        memories, _ = self._ranking(actor)
        newest = [memory for memory in reversed(memories) if memory.confirmed]
        chosen = {memory.memory_id: memory for memory in (*fitting, *newest)}
        return list(chosen.values())[:limit]

    def forget(self, actor: ActorId, memory_id: MemoryId) -> bool:
        gone = self.database.delete(
            lambda db: db.execute("DELETE FROM facts WHERE actor_id = ? AND memory_id = ?", (actor, memory_id)).rowcount
        )
        return bool(gone)

    def erase(self, actor: ActorId) -> int:
        def change(db: sqlite3.Connection) -> int:
            queue.remove_actor(db, actor)
            return db.execute("DELETE FROM facts WHERE actor_id = ?", (actor,)).rowcount

        count = self.database.delete(change) or 0
        with self._lock:
            self._rankings.pop(actor, None)
        self.database.scrub()
        return count

    def keep_lesson(self, job: Job, texts: Sequence[str], origin: Origin) -> int:
        """Keeps what a turn taught, unless the actor was erased meanwhile; returns how many facts it taught.

        Raises InvalidArgument where the actor has as many facts as it may have.
        """

        def change(db: sqlite3.Connection) -> int:
            if not queue.finish(db, job.key):
                return 0
            for text in texts:
                put(db, job.actor, checked(text), origin)
            return len(texts)

        return self.database.write(change)

    def close(self) -> None:
        self.database.close()

    def _ranking(self, actor: ActorId) -> tuple[list[Memory], Ranking]:
        """The actor's facts, the oldest first, and an index over them."""
        # Rows are numbered for ever and change in nothing but their confirmation: these three tell every change.
        state = self.database.read(
            "SELECT count(*), max(row), total(confirmed) FROM facts WHERE actor_id = ?", (actor,)
        )
        with self._lock:
            known = self._rankings.get(actor)
            if known is not None and known[0] == state:
                self._rankings.move_to_end(actor)
                return known[1], known[2]
        rows = self.database.read(f"SELECT {_COLUMNS} FROM facts WHERE actor_id = ? ORDER BY row", (actor,))
        memories = [_memory(row) for row in rows]
        ranking = Ranking([memory.text for memory in memories], vectors=self._vectors)
        with self._lock:
            self._rankings[actor] = (state, memories, ranking)
            self._rankings.move_to_end(actor)
            while len(self._rankings) > _RANKINGS:
                self._rankings.popitem(last=False)
        return memories, ranking


def put(db: sqlite3.Connection, actor: ActorId, line: str, origin: Origin) -> Memory:
    """Keeps a fact within a transaction; raises InvalidArgument where the actor has as many as it may have."""
    values = (actor, key_of(line))
    find = f"SELECT {_COLUMNS} FROM facts WHERE actor_id = ? AND key = ?"
    if db.execute(find, values).fetchone() is None:
        count = db.execute("SELECT count(*) FROM facts WHERE actor_id = ?", (actor,)).fetchone()[0]
        if count >= MOST:
            raise InvalidArgument(
                f"{count} facts are remembered of this actor, which is as many as there may be: forget some first, "
                "recall finds them."
            )
        db.execute(
            "INSERT INTO facts (memory_id, actor_id, key, text, created_ms, session_id, turn_id, confirmed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                new_memory_id(),
                *values,
                line,
                int(now().timestamp() * 1000),
                origin.session_id,
                origin.turn_id,
                origin.confirmed,
            ),
        )
    elif origin.confirmed:
        db.execute("UPDATE facts SET confirmed = 1 WHERE actor_id = ? AND key = ?", values)
    return _memory(db.execute(find, values).fetchone())


def _memory(row: Iterable[object]) -> Memory:
    memory_id, text, created_ms, session_id, turn_id, confirmed = row
    return Memory(
        memory_id=MemoryId(str(memory_id)),
        text=str(text),
        created_at=datetime.fromtimestamp(float(str(created_ms)) / 1000, UTC),
        session_id=SessionId(str(session_id)) if session_id else None,
        turn_id=TurnId(str(turn_id)) if turn_id else None,
        confirmed=bool(confirmed),
    )
