"""An SQLite file that may be lost at any time: opened when it is needed, and made anew when it can't be read."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from agent_mcp.storage.locks import short_lock

logger = logging.getLogger(__name__)
T = TypeVar("T")
Use = Callable[[sqlite3.Connection], T]

_ATTEMPTS = 3
_PRIMARY = 0xFF
# Locked, full, interrupted, a wrong call of ours: nothing that another file would mend.
_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_MISUSE,
    sqlite3.SQLITE_RANGE,
}
# What is also said of a file that was deleted or replaced while it was open: opened again it may be well.
_PERHAPS_MOVED = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_SCHEMA,
}


class _Side:
    """One connection and the lock under which it is used, with the inode of the file that it has open."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        self.inode = 0

    def disconnect(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class IndexFile:
    """An SQLite database with a schema of a version. Blocking, and safe to use from several threads and processes.

    A file that is missing, replaced, copied, of another version or damaged is noticed at the next use and made anew,
    empty. Whoever fills it must write in the file itself how far that is done. Reads and writes have a connection
    each, so that who reads does not wait for who writes.
    """

    def __init__(self, path: Path, *, lock: Path, version: int, create: Use[None]) -> None:
        self._path = path
        self._lock = lock
        self._version = version
        self._create = create
        self._reading = _Side()
        self._writing = _Side()
        # PRAGMA data_version does not count what the same connection writes, so this one writes nothing.
        self._watching = _Side()

    def read(self, use: Use[T]) -> T:
        """What `use` makes of a connection; all that it reads is of one moment."""
        return self._healing(self._reading, lambda db: _transaction(db, "BEGIN", use))

    def write(self, change: Use[T]) -> T:
        """The same for a change, which is made whole or not at all. It may be called again, on a new file."""
        return self._healing(self._writing, lambda db: _transaction(db, "BEGIN IMMEDIATE", change))

    def run(self, use: Use[T]) -> T:
        """The same without a transaction, for what can't be done in one."""
        return self._healing(self._writing, use)

    def data_version(self) -> tuple[int, int]:
        """Another value after every write by any process, and when the file is replaced. Takes microseconds."""

        def version(db: sqlite3.Connection) -> tuple[int, int]:
            return self._watching.inode, int(db.execute("PRAGMA data_version").fetchone()[0])

        return self._healing(self._watching, version)

    def check(self) -> None:
        """Looks through the whole file for damage, and makes it anew if there is any."""

        def look(db: sqlite3.Connection) -> None:
            found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
            if found != "ok":
                raise _damage(found)

        self.read(look)

    def remove(self) -> None:
        """Removes the file and its journal; the next use makes it anew, also in other processes."""
        self.close()
        self._remove(0)

    def close(self) -> None:
        for side in (self._watching, self._reading, self._writing):
            with side.lock:
                side.disconnect()

    def _healing(self, side: _Side, use: Use[T]) -> T:
        with side.lock:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    return use(self._opened(side))
                except sqlite3.Error as error:
                    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & _PRIMARY
                    if code in _PASSING:
                        raise
                    side.disconnect()
                    if attempt == _ATTEMPTS:
                        raise
                    if code not in _PERHAPS_MOVED or attempt > 1:
                        logger.warning("the index can't be used and is made anew: %s", error)
                        self._remove(side.inode)
        raise AssertionError("unreachable")

    def _opened(self, side: _Side) -> sqlite3.Connection:
        with suppress(FileNotFoundError):
            if side.connection is not None and self._path.stat().st_ino == side.inode:
                return side.connection
        side.disconnect()
        with short_lock(self._lock):
            if not self._path.exists():
                self._remove_journal()  # SQLite would take what is left of another file for this one's
            side.connection, side.inode = self._connected()
            if not self._is_ours(side):
                side.disconnect()
                self._remove_journal()
                self._path.unlink()
                side.connection, side.inode = self._connected()
                mark = _mark(side.inode)
                _transaction(side.connection, "BEGIN IMMEDIATE", lambda db: self._fresh(db, mark))
        return side.connection

    def _is_ours(self, side: _Side) -> bool:
        """Whether it was made here and in this version: not a copy, which may be old, with the journal of another."""
        assert side.connection is not None
        marks = [side.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id")]
        return marks == [self._version, _mark(side.inode)]

    def _connected(self) -> tuple[sqlite3.Connection, int]:
        db = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            self._path.chmod(0o600)
            inode = self._path.stat().st_ino
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = OFF")  # A copy: what a power cut takes is put in again.
            db.execute("PRAGMA secure_delete = ON")
            db.execute("PRAGMA cache_size = -16384")
        except BaseException:
            db.close()
            raise
        return db, inode

    def _fresh(self, db: sqlite3.Connection, mark: int) -> None:
        self._create(db)
        db.execute(f"PRAGMA application_id = {mark}")
        db.execute(f"PRAGMA user_version = {self._version}")

    def _remove(self, inode: int) -> None:
        """Removes the file, unless another one has taken its place meanwhile."""
        with short_lock(self._lock), suppress(FileNotFoundError):
            if not inode or self._path.stat().st_ino == inode:
                self._remove_journal()
                self._path.unlink()

    def _remove_journal(self) -> None:
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


def _mark(inode: int) -> int:
    """What a file carries of its own inode: the number that SQLite keeps for an application has 32 bits, signed."""
    return inode % (1 << 31)


def clock_number() -> int:
    """A number that rises with time, milliseconds: where counting begins in a file that is made anew."""
    return time.time_ns() // 1_000_000


def _damage(found: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(found)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _transaction(db: sqlite3.Connection, begin: str, use: Use[T]) -> T:
    db.execute(begin)
    try:
        result = use(db)
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # the first error counts; a damaged file may have ended the transaction itself
            db.execute("ROLLBACK")
        raise
    return result
