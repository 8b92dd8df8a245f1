"""Keeps the catalog up to date with the directory, whoever writes there: at each look, and by a sweep behind it."""

import hashlib
import logging
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar

from agent_mcp.domain import ActorId, AgentId, SessionId, SessionMeta
from agent_mcp.errors import AgentMcpError, SessionDamaged, StorageFailed
from agent_mcp.storage.catalog import Catalog, Entry
from agent_mcp.storage.layout import Layout
from agent_mcp.storage.session_files import SessionFiles
from agent_mcp.storage.turn_files import TurnFiles

logger = logging.getLogger(__name__)
T = TypeVar("T")

LOOKED_AT = 100
"""So many of the sessions that were active last are looked at with every list and search."""
SWEEP_SECONDS = 2.0
"""Pause between two sweeps over all sessions, where there are few. A sweep uses at most 2 % of a processor."""
CLEAR_SECONDS = 3600.0
"""Pause between two looks for records of turns that are too old."""
SEARCH_WAITS = 20.0
"""Seconds that a search waits for an index that is being made anew."""
_LONGEST_PAUSE = 60.0
_LOOKS = 5
_BATCH = 50
_SETTLED_NS = 50_000_000  # a time that is younger may stand still while files still change
_ROOT, _TURNS, _SWEPT = "root", "turns", "swept"


class Upkeep:
    """What brings the index up to date. Blocking; any number of threads and processes may do it at once."""

    def __init__(self, layout: Layout, *, sessions: SessionFiles, turns: TurnFiles, catalog: Catalog) -> None:
        self._layout = layout
        self._sessions = sessions
        self._turns = turns
        self._catalog = catalog
        self._swept = False
        self._next_clearing = time.monotonic() + CLEAR_SECONDS  # whoever opens the store has just done it
        self._sweeping = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Sweeps from now on, in a thread of its own."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="agent-mcp sweep", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
            self._thread = None

    def before_list(self) -> None:
        """What makes a list right: all sessions and turns that there are, and what the latest of them say."""
        if not self._swept:
            with self._sweeping:
                if not self._swept:  # what was written while no server ran
                    self._sweep(pace=False)
        self._take_up_names()
        self.before_turns()
        for session_id, stamp in self._catalog.stamps(newest=LOOKED_AT).items():
            if stamp and stamp != self._stamp(session_id):
                self.refresh_readable(session_id)

    def before_search(self) -> None:
        """What makes a search right; raises StorageFailed if that takes too long."""
        self.before_list()
        until = time.monotonic() + SEARCH_WAITS
        if self._read_words(go_on=lambda: time.monotonic() < until):
            return
        total, missing = len(self._catalog.stamps()), len(self._catalog.without_words())
        raise StorageFailed(
            f"The index is being made anew and {missing} of {total} sessions are not in it yet. Nothing is lost: "
            "search again in half a minute, or list the sessions without query now."
        )

    def before_search_in(self, session_id: SessionId) -> None:
        """What makes a search in one session right where the index was made anew."""
        known = self._catalog.known(session_id)
        if known is None or not known.files:
            self.refresh(session_id)

    def before_turns(self) -> None:
        """Takes up the records of turns where the index was made anew."""
        if self._catalog.noted(_TURNS) is None:
            self._take_up_turns()
            self._catalog.note(_TURNS, "known")

    def of_one_index(self, look: Callable[[], T]) -> T:
        """What `look` finds, which fills the index before it reads it; again where the index was lost in between."""
        for _ in range(_LOOKS):
            made = self._catalog.made()
            found = look()
            if self._catalog.made() == made:
                return found
        raise StorageFailed("The index is lost again and again. Nothing else is: try once more in half a minute.")

    def refresh(self, session_id: SessionId) -> bool:
        """Brings the index up to date with a session, looking at each of its files; returns whether it was not."""
        known = self._catalog.known(session_id)
        if not self._sessions.is_there(session_id):
            if known is not None:
                self._catalog.remove_sessions([session_id])
            return known is not None
        stamp, files = self._stamp(session_id), self.files(session_id)
        if known is not None and known.files == files:
            if known.stamp != stamp:
                self._catalog.put_stamp(session_id, stamp)
            return False
        entry = self._entry(session_id, stamp=stamp, files=files)
        if entry is not None:
            self._catalog.put_read([(entry, known)])
        return True

    def refresh_all(self) -> None:
        """Looks at every file of all sessions."""
        for session_id in self._sessions.ids():
            self.refresh_readable(session_id)

    def current(self, meta: SessionMeta) -> Entry:
        """What is to be put of a session that is held: what was said since it was put last."""
        stamp, files = self._stamp(meta.session_id), self.files(meta.session_id)
        history = self._sessions.history(meta)
        try:
            count = history.count()
            known = self._catalog.known(meta.session_id)
            since = min(known.messages, count) if known is not None and known.files else 0
            return Entry(meta, stamp, files, messages=history.read(offset=since), known=since)
        except SessionDamaged:
            return Entry(meta, stamp, files, damaged=True)

    def files(self, session_id: SessionId) -> str:
        """Changes with every file of the session: names, sizes and times. A look at each of them."""
        digest = hashlib.sha256()
        for directory, _, names in sorted(os.walk(self._layout.session(session_id))):
            for name in sorted(names):
                try:
                    status = os.lstat(os.path.join(directory, name))
                except FileNotFoundError:
                    continue  # it went meanwhile
                digest.update(f"{directory}/{name}:{status.st_size}:{status.st_mtime_ns}\n".encode(errors="replace"))
        return digest.hexdigest()[:32]

    def unreadable(self, session_id: SessionId) -> SessionMeta:
        """A stand-in for the metadata of a damaged session, so that it can be listed."""
        at = datetime.fromtimestamp(self._layout.session(session_id).lstat().st_mtime, UTC)
        return SessionMeta(
            session_id=session_id,
            agent_id=AgentId("unknown"),
            actor_id=ActorId("unknown"),
            created_at=at,
            last_active_at=at,
            ttl_seconds=0,
        )

    def _run(self) -> None:
        pause = 1.0  # a command of the shell has ended by then
        checked = False
        while not self._stop.wait(pause):
            began = time.thread_time()
            try:
                if not checked:
                    self._catalog.check()
                    checked = True
                if self._somebody_else_swept(pause):
                    continue
                if time.monotonic() >= self._next_clearing:
                    self._clear_turns()
                with self._sweeping:
                    self._sweep(pace=True)
                self._read_words(go_on=lambda: not self._stop.is_set())
                self._catalog.note(_SWEPT, str(time.time_ns()))
            except (OSError, sqlite3.Error, AgentMcpError):
                logger.warning("the sweep over the sessions failed and is tried again", exc_info=True)
            pause = min(_LONGEST_PAUSE, max(SWEEP_SECONDS, 50 * (time.thread_time() - began)))

    def _clear_turns(self) -> None:
        """Removes the records of turns that are too old, also where a server runs for months."""
        self._next_clearing = time.monotonic() + CLEAR_SECONDS
        if removed := self._turns.remove_old():
            self._catalog.remove_turns(removed)

    def _somebody_else_swept(self, pause: float) -> bool:
        at = self._catalog.noted(_SWEPT)
        return self._swept and at is not None and 0 <= time.time_ns() - int(at) < pause * 0.9e9

    def _sweep(self, *, pace: bool) -> None:
        """Finds the sessions whose stamp is another one, and takes up their changes."""
        self._take_up_names()
        for number, (session_id, stamp) in enumerate(self._catalog.stamps().items()):
            if stamp and stamp != self._stamp(session_id):
                self.refresh_readable(session_id)
            if pace and number % 100 == 99 and self._stop.wait(0.01):
                return
        self._take_up_turns()
        self._swept = True

    def _take_up_names(self) -> None:
        """Takes up the sessions that came and went, if the directory's own time says that any may have.

        Of new ones just the metadata: what was said in them is read behind that.
        """
        status = os.stat(self._layout.root)
        state = f"{status.st_ino}:{status.st_mtime_ns}"
        if self._catalog.noted(_ROOT) == state:
            return
        known = self._catalog.stamps().keys()
        there = self._sessions.ids(known=known)
        new = there - known
        for batch in _batches(sorted(new)):
            read = [self._name_only(session_id) for session_id in batch]
            self._catalog.put_read(((entry, None) for entry in read if entry is not None), silent=len(new) > LOOKED_AT)
        if gone := known - there:
            self._catalog.remove_sessions(gone)
        if time.time_ns() - status.st_mtime_ns > _SETTLED_NS:
            self._catalog.note(_ROOT, state)

    def _name_only(self, session_id: SessionId) -> Entry | None:
        try:
            meta = self._sessions.find(session_id)
        except SessionDamaged:
            meta = self.unreadable(session_id)
        except OSError:
            logger.warning("the session %s can't be read and is not in the index", session_id, exc_info=True)
            return None
        return Entry(meta, "", "") if meta is not None else None

    def _read_words(self, *, go_on: Callable[[], bool]) -> bool:
        """Reads what was said in the sessions of which only the metadata are known; False if it was not to go on."""
        tried = set[SessionId]()
        while missing := [session_id for session_id in self._catalog.without_words() if session_id not in tried]:
            random.shuffle(missing)  # several who do this at once seldom read the same
            for batch in _batches(missing):
                if not go_on():
                    return False
                known = {session_id: self._catalog.known(session_id) for session_id in batch}
                read = [self._readable_entry(s) for s, is_known in known.items() if is_known and not is_known.files]
                entries = [entry for entry in read if entry is not None]
                self._catalog.put_read(((entry, known[entry.meta.session_id]) for entry in entries), silent=True)
                self._catalog.remove_sessions(s for s in batch if not self._sessions.is_there(s))
                tried.update(batch)
        return True

    def _readable_entry(self, session_id: SessionId) -> Entry | None:
        try:
            return self._entry(session_id, stamp=self._stamp(session_id), files=self.files(session_id))
        except OSError:
            logger.warning("the session %s can't be read and is not in the index", session_id, exc_info=True)
            return None

    def _entry(self, session_id: SessionId, *, stamp: str, files: str) -> Entry | None:
        """What is to be put of a session, read anew; None if it is gone."""
        meta: SessionMeta | None = None
        try:
            meta = self._sessions.find(session_id)
            if meta is None:
                return None
            history = self._sessions.history(meta)
            history.check_files()
            return Entry(meta, stamp, files, messages=history.read())
        except SessionDamaged:
            return Entry(meta or self.unreadable(session_id), stamp, files, damaged=True)

    def refresh_readable(self, session_id: SessionId) -> bool:
        """As `refresh`, but one directory that the system refuses to read does not hide all others."""
        try:
            return self.refresh(session_id)
        except OSError:
            logger.warning("the session %s can't be read and is not in the index", session_id, exc_info=True)
            return False

    def _take_up_turns(self) -> None:
        """Takes up the records of turns that the index does not know or knows as open, drops those that are gone."""
        known = self._catalog.open_by_turn()
        turns = self._turns.ids()
        found = self._turns.find_each(turn_id for turn_id in turns if known.get(turn_id, True))
        changed = [r for r in found if r.turn_id not in known or not (r.is_open or r.is_pending)]
        if changed:
            self._catalog.put_turns(changed)
        gone = [turn_id for turn_id in known.keys() - set(turns) if self._turns.find(turn_id) is None]
        if gone:
            self._catalog.remove_turns(gone)

    def _stamp(self, session_id: SessionId) -> str:
        """Changes when the metadata are written, a message comes or goes, or the directory is another one."""
        directory = str(self._layout.session(session_id))
        times: list[int] = []
        inode = 0
        with suppress(FileNotFoundError, NotADirectoryError):
            status = os.stat(directory)
            inode = status.st_ino
            times.append(status.st_mtime_ns)
        with suppress(FileNotFoundError, NotADirectoryError):
            times.append(os.stat(f"{directory}/metadata.json").st_mtime_ns)
        with suppress(FileNotFoundError, NotADirectoryError):
            for agent in sorted(os.listdir(f"{directory}/agents")):
                times.append(os.stat(f"{directory}/agents/{agent}/messages").st_mtime_ns)
        stamp = ":".join(map(str, [inode, *times]))
        # Clocks of files go in steps: what is written in the same one leaves the time as it is. Looked at again later.
        return stamp if time.time_ns() - max(times, default=0) > _SETTLED_NS else f"{stamp}?"


def _batches(ids: Iterable[SessionId]) -> Iterable[list[SessionId]]:
    waiting = list(ids)
    return (waiting[at : at + _BATCH] for at in range(0, len(waiting), _BATCH))
