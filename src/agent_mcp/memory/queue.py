"""What is still to be done with memory, on disk: turns to learn from, facts and events to send."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from agent_mcp.domain import ActorId, SessionId, TurnId, now
from agent_mcp.memory.facts import Origin
from agent_mcp.storage.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, actor_id TEXT NOT NULL, text TEXT, session_id TEXT, turn_id TEXT,
    confirmed INTEGER NOT NULL, created_ms INTEGER NOT NULL, due_ms INTEGER NOT NULL, attempts INTEGER NOT NULL,
    process TEXT
) WITHOUT ROWID;
"""
MOST_JOBS = 1_000
"""Jobs that one subject may have waiting; the oldest give way."""
_COLUMNS = "key, kind, actor_id, text, session_id, turn_id, confirmed, created_ms, attempts"
_KEPT_FOR = timedelta(days=7)
"""For so long a job is tried; a turn's record is there no longer either."""
_FIRST_DELAY, _LONGEST_DELAY = 5.0, 900.0  # seconds between two tries

Kind = Literal["learn", "event", "fact", "delete", "sent"]
"""`sent` is no job any more: it tells under which id a fact is known elsewhere, for as long as jobs are kept."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One thing to do. `key` is the turn's or the fact's id. A turn is named, and its words stay in its record."""

    key: str
    kind: Kind
    actor: ActorId
    text: str | None = None
    origin: Origin = field(default_factory=Origin)
    created_ms: int = 0
    attempts: int = 0


class Queue:
    """The jobs in one database. A job is taken by one process, and free again once that one is gone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, job: Job) -> None:
        """Adds a job, unless there is one of its key."""

        def write(db: sqlite3.Connection) -> None:
            at = _ms()
            db.execute(
                "INSERT OR IGNORE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, NULL)",
                (
                    job.key,
                    job.kind,
                    job.actor,
                    job.text,
                    job.origin.session_id,
                    job.origin.turn_id,
                    job.origin.confirmed,
                    at,
                    at,
                ),
            )
            db.execute(
                "DELETE FROM jobs WHERE key IN (SELECT key FROM jobs ORDER BY created_ms DESC LIMIT -1 OFFSET ?)",
                (MOST_JOBS,),
            )

        self._database.write(write)

    def take(self, process: str, *, lives: Callable[[str], bool]) -> Job | None:
        """The job that is due first, claimed for `process`; None if none is due.

        A process has one job at a time: what it has claimed before, it could not finish and not put off either.
        """
        rows = self._database.read("SELECT DISTINCT process FROM jobs WHERE process IS NOT NULL")
        free = [str(row[0]) for row in rows if row[0] == process or not lives(str(row[0]))]

        def claim(db: sqlite3.Connection) -> Job | None:
            db.executemany("UPDATE jobs SET process = NULL WHERE process = ?", [(name,) for name in free])
            db.execute("DELETE FROM jobs WHERE created_ms < ?", (_ms() - int(_KEPT_FOR.total_seconds() * 1000),))
            row = db.execute(
                f"SELECT {_COLUMNS} FROM jobs WHERE process IS NULL AND kind != 'sent' AND due_ms <= ?"
                " ORDER BY created_ms LIMIT 1",
                (_ms(),),
            ).fetchone()
            if row is None:
                return None
            db.execute("UPDATE jobs SET process = ? WHERE key = ?", (process, row[0]))
            return _job(row)

        if not self._database.read("SELECT 1 FROM jobs WHERE kind != 'sent' LIMIT 1"):
            return None  # and nothing is written, nor made
        return self._database.write(claim)

    def due_in(self) -> float | None:
        """Seconds until a job is due that nobody has in hand; None if there is none."""
        rows = self._database.read("SELECT min(due_ms) FROM jobs WHERE process IS NULL AND kind != 'sent'")
        due = rows[0][0] if rows else None
        return max(0.0, (int(str(due)) - _ms()) / 1000) if due is not None else None

    def finish(self, key: str) -> bool:
        """Takes a job out; False if it was gone: what it led to must not be kept then."""
        return bool(self._database.write(lambda db: finish(db, key)))

    def put_off(self, job: Job) -> None:
        """Gives a job back that failed, to be tried again later and later."""
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2**job.attempts)
        values = (job.attempts + 1, _ms() + int(delay * 1000), job.key)
        self._database.write(
            lambda db: db.execute("UPDATE jobs SET process = NULL, attempts = ?, due_ms = ? WHERE key = ?", values)
        )

    def sent(self, key: str, elsewhere: str) -> bool:
        """A fact was sent and has another id there; its words are here no longer. False if the job was gone."""
        values = (elsewhere, key)
        sql = "UPDATE jobs SET kind = 'sent', text = ?, process = NULL WHERE key = ? AND kind = 'fact'"
        return self._database.write(lambda db: db.execute(sql, values).rowcount > 0)

    def waiting(self, actor: ActorId) -> list[Job]:
        """An actor's jobs, the oldest first."""
        rows = self._database.read(f"SELECT {_COLUMNS} FROM jobs WHERE actor_id = ? ORDER BY created_ms", (actor,))
        return [_job(row) for row in rows]


def finish(db: sqlite3.Connection, key: str) -> bool:
    """As Queue.finish, within a transaction."""
    return db.execute("DELETE FROM jobs WHERE key = ?", (key,)).rowcount > 0


def remove_actor(db: sqlite3.Connection, actor: ActorId) -> int:
    """Takes all jobs of an actor out, within a transaction; returns how many there were."""
    return db.execute("DELETE FROM jobs WHERE actor_id = ?", (actor,)).rowcount


def _ms() -> int:
    return int(now().timestamp() * 1000)


def _job(row: tuple[object, ...]) -> Job:
    key, kind, actor, text, session_id, turn_id, confirmed, created_ms, attempts = row
    kinds: dict[str, Kind] = {"learn": "learn", "event": "event", "fact": "fact", "delete": "delete", "sent": "sent"}
    return Job(
        key=str(key),
        kind=kinds[str(kind)],
        actor=ActorId(str(actor)),
        text=None if text is None else str(text),
        origin=Origin(
            session_id=SessionId(str(session_id)) if session_id else None,
            turn_id=TurnId(str(turn_id)) if turn_id else None,
            confirmed=bool(confirmed),
        ),
        created_ms=int(str(created_ms)),
        attempts=int(str(attempts)),
    )
