"""The catalog: an SQLite index over sessions, turns and everything said. A copy; delete it and it is made again."""

import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from agent_mcp.domain import ActorId, AgentId, Message, SessionId, SessionMeta, TurnId, TurnRecord, transcript_uri

logger = logging.getLogger(__name__)
T = TypeVar("T")

LIST_CHANGED = "list"
"""The `uri` of a change that says: a session came or went."""
ANYTHING_CHANGED = "*"
"""The `uri` of a change that says: what was written before it is not known any more, so anything may have changed."""
_VERSION = 3
_CHANGES_KEPT = 1000
_SCHEMA = """
DROP TABLE IF EXISTS sessions; DROP TABLE IF EXISTS turns; DROP TABLE IF EXISTS said; DROP TABLE IF EXISTS words;
DROP TABLE IF EXISTS changes;
CREATE TABLE sessions (
    session_id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, actor_id TEXT NOT NULL, active_ms INTEGER NOT NULL,
    expires_ms INTEGER, damaged INTEGER NOT NULL, messages INTEGER NOT NULL, stamp TEXT NOT NULL,
    files TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_by_activity ON sessions (active_ms DESC, session_id DESC);
CREATE TABLE turns (
    turn_id TEXT PRIMARY KEY, session_id TEXT NOT NULL, open INTEGER NOT NULL, created_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX turns_by_session ON turns (session_id, created_ms DESC);
CREATE TABLE said (row INTEGER PRIMARY KEY, session_id TEXT NOT NULL, message INTEGER NOT NULL, role TEXT NOT NULL);
CREATE INDEX said_by_session ON said (session_id, message);
CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = 'porter unicode61 remove_diacritics 2');
CREATE TABLE changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, uri TEXT NOT NULL);
"""
_TITLE = -1  # the `message` of a session's title among what was said
_IS_EXPIRED = (
    "(expires_ms IS NOT NULL AND expires_ms <= :now"
    " AND NOT EXISTS (SELECT 1 FROM turns t WHERE t.session_id = s.session_id AND t.open))"
)


class Known(NamedTuple):
    """What the index knows of a session: the state of its files, the number of messages, whether it is damaged."""

    files: str
    messages: int
    damaged: bool


class Change(NamedTuple):
    """That something changed, whichever process did it: a session's transcript by its URI, or one of the words above.

    A row of the table `changes`, written in the transaction that changes the index. `seq` rises by one with each, also
    when the index is made anew (then from a higher number on). The last thousand are kept.
    """

    seq: int
    uri: str


class Hit(tuple[int, str, str]):
    """What a search found: the message's index, its role, and a piece of its text."""

    __slots__ = ()


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def match_expression(query: str) -> str | None:
    """FTS5's form of a query: all words, the last one also as a beginning, phrases in quotes. None: no word."""
    # SQLite ends a string at a NUL, and takes no half of a surrogate pair.
    text = query.encode(errors="replace").decode().replace("\0", " ")
    terms = [phrase or word for phrase, word in re.findall(r'"([^"]*)"|([^\s"]+)', text)]
    terms = [term for term in terms if re.search(r"\w", term)]
    if not terms:
        return None
    quoted = ['"' + term.replace('"', " ") + '"' for term in terms]
    return " ".join(quoted) + ("" if query.rstrip().endswith('"') else " *")


class Catalog:
    """One subject's index. Blocking, and safe to use from several threads and processes.

    `fill` is called with the catalog whenever its file is new: it puts in everything that there is.
    """

    def __init__(self, path: Path, *, fill: "Callable[[Catalog], None]") -> None:
        self._path = path
        self._fill = fill
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        # A connection of its own: PRAGMA data_version does not count what the same connection writes.
        self._watching = threading.Lock()
        self._watch: sqlite3.Connection | None = None
        self._watched = 0

    def close(self) -> None:
        with self._watching:
            self._close_watch()
        self._disconnect()

    def _close_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _disconnect(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def put_session(
        self,
        meta: SessionMeta,
        *,
        stamp: str,
        files: str,
        damaged: bool = False,
        messages: Sequence[Message] = (),
        known: int = 0,
        silent: bool = False,
    ) -> None:
        """Writes a session's row; `messages` are what was said from index `known` on (0 replaces all).

        Written as a change unless `silent`: of the list if the session is new, else of its transcript.
        """

        def write(db: sqlite3.Connection) -> None:
            if not silent:
                is_new = not db.execute("SELECT 1 FROM sessions WHERE session_id = ?", (meta.session_id,)).fetchone()
                _announce(db, LIST_CHANGED if is_new else transcript_uri(meta.session_id))
            _forget_said(db, meta.session_id, since=known)
            expires = meta.expires_at
            db.execute(
                "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    meta.session_id,
                    meta.agent_id,
                    meta.actor_id,
                    _ms(meta.last_active_at),
                    _ms(expires) if expires else None,
                    damaged,
                    known + len(messages),
                    stamp,
                    files,
                ),
            )
            title = [(_TITLE, "title", meta.title)] if meta.title else []
            for index, role, text in [*title, *((m.index, m.role, m.text) for m in messages)]:
                row = db.execute(
                    "INSERT INTO said (session_id, message, role) VALUES (?, ?, ?)",
                    (meta.session_id, index, role),
                ).lastrowid
                db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (row, text))

        self._write(write)

    def remove_session(self, session_id: SessionId) -> None:
        def write(db: sqlite3.Connection) -> None:
            _forget_said(db, session_id, since=0)
            if db.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,)).rowcount:
                _announce(db, LIST_CHANGED)
            db.execute("DELETE FROM turns WHERE session_id = ?", (session_id,))

        self._write(write)

    def announce(self, uri: str) -> None:
        """Writes a change of something that the index itself does not hold, such as an agent."""
        self._write(lambda db: _announce(db, uri))

    def last_change(self) -> int:
        """The number of the latest change: where to begin with `changes_after`."""
        return int(self._read("SELECT max(seq) FROM changes", ())[0][0])

    def changes_after(self, seq: int) -> list[Change]:
        """The changes behind `seq`, in order.

        The first one is ANYTHING_CHANGED where some are not there any more: more than are kept, or written to an index
        that was lost.
        """
        rows = self._read("SELECT seq, uri FROM changes ORDER BY seq", ())
        changes = [Change(int(row[0]), str(row[1])) for row in rows]
        if changes and changes[0].seq <= seq + 1 and seq <= changes[-1].seq:
            return [change for change in changes if change.seq > seq]
        return [Change(change.seq, ANYTHING_CHANGED) for change in changes[:1]] + changes[1:]

    def data_version(self) -> tuple[int, int]:
        """A value that is another one after every write to the index, by any process, and when the file is replaced.

        For a caller who asks often whether there is something new: it takes microseconds and waits for no write.
        """
        with self._watching:
            inode = self._path.stat().st_ino if self._path.exists() else 0
            if self._watch is None or inode != self._watched:
                self._close_watch()
                with self._lock:
                    self._open()
                self._watch = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
                self._watched = self._path.stat().st_ino
            try:
                return self._watched, int(self._watch.execute("PRAGMA data_version").fetchone()[0])
            except sqlite3.Error:
                self._close_watch()
                return 0, 0

    def open_by_turn(self) -> dict[TurnId, bool]:
        """All turns, and whether each was open when it was put."""
        return {TurnId(row[0]): bool(row[1]) for row in self._read("SELECT turn_id, open FROM turns", ())}

    def put_turn(self, record: TurnRecord) -> None:
        row = (record.turn_id, record.session_id, record.is_open or record.is_pending, _ms(record.created_at))
        self._write(lambda db: db.execute("INSERT OR REPLACE INTO turns VALUES (?, ?, ?, ?)", row))

    def remove_turns(self, turn_ids: Iterable[TurnId]) -> None:
        rows = [(turn_id,) for turn_id in turn_ids]
        self._write(lambda db: db.executemany("DELETE FROM turns WHERE turn_id = ?", rows))

    def known(self, session_id: SessionId) -> Known:
        """With what a session was put; nothing of it if it was not."""
        rows = self._read("SELECT files, messages, damaged FROM sessions WHERE session_id = ?", (session_id,))
        return Known(str(rows[0][0]), int(rows[0][1]), bool(rows[0][2])) if rows else Known("", 0, False)

    def stamps(self) -> dict[SessionId, str]:
        """The stamp of every session that was put."""
        return {SessionId(row[0]): str(row[1]) for row in self._read("SELECT session_id, stamp FROM sessions", ())}

    def turns(self, session_id: SessionId, *, only_open: bool = False) -> list[TurnId]:
        """A session's turns, the latest first."""
        where = "session_id = ? AND open" if only_open else "session_id = ?"
        rows = self._read(
            f"SELECT turn_id FROM turns WHERE {where} ORDER BY created_ms DESC, turn_id DESC", (session_id,)
        )
        return [TurnId(row[0]) for row in rows]

    def list_sessions(
        self,
        *,
        now: datetime,
        limit: int,
        agent_id: AgentId | None = None,
        actor_id: ActorId | None = None,
        status: str = "all",
        query: str | None = None,
        after: tuple[int, str] | None = None,
    ) -> list[tuple[SessionId, bool, int, str | None]]:
        """Sessions as (id, damaged, last activity in ms, snippet), most recently active first, from behind `after`."""
        where = ["1"]
        values: dict[str, object] = {"now": _ms(now), "limit": limit}
        if agent_id is not None:
            where.append("agent_id = :agent")
            values["agent"] = agent_id
        if actor_id is not None:
            where.append("actor_id = :actor")
            values["actor"] = actor_id
        if status != "all":
            where.append(
                {"damaged": "damaged", "expired": f"NOT damaged AND {_IS_EXPIRED}"}.get(
                    status, f"NOT damaged AND NOT {_IS_EXPIRED}"
                )
            )
        if after is not None:
            where.append("(active_ms, session_id) < (:after_ms, :after_id)")
            values["after_ms"], values["after_id"] = after
        if query is not None:
            expression = match_expression(query)
            if expression is None:
                return []
            where.append(
                "session_id IN"
                " (SELECT session_id FROM words JOIN said ON said.row = words.rowid WHERE words MATCH :query)"
            )
            values["query"] = expression
        rows = self._read(
            f"SELECT session_id, damaged, active_ms FROM sessions s WHERE {' AND '.join(where)}"
            " ORDER BY active_ms DESC, session_id DESC LIMIT :limit",
            values,
        )
        return [
            (SessionId(row[0]), bool(row[1]), int(row[2]), self._snippet(row[0], query) if query else None)
            for row in rows
        ]

    def search(self, session_id: SessionId, query: str, *, limit: int) -> list[Hit]:
        """The messages of one session that fit a query best."""
        return self._search(session_id, query, limit=limit)

    def _snippet(self, session_id: str, query: str) -> str | None:
        hits = self._search(session_id, query, limit=1)
        return hits[0][2] if hits else None

    def _search(self, session_id: str, query: str, *, limit: int) -> list[Hit]:
        expression = match_expression(query)
        if expression is None:
            return []
        rows = self._read(
            "SELECT message, role, snippet(words, 0, '', '', '...', 48) FROM words JOIN said ON said.row = words.rowid"
            " WHERE words MATCH ? AND session_id = ? ORDER BY rank, message DESC LIMIT ?",
            (expression, session_id, limit),
        )
        return [Hit((int(row[0]), str(row[1]), str(row[2]))) for row in rows]

    def _read(self, sql: str, values: object) -> list[sqlite3.Row]:
        return self._healing(lambda db: db.execute(sql, values).fetchall())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] both kinds of parameters

    def _write(self, change: Callable[[sqlite3.Connection], object]) -> None:
        def run(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            try:
                change(db)
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise

        self._healing(run)

    def _healing(self, use: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `use`; a file that is no database any more is replaced by a new one, once."""
        with self._lock:
            try:
                return use(self._open())
            except sqlite3.DatabaseError as error:
                if type(error) is not sqlite3.DatabaseError:
                    raise  # Locked, full, read-only, a wrong call: nothing that a new file would mend.
                logger.warning("catalog is damaged and is made again")
                self._disconnect()
                for suffix in ("", "-wal", "-shm"):
                    self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
                return use(self._open())

    def _open(self) -> sqlite3.Connection:
        with suppress(FileNotFoundError):
            if self._connection is not None and self._path.stat().st_ino == self._inode:
                return self._connection
        self._disconnect()  # The file was deleted or replaced under us.
        db = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
        self._path.chmod(0o600)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = OFF")  # A copy: what a power cut takes is put in again.
        self._connection, self._inode = db, self._path.stat().st_ino
        with _version_lock(db) as version:
            if version != _VERSION:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    db.execute(statement)
                # By the clock, so that numbers go on rising when the index is made anew.
                db.execute("INSERT INTO changes VALUES (?, ?)", (time.time_ns() // 1_000_000, ANYTHING_CHANGED))
                db.execute(f"PRAGMA user_version = {_VERSION}")
        try:
            self._fill(self)
        except BaseException:
            self._disconnect()  # Half of an index would answer as if it were whole.
            raise
        return db


@contextmanager
def _version_lock(db: sqlite3.Connection) -> Generator[int]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield int(db.execute("PRAGMA user_version").fetchone()[0])
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _announce(db: sqlite3.Connection, uri: str) -> None:
    seq = db.execute("INSERT INTO changes (uri) VALUES (?)", (uri,)).lastrowid or 0
    db.execute("DELETE FROM changes WHERE seq <= ?", (seq - _CHANGES_KEPT,))


def _forget_said(db: sqlite3.Connection, session_id: SessionId, *, since: int) -> None:
    gone = "SELECT row FROM said WHERE session_id = ? AND (message >= ? OR message = ?)"
    values = (session_id, since, _TITLE)
    db.execute(f"DELETE FROM words WHERE rowid IN ({gone})", values)
    db.execute(f"DELETE FROM said WHERE row IN ({gone})", values)
