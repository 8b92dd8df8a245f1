"""The catalog: an SQLite index over sessions, turns and everything said. A copy; delete it and it is made again."""

import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from agent_mcp.domain import ActorId, AgentId, Message, SessionId, SessionMeta, TurnId, TurnRecord, transcript_uri
from agent_mcp.storage import searching, wording
from agent_mcp.storage.index_file import IndexFile, clock_number
from agent_mcp.storage.searching import PLACES, SHIFT, Hit, Listed, Position

LIST_CHANGED = "list"
"""The `uri` of a change that says: a session came or went."""
ANYTHING_CHANGED = "*"
"""The `uri` of a change that says: what was written before it is not known any more, so anything may have changed."""
_VERSION = 5
_CHANGES_KEPT = 1000
_MADE = "made"
_TITLE = -1  # the `index` of the title and the id among what is searched
_SCHEMA = """
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY, session_id TEXT NOT NULL UNIQUE, agent_id TEXT NOT NULL, actor_id TEXT NOT NULL,
    active_ms INTEGER NOT NULL, expires_ms INTEGER, damaged INTEGER NOT NULL, messages INTEGER NOT NULL,
    stamp TEXT NOT NULL, files TEXT NOT NULL
);
CREATE INDEX sessions_by_activity ON sessions (active_ms DESC, session_id DESC);
CREATE INDEX sessions_of_actors ON sessions (actor_id, active_ms DESC, session_id DESC);
CREATE INDEX sessions_of_agents ON sessions (agent_id, active_ms DESC, session_id DESC);
CREATE INDEX sessions_without_words ON sessions (session_id) WHERE files = '';
CREATE TABLE turns (
    turn_id TEXT PRIMARY KEY, session_id TEXT NOT NULL, open INTEGER NOT NULL, created_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX turns_by_session ON turns (session_id, created_ms DESC);
CREATE VIRTUAL TABLE words USING fts5 (text, places UNINDEXED, tokenize = 'porter unicode61 remove_diacritics 2');
CREATE TABLE changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, uri TEXT NOT NULL);
CREATE TABLE noted (what TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class Known(NamedTuple):
    """What the index knows of a session: the state of its files ('': words still to come), messages, damage, stamp."""

    files: str
    messages: int
    damaged: bool
    stamp: str


class Change(NamedTuple):
    """That something changed, whichever process did it: a session's transcript by its URI, or one of the words above.

    A row of the table `changes`, written in the transaction that changes the index. `seq` rises by one with each, also
    when the index is made anew (then from a higher number on). The last thousand are kept.
    """

    seq: int
    uri: str


class Entry(NamedTuple):
    """What is put of a session. `messages` are what was said from index `known` on; 0 replaces all.

    `files` is the state of the files from which it was read, '' where what was said is still to be read.
    """

    meta: SessionMeta
    stamp: str
    files: str
    damaged: bool = False
    messages: Sequence[Message] = ()
    known: int = 0


class Catalog:
    """One subject's index. Blocking, and safe to use from several threads and processes.

    It may be empty at any call, because it was lost: `noted` says how far it is filled.
    """

    def __init__(self, path: Path, *, lock: Path) -> None:
        self._file = IndexFile(path, lock=lock, version=_VERSION, create=_create)

    def close(self) -> None:
        self._file.close()

    def check(self) -> None:
        """Looks through the whole file; a damaged one is made anew, empty."""
        self._file.check()

    # How far it is filled

    def noted(self, what: str) -> str | None:
        """What was noted in this index; None in one that was made anew since."""
        rows = self._rows("SELECT value FROM noted WHERE what = ?", (what,))
        return str(rows[0][0]) if rows else None

    def made(self) -> str:
        """Another value in each index that is made anew: what was looked up between two equal ones is of one index."""
        return self.noted(_MADE) or ""

    def note(self, what: str, value: str) -> None:
        self._file.write(lambda db: db.execute("INSERT OR REPLACE INTO noted VALUES (?, ?)", (what, value)))

    def stamps(self, *, newest: int | None = None) -> dict[SessionId, str]:
        """The stamp of every session, or of those that were active last."""
        rows = self._rows(
            "SELECT session_id, stamp FROM sessions ORDER BY active_ms DESC, session_id DESC LIMIT ?",
            (-1 if newest is None else newest,),
        )
        return {SessionId(row[0]): str(row[1]) for row in rows}

    def without_words(self) -> list[SessionId]:
        """The sessions of which only the metadata are known."""
        return [SessionId(row[0]) for row in self._rows("SELECT session_id FROM sessions WHERE files = ''", ())]

    def known(self, session_id: SessionId) -> Known | None:
        rows = self._rows("SELECT files, messages, damaged, stamp FROM sessions WHERE session_id = ?", (session_id,))
        return Known(str(rows[0][0]), int(rows[0][1]), bool(rows[0][2]), str(rows[0][3])) if rows else None

    # Sessions

    def put_session(self, entry: Entry) -> bool:
        """Writes what somebody knows who holds the session; False if the index knows less than `entry.known`."""
        return self._file.write(lambda db: _put(db, entry, silent=False))

    def put_read(self, entries: Iterable[tuple[Entry, Known | None]], *, silent: bool = False) -> None:
        """Writes what was read without holding the sessions, each unless it changed since it was `Known` so."""

        def write(db: sqlite3.Connection) -> None:
            for entry, known in entries:
                values = (entry.meta.session_id,)
                row = db.execute("SELECT files, stamp FROM sessions WHERE session_id = ?", values).fetchone()
                if (row and (str(row[0]), str(row[1]))) == (known and (known.files, known.stamp)):
                    _put(db, entry, silent=silent)

        self._file.write(write)

    def put_stamp(self, session_id: SessionId, stamp: str) -> None:
        """Writes that a session with this stamp is as it was."""
        self._file.write(
            lambda db: db.execute("UPDATE sessions SET stamp = ? WHERE session_id = ?", (stamp, session_id))
        )

    def remove_sessions(self, session_ids: Iterable[SessionId]) -> None:
        def write(db: sqlite3.Connection) -> None:
            for session_id in session_ids:
                _remove(db, session_id)

        self._file.write(write)

    def erase_sessions(self, session_ids: Sequence[SessionId]) -> None:
        """Removes sessions so that nothing of them is left in the bytes of the file or of its journal."""

        def write(db: sqlite3.Connection) -> None:
            for session_id in session_ids:
                _remove(db, session_id)
            # What is deleted stays in the segments of the word index until they are merged.
            db.execute("INSERT INTO words (words) VALUES ('rebuild')")

        def clear(db: sqlite3.Connection) -> None:
            db.execute("VACUUM")
            if db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise sqlite3.OperationalError("another process reads the index, and its journal could not be cleared")

        self._file.write(write)
        try:
            self._file.run(clear)
        except sqlite3.OperationalError:
            self._file.remove()  # Somebody reads it all the time. A new file has nothing of the old one.

    # Turns

    def open_by_turn(self) -> dict[TurnId, bool]:
        """All turns, and whether each was open when it was put."""
        return {TurnId(row[0]): bool(row[1]) for row in self._rows("SELECT turn_id, open FROM turns", ())}

    def put_turns(self, records: Iterable[TurnRecord]) -> None:
        rows = [(r.turn_id, r.session_id, r.is_open or r.is_pending, _ms(r.created_at)) for r in records]
        self._file.write(lambda db: db.executemany("INSERT OR REPLACE INTO turns VALUES (?, ?, ?, ?)", rows))

    def remove_turns(self, turn_ids: Iterable[TurnId]) -> None:
        rows = [(turn_id,) for turn_id in turn_ids]
        self._file.write(lambda db: db.executemany("DELETE FROM turns WHERE turn_id = ?", rows))

    def turns(self, session_id: SessionId, *, only_open: bool = False) -> list[TurnId]:
        """A session's turns, the latest first."""
        where = "session_id = ? AND open" if only_open else "session_id = ?"
        rows = self._rows(
            f"SELECT turn_id FROM turns WHERE {where} ORDER BY created_ms DESC, turn_id DESC", (session_id,)
        )
        return [TurnId(row[0]) for row in rows]

    # Changes

    def announce(self, uri: str) -> None:
        """Writes a change of something that the index itself does not hold, such as an agent."""
        self._file.write(lambda db: _announce(db, uri))

    def last_change(self) -> int:
        """The number of the latest change: where to begin with `changes_after`."""
        return int(self._rows("SELECT max(seq) FROM changes", ())[0][0])

    def changes_after(self, seq: int) -> list[Change]:
        """The changes behind `seq`, in order.

        The first one is ANYTHING_CHANGED where some are not there any more: more than are kept, or written to an index
        that was lost.
        """
        rows = self._rows("SELECT seq, uri FROM changes ORDER BY seq", ())
        changes = [Change(int(row[0]), str(row[1])) for row in rows]
        if changes and changes[0].seq <= seq + 1 and seq <= changes[-1].seq:
            return [change for change in changes if change.seq > seq]
        return [Change(change.seq, ANYTHING_CHANGED) for change in changes[:1]] + changes[1:]

    def data_version(self) -> tuple[int, int]:
        """A value that is another one after every write to the index, by any process, and when the file is replaced.

        For a caller who asks often whether there is something new: it takes microseconds and waits for no write.
        """
        return self._file.data_version()

    # Lists and search

    def list_sessions(
        self,
        *,
        now: datetime,
        limit: int,
        agent_id: AgentId | None = None,
        actor_id: ActorId | None = None,
        actors: Sequence[str] | None = None,
        status: str = "all",
        query: str | None = None,
        after: Position | None = None,
    ) -> list[Listed]:
        """Sessions from behind `after`: most recently active first; with a query by relevance, and then by activity.

        All terms of the query must occur in a session, in its title or its id. Relevant is first who has them in the
        title, then who has them often (1, 2-3, 4-7, ... times count alike). What fits more than RANKED sessions is
        listed by activity alone. `actors` are patterns, an id or a beginning and `*`: only their sessions.
        """
        filters = searching.filters(now=now, agent_id=agent_id, actor_id=actor_id, actors=actors, status=status)
        if query is None:
            return self._file.read(lambda db: searching.by_activity(db, filters, after=after, limit=limit))
        terms = wording.terms(query)
        if not terms:
            return []
        return self._file.read(lambda db: searching.find(db, terms, filters, after=after, limit=limit))

    def search(self, session_id: SessionId, query: str, *, limit: int) -> list[Hit]:
        """The messages of one session that fit a query best: those with most of its words, then the latest."""
        terms = wording.terms(query)
        return self._file.read(lambda db: searching.within(db, session_id, terms, limit=limit)) if terms else []

    def _rows(self, sql: str, values: object) -> list[sqlite3.Row]:
        return self._file.read(lambda db: db.execute(sql, values).fetchall())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] both kinds of parameters


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _create(db: sqlite3.Connection) -> None:
    for statement in filter(str.strip, _SCHEMA.split(";")):
        db.execute(statement)
    db.execute("INSERT INTO noted VALUES (?, ?)", (_MADE, secrets.token_hex(8)))
    # By the clock, so that numbers go on rising when the index is made anew.
    db.execute("INSERT INTO changes VALUES (?, ?)", (clock_number(), ANYTHING_CHANGED))


def _announce(db: sqlite3.Connection, uri: str) -> None:
    seq = db.execute("INSERT INTO changes (uri) VALUES (?)", (uri,)).lastrowid or 0
    db.execute("DELETE FROM changes WHERE seq <= ?", (seq - _CHANGES_KEPT,))


def _put(db: sqlite3.Connection, entry: Entry, *, silent: bool) -> bool:
    meta = entry.meta
    row = db.execute("SELECT number, messages FROM sessions WHERE session_id = ?", (meta.session_id,)).fetchone()
    if entry.known and (row is None or int(row[1]) < entry.known):
        return False
    values = (
        meta.session_id,
        meta.agent_id,
        meta.actor_id,
        _ms(meta.last_active_at),
        _ms(meta.expires_at) if meta.expires_at else None,
        entry.damaged,
        entry.known + len(entry.messages),
        entry.stamp,
        entry.files,
    )
    number = db.execute(
        "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (row and row[0], *values)
    ).lastrowid
    _put_words(db, int(number or 0), entry)
    if not silent:
        if not row:
            _announce(db, LIST_CHANGED)
        if row or entry.messages:
            _announce(db, transcript_uri(meta.session_id))
    return True


def _put_words(db: sqlite3.Connection, number: int, entry: Entry) -> None:
    """Replaces a session's words from message `known` on; the last chunk that stays is filled up."""
    first = number << SHIFT
    names = [*wording.pieces(_TITLE, "x", entry.meta.title), *wording.pieces(_TITLE, "x", entry.meta.session_id)]
    db.execute("DELETE FROM words WHERE rowid = ?", (first,))
    db.execute("INSERT INTO words (rowid, text, places) VALUES (?, ?, ?)", (first, *wording.pack(names)))
    place, kept = 1, list[wording.Piece]()
    if not entry.known:
        db.execute("DELETE FROM words WHERE rowid BETWEEN ? AND ?", (first + 1, first + PLACES))
    while entry.known:
        row = db.execute(
            "SELECT rowid, text, places FROM words WHERE rowid BETWEEN ? AND ? ORDER BY rowid DESC LIMIT 1",
            (first + 1, first + PLACES),
        ).fetchone()
        if row is None:
            break
        held = wording.unpack(row[1], row[2])
        kept = [piece for piece in held if piece.message < entry.known]
        if len(kept) == len(held) and len(row[1]) >= wording.CHUNK:
            place, kept = row[0] - first + 1, []  # full, and nothing in it is to go
            break
        db.execute("DELETE FROM words WHERE rowid = ?", (row[0],))
        if kept:
            place = row[0] - first
            break
    said = [piece for m in entry.messages for piece in wording.pieces(m.index, m.role, m.text)]
    for at, chunk in enumerate(wording.chunks([*kept, *said]), start=place):
        db.execute("INSERT INTO words (rowid, text, places) VALUES (?, ?, ?)", (first + at, *wording.pack(chunk)))


def _remove(db: sqlite3.Connection, session_id: SessionId) -> None:
    row = db.execute("SELECT number FROM sessions WHERE session_id = ?", (session_id,)).fetchone()
    if row is not None:
        first = int(row[0]) << SHIFT
        db.execute("DELETE FROM words WHERE rowid BETWEEN ? AND ?", (first, first + PLACES))
        db.execute("DELETE FROM sessions WHERE number = ?", (row[0],))
        db.execute("DELETE FROM changes WHERE uri = ?", (transcript_uri(session_id),))  # nothing is left behind
        _announce(db, LIST_CHANGED)
    db.execute("DELETE FROM turns WHERE session_id = ?", (session_id,))
