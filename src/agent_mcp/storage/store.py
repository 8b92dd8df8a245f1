"""The store of one subject: agents, sessions and turns in its directory, with an index over them."""

import copy
import logging
import secrets
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import AsyncFileLock

from agent_mcp.domain import LOCAL_SUBJECT, ActorId, AgentId, Caller, SessionId, SessionMeta, TurnId, TurnRecord
from agent_mcp.errors import SessionDamaged, SessionNotFound, StorageFailed
from agent_mcp.storage import durable
from agent_mcp.storage.agent_files import AgentFiles
from agent_mcp.storage.catalog import Catalog, Change
from agent_mcp.storage.failures import storage_errors
from agent_mcp.storage.history import History
from agent_mcp.storage.layout import Layout
from agent_mcp.storage.locks import ProcessLock, session_lock
from agent_mcp.storage.repair import Repair, Repairer
from agent_mcp.storage.searching import Hit, Listed, Position
from agent_mcp.storage.session_files import SessionFiles
from agent_mcp.storage.subjects import subject_root
from agent_mcp.storage.turn_files import TurnFiles
from agent_mcp.storage.upkeep import Upkeep

logger = logging.getLogger(__name__)

_UNFINISHED_SECONDS = 3600
_BEING_MADE_SECONDS = 60  # what is younger may be another process's, which is just writing it
_LOOKS = 3


class Store:
    """Everything of one subject. Blocking: call it off the event loops, `session_lock` excepted.

    `process` shows that this process lives, for the stores of all subjects in `data_dir`.
    """

    def __init__(self, data_dir: Path, subject: str, *, process: ProcessLock, sync: bool, default_ttl: int) -> None:
        self.root = root = subject_root(data_dir, subject)
        self.subject = subject
        self._layout = Layout(root)
        self._caller: Caller | None = None
        self.whole = self
        """The same without the limits of `seen_by`: for what the server does by itself."""
        self._sync = sync
        self.agents = AgentFiles(self._layout, sync=sync)
        self._sessions = SessionFiles(self._layout, sync=sync, default_ttl=default_ttl)
        self._turns = TurnFiles(self._layout, sync=sync, process=process)
        self._catalog = Catalog(self._layout.catalog, lock=self._layout.catalog_lock)
        self._upkeep = Upkeep(self._layout, sessions=self._sessions, turns=self._turns, catalog=self._catalog)
        self._process = process
        self._opening = threading.Lock()
        self._opened = False

    @property
    def process(self) -> str:
        """The name under which this process runs turns."""
        return self._process.process

    def open(self) -> None:
        """Makes the directories, clears what crashes left, once; raises StorageFailed."""
        with self._opening:
            if not self._opened:
                self._open()

    def _open(self) -> None:
        with storage_errors(self.root):
            self._layout.make()
            if self.subject != LOCAL_SUBJECT and not self._layout.subject.exists():
                durable.write_text(self._layout.subject, self.subject, sync=self._sync)  # for whoever looks there
            self._opened = True
            self._sessions.remove_unfinished(older_than_seconds=_UNFINISHED_SECONDS)
            for directory in (self._layout.root, self._layout.agents, self._layout.turns):
                durable.remove_begun(directory, older_than_seconds=_UNFINISHED_SECONDS)
            removed = self._turns.remove_old()
        if removed:
            self._index(lambda: self._catalog.remove_turns(removed))
        self._upkeep.start()

    def close(self) -> None:
        """Gives back what is open. The store can still be used, and then opens it again."""
        self._upkeep.stop()
        self._catalog.close()

    def seen_by(self, caller: Caller) -> "Store":
        """The store as somebody sees it who may act for some actors only: the others' sessions are not there."""
        if caller.act_as is None:
            return self
        view = copy.copy(self)
        view._caller = caller
        return view

    def _shows(self, actor_id: ActorId) -> bool:
        return self._caller is None or self._caller.may_act_for(actor_id)

    def create_session(
        self, meta: SessionMeta, *, source: History | None = None, count: int = 0, whole: bool = False
    ) -> None:
        """Makes a session, with the first `count` messages of `source`; raises SessionExists, StorageFailed."""
        with storage_errors(self.root):
            self._sessions.create(meta, source=source, count=count, whole=whole)
        self._put(meta)

    def has_session(self, session_id: SessionId) -> bool:
        """Whether there is such a session, damaged or not."""
        if self._caller is not None:
            return self.find_session(session_id) is not None
        return self._sessions.is_there(session_id)

    def remove_session(self, session_id: SessionId) -> None:
        """Removes a session, everything in it, and the records of its turns; raises StorageFailed."""
        with storage_errors(self.root):
            turns = self._turn_ids(session_id)
            self._sessions.remove(session_id)
            for turn_id in turns:
                self._turns.remove(turn_id)
        self._index(lambda: self._catalog.remove_sessions([session_id]))

    def remove_begun(self) -> None:
        """Removes what crashes left of files and sessions that were being written or removed; raises StorageFailed."""
        with storage_errors(self.root):
            self._sessions.remove_unfinished(older_than_seconds=_BEING_MADE_SECONDS)
            for directory in (self._layout.root, self._layout.turns):
                durable.remove_begun(directory, older_than_seconds=_BEING_MADE_SECONDS)

    def erase_from_index(self, session_ids: Sequence[SessionId]) -> None:
        """Leaves no byte of these sessions in the index. Their directories must be gone. Raises StorageFailed.

        Takes seconds where there is much else in the index.
        """
        with storage_errors(self.root):
            self._catalog.erase_sessions(session_ids)

    def clear_session_lock(self, session_id: SessionId) -> None:
        """Removes the lock file of a session that is gone. It must be held: who waits for it takes a new file."""
        if not self._sessions.is_there(session_id):
            with suppress(OSError):  # Windows keeps a file that is open; it is empty.
                self._layout.session_lock(session_id).unlink(missing_ok=True)

    def find_session(self, session_id: SessionId) -> SessionMeta | None:
        """Raises SessionDamaged, StorageFailed."""
        with storage_errors(self.root):
            try:
                meta = self._sessions.find(session_id)
            except SessionDamaged:
                if self._caller is not None:
                    return None  # Whose it is can't be told.
                raise
        return meta if meta is None or self._shows(meta.actor_id) else None

    def change_session(
        self, session_id: SessionId, change: Callable[[SessionMeta], SessionMeta], *, sync: bool, index: bool = True
    ) -> SessionMeta:
        """Replaces a session's metadata by what `change` makes of it, and brings the index up to date with all that
        was said. Raises SessionNotFound if the session is gone, StorageFailed."""
        with storage_errors(self.root):
            meta = self._sessions.change(session_id, change, sync=sync)
        if meta is None:
            raise SessionNotFound(f"The session {session_id!r} was deleted meanwhile.")
        if index:
            self._put(meta)
        return meta

    def clear_begun(self, session_id: SessionId) -> None:
        """Removes what a killed process was just writing in a session, whose turn lock must be held."""
        with storage_errors(self.root):
            self._sessions.clear_begun(session_id)

    def repair_session(self, session_id: SessionId) -> Repair:
        """Sets a session's damaged files aside and restores what can be. Its turn lock must be held.

        Raises SessionDamaged where that is not enough, StorageFailed.
        """
        with storage_errors(self.root):
            self._sessions.clear_begun(session_id)
            done = Repairer(self._layout, self._sessions, session_id, sync=self._sync).run()
        self._index(lambda: self._index_anew(session_id))
        return done

    def history(self, meta: SessionMeta) -> History:
        return self._sessions.history(meta)

    def history_of(self, record: TurnRecord) -> History:
        """The history of the session of a turn."""
        return History(self._layout, record.session_id, record.agent_id, sync=self._sync)

    def save_turn(self, record: TurnRecord, *, sync: bool) -> None:
        with storage_errors(self.root):
            self._turns.write(record, sync=sync)
        self._index(lambda: self._catalog.put_turns([record]))

    def create_turn(self, record: TurnRecord) -> bool:
        """Writes a new turn's record; False if there is one of this id already. Raises StorageFailed."""
        with storage_errors(self.root):
            created = self._turns.create(record)
        if created:
            self._index(lambda: self._catalog.put_turns([record]))
        return created

    def remove_turn(self, turn_id: TurnId) -> None:
        with storage_errors(self.root):
            self._turns.remove(turn_id)
        self._index(lambda: self._catalog.remove_turns([turn_id]))

    def find_turn(self, turn_id: TurnId) -> TurnRecord | None:
        with storage_errors(self.root):
            record = self._turns.find(turn_id)
        return record if record is None or self._shows(record.actor_id) else None

    def is_running(self, record: TurnRecord) -> bool:
        """Whether the turn is open and the process that has it lives."""
        return self._turns.is_running(record)

    def save_partial(self, turn_id: TurnId, text: str) -> None:
        """Keeps what the model has written of an incomplete message, for the case that this process dies."""
        with storage_errors(self.root):
            self._turns.write_partial(turn_id, text)

    def find_partial(self, turn_id: TurnId) -> str:
        with storage_errors(self.root):
            return self._turns.partial(turn_id)

    def ask_cancel(self, turn_id: TurnId) -> None:
        """Asks whichever process runs the turn to cancel it."""
        with storage_errors(self.root):
            self._turns.ask_cancel(turn_id)

    def cancel_is_asked(self, turn_id: TurnId) -> bool:
        return self._turns.cancel_is_asked(turn_id)

    def open_turns(self, session_id: SessionId) -> list[TurnRecord]:
        """A session's turns that have not ended, the latest first."""
        with storage_errors(self.root):
            ids = self._turn_ids(session_id, only_open=True)
            return [r for r in map(self._turns.find, ids) if r is not None and (r.is_open or r.is_pending)]

    def list_turns(self, session_id: SessionId | None) -> list[TurnRecord]:
        """The records of all turns, or of one session's, the latest first."""
        with storage_errors(self.root):
            ids = self._turns.ids() if session_id is None else self._turn_ids(session_id)
            records = [record for record in self._turns.find_each(ids) if self._shows(record.actor_id)]
        return sorted(records, key=lambda record: record.created_at, reverse=True)

    def latest_turn(self, session_id: SessionId) -> TurnRecord | None:
        """The turn that was asked last in a session."""
        with storage_errors(self.root):
            return next((r for r in map(self._turns.find, self._turn_ids(session_id)) if r is not None), None)

    def workspace(self, session_id: SessionId) -> Path:
        """The directory in which a session's tools work; made if it is not there. Raises StorageFailed."""
        path = self._layout.workspace(session_id)
        with storage_errors(self.root):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def database(self, name: Literal["memory", "outbox"]) -> str:
        """The file of the facts about this subject's actors, or of what is still to be sent to another memory."""
        return str(self.root / f"{name}.db")

    def lives(self, process: str) -> bool:
        """Whether a process that works on this directory is there."""
        return process == self.process or self._process.lives(process)

    def secret_key(self) -> bytes:
        """32 random bytes, the same for every server on this directory; raises StorageFailed."""
        with storage_errors(self.root):
            if not self._layout.secret.exists():
                durable.create_text(self._layout.secret, secrets.token_hex(32), sync=True)
            return bytes.fromhex(self._layout.secret.read_text(encoding="ascii"))

    def session_lock(self, session_id: SessionId) -> AsyncFileLock:
        return session_lock(self._layout.session_lock(session_id))

    def has_sessions_of(self, agent_id: AgentId) -> bool:
        """Whether there are sessions with this agent, damaged ones too; raises StorageFailed."""
        if self.list_sessions(now=datetime.now(UTC), limit=1, agent_id=agent_id):
            return True
        with storage_errors(self.root):
            return self._sessions.has_any_of(agent_id)

    def list_sessions(
        self,
        *,
        now: datetime,
        limit: int,
        agent_id: AgentId | None = None,
        actor_id: ActorId | None = None,
        status: str = "all",
        query: str | None = None,
        after: Position | None = None,
        exact: bool = True,
    ) -> list[Listed]:
        """As `Catalog.list_sessions`, of what is there now, whoever made it; raises StorageFailed.

        Without `exact` the files of what is listed are not looked at: for those who look themselves.
        """
        with storage_errors(self.root):
            return self._upkeep.of_one_index(
                lambda: self._listed(
                    exact=exact,
                    searched=query is not None,
                    look=lambda: self._catalog.list_sessions(
                        now=now,
                        limit=limit,
                        agent_id=agent_id,
                        actor_id=actor_id,
                        actors=self._caller.actors if self._caller is not None else None,
                        status=status,
                        query=query,
                        after=after,
                    ),
                )
            )

    def _listed(self, *, exact: bool, searched: bool, look: Callable[[], list[Listed]]) -> list[Listed]:
        self._upkeep.before_search() if searched else self._upkeep.before_list()
        rows: list[Listed] = []
        for _ in range(_LOOKS):
            rows = look()
            # What is shown must be so; what others changed may put it into another place.
            if not [row for row in rows if exact and self._upkeep.refresh_readable(row.session_id)]:
                break
        return rows

    def search(self, session_id: SessionId, query: str, *, limit: int) -> list[Hit]:
        """What was said in one session that fits `query`; raises StorageFailed."""
        with storage_errors(self.root):
            return self._upkeep.of_one_index(lambda: self._found(session_id, query, limit))

    def _found(self, session_id: SessionId, query: str, limit: int) -> list[Hit]:
        self._upkeep.before_search_in(session_id)
        return self._catalog.search(session_id, query, limit=limit)

    def announce(self, uri: str) -> None:
        """Tells all processes of a change that the index does not hold, such as that of an agent."""
        self._index(lambda: self._catalog.announce(uri))

    def last_change(self) -> int:
        """As `Catalog.last_change`; raises StorageFailed."""
        with storage_errors(self.root):
            return self._catalog.last_change()

    def changes_after(self, seq: int) -> list[Change]:
        """As `Catalog.changes_after`: what changed behind `seq`, in any process; raises StorageFailed."""
        with storage_errors(self.root):
            return self._catalog.changes_after(seq)

    def data_version(self) -> tuple[int, int]:
        """As `Catalog.data_version`: another value whenever there may be new changes; raises StorageFailed."""
        with storage_errors(self.root):
            return self._catalog.data_version()

    def _index_anew(self, session_id: SessionId) -> None:
        self._catalog.remove_sessions([session_id])
        self._upkeep.refresh(session_id)

    def refresh_all(self) -> None:
        """Brings the index up to date with all sessions, looking at every file; raises StorageFailed."""
        with storage_errors(self.root):
            self._upkeep.refresh_all()

    def _turn_ids(self, session_id: SessionId, *, only_open: bool = False) -> list[TurnId]:
        """A session's turns, the latest first. Without the index by a look at all records."""
        try:
            return self._upkeep.of_one_index(lambda: self._turns_in_index(session_id, only_open=only_open))
        except (sqlite3.Error, OSError, StorageFailed):
            logger.warning("the catalog can't be read", exc_info=True)
        records = [r for r in self._turns.find_each(self._turns.ids()) if r.session_id == session_id]
        return [r.turn_id for r in sorted(records, key=lambda r: r.created_at, reverse=True)]

    def _turns_in_index(self, session_id: SessionId, *, only_open: bool) -> list[TurnId]:
        self._upkeep.before_turns()
        return self._catalog.turns(session_id, only_open=only_open)

    def _put(self, meta: SessionMeta) -> None:
        self._index(lambda: self._put_new(meta))

    def _put_new(self, meta: SessionMeta) -> None:
        while not self._catalog.put_session(self._upkeep.current(meta)):
            pass  # It was made anew since we looked, and knows less.

    def unreadable_session(self, session_id: SessionId) -> SessionMeta:
        """A stand-in for the metadata of a damaged session, so that it can be listed."""
        return self._upkeep.unreadable(session_id)

    @staticmethod
    def _index(put: Callable[[], None]) -> None:
        """Writes to the index. A copy must not fail what it copies: it catches up later."""
        try:
            put()
        except (sqlite3.Error, OSError):
            logger.warning("the catalog could not be brought up to date", exc_info=True)
