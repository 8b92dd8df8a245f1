"""An SQLite file that is the truth: durable, shared by processes, and able to forget for good."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from agent_mcp.errors import StorageFailed

T = TypeVar("T")

_BUSY_SECONDS = 10.0
_SCRUB_SECONDS = 15.0
"""How long erasing waits for readers in other processes to let go of what was there before."""


class Database:
    """One file. It is made by the first write; until then it reads as empty. Raises StorageFailed."""

    def __init__(self, path: str, schema: str, *, sync: bool) -> None:
        self._path = path
        self._schema = schema
        self._sync = sync
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    def read(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """The rows of a query."""
        with self._lock, self._failures():
            if self._connection is None and not os.path.exists(self._path):
                return []
            return self._open().execute(sql, values).fetchall()

    def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `change` in a transaction, alone among all processes."""
        with self._lock, self._failures():
            db = self._open()
            db.execute("BEGIN IMMEDIATE")
            try:
                result = change(db)
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
            return result

    def delete(self, change: Callable[[sqlite3.Connection], T]) -> T | None:
        """As `write`, for what only deletes: None where there is no file to delete from."""
        with self._lock:
            if self._connection is None and not os.path.exists(self._path):
                return None
            return self.write(change)

    def scrub(self) -> None:
        """Leaves nothing of what was deleted in the file or in its log.

        SQLite zeroes what it deletes, but moves rows within pages and keeps older pages in its log: so the file is
        written anew, and the log cut off once no other process reads what was there before.
        """
        with self._lock, self._failures():
            if self._connection is None and not os.path.exists(self._path):
                return
            scrub(self._open())

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            os.chmod(self._path, 0o600)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {'FULL' if self._sync else 'OFF'}")
            db.execute("PRAGMA secure_delete = ON")
            db.execute("PRAGMA temp_store = MEMORY")  # what VACUUM copies must not go to another disk
            db.executescript(f"BEGIN IMMEDIATE; {self._schema} COMMIT;")
        except BaseException:
            db.close()
            raise
        self._connection = db
        return db

    def _failures(self) -> _Failures:
        return _Failures(os.path.basename(self._path))


def scrub(db: sqlite3.Connection) -> None:
    """Writes a database anew and cuts off its log; raises sqlite3.OperationalError where others hold on to that."""
    deadline = time.monotonic() + _SCRUB_SECONDS
    while True:
        with suppress(sqlite3.OperationalError):
            db.execute("VACUUM")
            busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return
        if time.monotonic() > deadline:
            raise sqlite3.OperationalError("another process holds on to what was there before")
        time.sleep(0.05)


class _Failures:
    """Turns SQLite's and the system's errors into ours."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, sqlite3.Error | OSError):
            reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())[:200]
            raise StorageFailed(
                f"The memory {self._name} can't be used ({reason}), and nothing in it was "
                "changed. Sessions are not affected; `agent-mcp doctor` looks at the data directory."
            ) from error
