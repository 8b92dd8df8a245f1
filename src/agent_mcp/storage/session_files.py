"""Sessions as directories: Strands' own files, and beside them one `metadata.json`."""

import os
import secrets
import shutil
from collections.abc import Callable, Set
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from agent_mcp.domain import (
    DEFAULT_ACTOR,
    AgentId,
    SessionId,
    SessionMeta,
    parse_agent_id,
    parse_session_id,
    title_of,
)
from agent_mcp.errors import InvalidArgument, SessionDamaged, SessionExists
from agent_mcp.late import load_strands
from agent_mcp.storage import durable
from agent_mcp.storage.history import UNUSABLE, History, damaged
from agent_mcp.storage.layout import NEW_PREFIX, SESSION_PREFIX, Layout
from agent_mcp.storage.locks import short_lock


class SessionFiles:
    """The sessions of one subject. `default_ttl` (seconds) is the life of a session that a Strands program made."""

    def __init__(self, layout: Layout, *, sync: bool, default_ttl: int) -> None:
        self._layout = layout
        self._sync = sync
        self._default_ttl = default_ttl

    def ids(self, *, known: Set[SessionId] = frozenset()) -> set[SessionId]:
        """The ids of all sessions, damaged ones too. Of those that are `known`, only names are looked at."""
        names = {
            name[len(SESSION_PREFIX) :] for name in os.listdir(self._layout.root) if name.startswith(SESSION_PREFIX)
        }
        found = {session_id for session_id in known if session_id in names}
        for name in names - found:
            try:
                session_id = parse_session_id(name)
            except InvalidArgument:
                continue  # A name that we would not have given: not ours, left alone.
            if self.is_there(session_id):
                found.add(session_id)
        return found

    def create(self, meta: SessionMeta, *, source: History | None = None, count: int = 0, whole: bool = False) -> None:
        """Makes the session whole or not at all, with the first `count` messages of `source`; raises SessionExists.

        It is made beside its place and renamed into it, so that of several who try one succeeds, and a crash leaves
        nothing that looks like a session.
        """
        load_strands()
        from strands.session.file_session_manager import FileSessionManager

        place = self._layout.session(meta.session_id)
        beside = self._layout.root / f"{NEW_PREFIX}{secrets.token_hex(8)}"
        try:
            FileSessionManager(meta.session_id, storage_dir=str(beside))
            made = beside / place.name
            if source is not None:
                copy = History(Layout(beside), meta.session_id, meta.agent_id, sync=self._sync)
                source.copy_into(copy, count=count, whole=whole)
                copy.make_durable(since=0)
            self._write(made / "metadata.json", meta, sync_name=True)
            if self._sync:
                durable.sync_files([made / "session.json"])
                durable.sync_directory(made)
            try:
                if place.exists():  # An empty directory would be replaced by the rename.
                    raise FileExistsError
                made.rename(place)
            except OSError as error:
                if not place.exists():
                    raise
                raise SessionExists(
                    f"The session {meta.session_id!r} exists already: ask in it with ask_agent, or choose another id."
                ) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        if self._sync:
            durable.sync_directory(self._layout.root)

    def find(self, session_id: SessionId) -> SessionMeta | None:
        """The session's metadata, or None if there is no such session; raises SessionDamaged naming the file."""
        if not self.is_there(session_id):
            return None
        directory, path = self._layout.session(session_id), self._layout.metadata(session_id)
        if directory.is_symlink() or not directory.is_dir():
            raise damaged(session_id, directory)
        try:
            meta = SessionMeta.model_validate_json(path.read_bytes())
            parse_agent_id(meta.agent_id)
        except FileNotFoundError:
            try:
                return self.adopted(session_id)
            except SessionDamaged:
                if not self.is_there(session_id):
                    return None  # It was deleted as we looked.
                raise
        except (*UNUSABLE, ValidationError, InvalidArgument):
            raise damaged(session_id, path) from None
        if meta.session_id != session_id:
            raise damaged(session_id, path)  # A copy of another session's directory: asks would go to that one.
        return meta

    def change(
        self, session_id: SessionId, change: Callable[[SessionMeta], SessionMeta], *, sync: bool
    ) -> SessionMeta | None:
        """Replaces the metadata by what `change` makes of it; None if the session is gone.

        Nothing that another process writes in between is lost. `sync` where what can't be counted again changes.
        """
        path = self._layout.metadata_lock(session_id)
        with short_lock(path):
            meta = self.find(session_id)
            if meta is None:
                with suppress(OSError):  # Nothing of a session that is gone is left; Windows keeps a file that is open.
                    path.unlink()
                return None
            changed = change(meta)
            self._write(self._layout.metadata(session_id), changed, sync_name=sync)
            return changed

    def remove(self, session_id: SessionId) -> None:
        """Removes the directory: away from its name first, so that no half of it is ever found there."""
        place = self._layout.session(session_id)
        beside = self._layout.root / f"{NEW_PREFIX}{secrets.token_hex(8)}"
        place.rename(beside)
        if beside.is_symlink() or not beside.is_dir():
            beside.unlink()
        else:
            shutil.rmtree(beside)
        for directory in (self._layout.workspace(session_id), self._layout.set_aside(session_id)):
            shutil.rmtree(directory, ignore_errors=True)
        # Whoever waits for one of them sees that it is gone. Windows keeps a file that is open.
        for lock in (self._layout.metadata_lock(session_id), self._layout.session_lock(session_id)):
            with suppress(OSError):
                lock.unlink()
        if self._sync:
            durable.sync_directory(self._layout.root)

    def has_any_of(self, agent_id: AgentId) -> bool:
        """Whether there is a directory of this agent's in some session, also where its metadata can't be read."""
        return any(self._layout.root.glob(f"{SESSION_PREFIX}*/agents/agent_{agent_id}"))

    def is_there(self, session_id: SessionId) -> bool:
        """Whether there is such a session, damaged or not, or anything else in its place."""
        return os.path.lexists(self._layout.session(session_id))

    def history(self, meta: SessionMeta) -> History:
        return History(self._layout, meta.session_id, meta.agent_id, sync=self._sync)

    def remove_unfinished(self, *, older_than_seconds: float) -> None:
        """Removes what a crash left of sessions that were being made."""
        limit = datetime.now(UTC).timestamp() - older_than_seconds
        for path in self._layout.root.glob(f"{NEW_PREFIX}*"):
            with suppress(FileNotFoundError):  # Another process that lives has just finished this one.
                if path.is_dir() and path.stat().st_mtime < limit:
                    shutil.rmtree(path, ignore_errors=True)

    def clear_begun(self, session_id: SessionId) -> None:
        """Removes what a kill left of files that were being written. The session's turn lock must be held."""
        directory = self._layout.session(session_id)
        with short_lock(self._layout.metadata_lock(session_id)):
            durable.remove_begun(directory, older_than_seconds=0)
        for path in directory.glob("agents/*/**/.strands_*.tmp"):
            path.unlink(missing_ok=True)

    def write(self, meta: SessionMeta) -> None:
        """Writes a session's metadata where there is none."""
        self._write(self._layout.metadata(meta.session_id), meta, sync_name=True)

    def _write(self, path: Path, meta: SessionMeta, *, sync_name: bool) -> None:
        durable.write_text(path, meta.model_dump_json(indent=2), sync=self._sync, sync_name=sync_name)

    def adopted(self, session_id: SessionId, *, count: bool = True) -> SessionMeta:
        """Metadata for a session that a plain Strands program made: it has one agent, and nobody said whose it is.

        Raises SessionDamaged. With `count` turns and title come from the messages, which must be readable then.
        """
        directory = self._layout.session(session_id)
        agents = [path.name.removeprefix("agent_") for path in directory.glob("agents/agent_*")]
        if len(agents) != 1 or (count and not (directory / "session.json").is_file()):
            raise damaged(session_id, directory / "metadata.json")
        try:
            agent_id = parse_agent_id(agents[0])
        except InvalidArgument:
            raise damaged(session_id, directory / "agents" / f"agent_{agents[0]}") from None
        files = [*directory.glob("session.json"), *directory.glob("agents/*/messages/message_*.json")]
        times = [datetime.fromtimestamp(path.lstat().st_mtime, UTC) for path in files or [directory]]
        meta = SessionMeta(
            session_id=session_id,
            agent_id=agent_id,
            actor_id=DEFAULT_ACTOR,
            created_at=min(times),
            last_active_at=max(times),
            ttl_seconds=self._default_ttl,
        )
        if not count:
            return meta
        prompts = self.history(meta).prompts()
        return meta.model_copy(update={"turns": len(prompts), "title": title_of(prompts[0]) if prompts else ""})
