"""The store of one subject: agents, sessions and turns in its directory, with an index over them."""

import logging
import os
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import AsyncFileLock

from agent_mcp.domain import ActorId, AgentId, SessionId, SessionMeta, TurnId, TurnRecord
from agent_mcp.errors import SessionDamaged, StorageFailed
from agent_mcp.storage.agent_files import AgentFiles
from agent_mcp.storage.catalog import Catalog, Hit
from agent_mcp.storage.history import History
from agent_mcp.storage.layout import Layout
from agent_mcp.storage.locks import ProcessLock, session_lock
from agent_mcp.storage.session_files import SessionFiles
from agent_mcp.storage.turn_files import TurnFiles

logger = logging.getLogger(__name__)

_UNFINISHED_SECONDS = 3600


class Store:
    """Everything of one subject. Blocking: call it off the event loops, `session_lock` excepted."""

    def __init__(self, root: Path, *, sync: bool, default_ttl: int) -> None:
        self.root = root
        self._layout = Layout(root)
        self.agents = AgentFiles(self._layout, sync=sync)
        self._sessions = SessionFiles(self._layout, sync=sync, default_ttl=default_ttl)
        self._turns = TurnFiles(self._layout, sync=sync)
        self._catalog = Catalog(self._layout.catalog, fill=self._fill)
        self._process = ProcessLock(self._layout.locks)
        self._opened = False

    @property
    def process(self) -> str:
        """The name under which this process runs turns."""
        return self._process.process

    def open(self) -> None:
        """Makes the directories, shows that this process lives, clears what crashes left; raises StorageFailed."""
        if self._opened:
            return
        with storage_errors(self.root):
            self._layout.make()
            self._process.acquire()
            self._opened = True
            self._sessions.remove_unfinished(older_than_seconds=_UNFINISHED_SECONDS)
            removed = self._turns.remove_old()
        if removed:
            self._index(lambda: self._catalog.remove_turns(removed))

    def close(self) -> None:
        self._catalog.close()
        self._process.release()

    def create_session(self, meta: SessionMeta) -> None:
        """Raises SessionExists, StorageFailed."""
        with storage_errors(self.root):
            self._sessions.create(meta)
        self._put(meta)

    def remove_session(self, session_id: SessionId) -> None:
        """Removes a session and everything in it; raises StorageFailed."""
        with storage_errors(self.root):
            self._sessions.remove(session_id)
        self._index(lambda: self._catalog.remove_session(session_id))

    def find_session(self, session_id: SessionId) -> SessionMeta | None:
        """Raises SessionDamaged, StorageFailed."""
        with storage_errors(self.root):
            return self._sessions.find(session_id)

    def save_session(self, meta: SessionMeta, *, sync: bool) -> None:
        """Replaces a session's metadata and brings the index up to date with all that was said."""
        with storage_errors(self.root):
            self._sessions.write(meta, sync=sync)
        self._put(meta)

    def mark_turn(self, meta: SessionMeta) -> None:
        """Writes which turn works in the session, for whoever finds it after a crash."""
        with storage_errors(self.root):
            self._sessions.write(meta, sync=False)

    def history(self, meta: SessionMeta) -> History:
        return self._sessions.history(meta)

    def save_turn(self, record: TurnRecord, *, sync: bool) -> None:
        with storage_errors(self.root):
            self._turns.write(record, sync=sync)
        self._index(lambda: self._catalog.put_turn(record))

    def find_turn(self, turn_id: TurnId) -> TurnRecord | None:
        with storage_errors(self.root):
            return self._turns.find(turn_id)

    def is_running(self, record: TurnRecord) -> bool:
        """Whether the turn is open and the process that has it lives."""
        return self._turns.is_running(record)

    def ask_cancel(self, turn_id: TurnId) -> None:
        """Asks whichever process runs the turn to cancel it."""
        with storage_errors(self.root):
            self._turns.ask_cancel(turn_id)

    def cancel_is_asked(self, turn_id: TurnId) -> bool:
        return self._turns.cancel_is_asked(turn_id)

    def open_turns(self, session_id: SessionId) -> list[TurnRecord]:
        """A session's turns that have not ended, the latest first."""
        ids = self._catalog.turns(session_id, only_open=True)
        return [r for r in map(self._turns.find, ids) if r is not None and r.is_open]

    def latest_turn(self, session_id: SessionId) -> TurnRecord | None:
        """The turn that was asked last in a session."""
        return next((r for r in map(self._turns.find, self._catalog.turns(session_id)) if r is not None), None)

    def session_lock(self, session_id: SessionId) -> AsyncFileLock:
        return session_lock(self._layout.session_lock(session_id))

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
        """As `Catalog.list_sessions`, of what is there now, whoever made it; raises StorageFailed."""
        with storage_errors(self.root):
            self._catch_up()
            return self._catalog.list_sessions(
                now=now,
                limit=limit,
                agent_id=agent_id,
                actor_id=actor_id,
                status=status,
                query=query,
                after=after,
            )

    def search(self, session_id: SessionId, query: str, *, limit: int) -> list[Hit]:
        """What was said in one session that fits `query`; raises StorageFailed."""
        with storage_errors(self.root):
            return self._catalog.search(session_id, query, limit=limit)

    def refresh(self, session_id: SessionId) -> None:
        """Brings the index up to date with one session's directory, whoever wrote there."""
        stamp = self._stamp(session_id)
        if (self._catalog.known(session_id) or ("", 0))[0] == stamp:
            return
        try:
            meta = self._sessions.find(session_id)
        except SessionDamaged:
            self._catalog.put_session(self.unreadable_session(session_id), stamp=stamp, damaged=True)
            return
        if meta is not None:
            self._put_new(meta)

    def _catch_up(self) -> None:
        """Takes up what other programs made, changed or removed: a few microseconds for a session that is as it was."""
        known = self._catalog.stamps()
        there = self._sessions.ids()
        for session_id in there:
            if known.get(session_id) != self._stamp(session_id):
                self.refresh(session_id)
        for session_id in known.keys() - set(there):
            self._catalog.remove_session(session_id)

    def _fill(self, catalog: Catalog) -> None:
        self._catch_up()
        for turn_id in self._turns.ids():
            record = self._turns.find(turn_id)
            if record is not None:
                catalog.put_turn(record)

    def _put(self, meta: SessionMeta) -> None:
        self._index(lambda: self._put_new(meta))

    def _put_new(self, meta: SessionMeta) -> None:
        stamp = self._stamp(meta.session_id)
        history = self.history(meta)
        try:
            count = history.count()
            known = min((self._catalog.known(meta.session_id) or ("", 0))[1], count)
            self._catalog.put_session(meta, stamp=stamp, messages=history.read(offset=known), known=known)
        except SessionDamaged:
            self._catalog.put_session(meta, stamp=stamp, damaged=True)

    def _stamp(self, session_id: SessionId) -> str:
        """Changes when the metadata is written or a message comes or goes."""
        directory = str(self._layout.session(session_id))
        times: list[int] = []
        with suppress(FileNotFoundError, NotADirectoryError):
            times.append(os.stat(f"{directory}/metadata.json").st_mtime_ns)
        with suppress(FileNotFoundError, NotADirectoryError):
            for agent in sorted(os.listdir(f"{directory}/agents")):
                times.append(os.stat(f"{directory}/agents/{agent}/messages").st_mtime_ns)
        return ":".join(map(str, times))

    def unreadable_session(self, session_id: SessionId) -> SessionMeta:
        """A stand-in for the metadata of a damaged session, so that it can be listed."""
        at = datetime.fromtimestamp(self._layout.session(session_id).stat().st_mtime, UTC)
        return SessionMeta(
            session_id=session_id,
            agent_id=AgentId("unknown"),
            actor_id=ActorId("unknown"),
            created_at=at,
            last_active_at=at,
            ttl_seconds=0,
        )

    @staticmethod
    def _index(put: Callable[[], None]) -> None:
        """Writes to the index. A copy must not fail what it copies: it catches up later."""
        try:
            put()
        except (sqlite3.Error, OSError):
            logger.warning("the catalog could not be brought up to date", exc_info=True)


@contextmanager
def storage_errors(root: Path) -> Generator[None]:
    """Turns the system's errors into StorageFailed, one line that says where and why."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StorageFailed(
            f"The data directory {root} can't be used: {reason}. Nothing was half-made; mend it or set "
            "AGENT_MCP_DATA_DIR to a directory that can be written, and call again."
        ) from error
