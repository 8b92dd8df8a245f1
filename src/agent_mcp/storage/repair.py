"""Mending a damaged session: what can't be read is set aside, never deleted, and what is lacking is made again."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from agent_mcp.domain import SessionId, SessionMeta
from agent_mcp.errors import SessionDamaged
from agent_mcp.late import load_strands
from agent_mcp.storage import durable
from agent_mcp.storage.history import NOTHING_REMOVED, History
from agent_mcp.storage.layout import NEW_PREFIX, Layout, message_index
from agent_mcp.storage.session_files import SessionFiles

if TYPE_CHECKING:
    from strands.types.content import ContentBlock, Message as StrandsMessage
    from strands.types.session import SessionMessage

LOST = "[This message was lost: its file was damaged.]"
_NO_RESULT = "The result was lost: its file was damaged."


@dataclass
class Repair:
    """What was done, as paths below the data directory: `aside` from where to where, `restored` what was made again."""

    aside: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    restored: list[str] = field(default_factory=list[str])


class Repairer:
    """Repairs one session, whose turn lock must be held. Blocking."""

    def __init__(self, layout: Layout, sessions: SessionFiles, session_id: SessionId, *, sync: bool) -> None:
        load_strands()
        self._layout = layout
        self._sessions = sessions
        self._session_id = session_id
        self._sync = sync
        self._done = Repair()

    def run(self) -> Repair:
        """Repairs the session; raises SessionDamaged where it can't be made readable, OSError."""
        directory = self._layout.session(self._session_id)
        if directory.is_symlink() or not directory.is_dir():
            self._set_aside(directory)
            return self._done
        meta = self._metadata()
        history = self._sessions.history(meta)
        messages = self._layout.messages(self._session_id, meta.agent_id)
        # A name of the session that leads elsewhere, or is a file, would be followed or refused by Strands.
        for place in (messages.parent.parent, messages.parent, messages):
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                self._set_aside(place)
        self._session_file()
        if messages.parent.is_dir():
            messages.mkdir(mode=0o700, exist_ok=True)
        self._messages(history, messages)
        self._agent_file(history, messages.parent / "agent.json", wanted=messages.is_dir() and any(messages.iterdir()))
        if (error := history.find_damage()) is not None:
            raise error
        history.make_durable(since=0)
        if self._sync and self._done.restored:
            durable.sync_files([directory / "session.json"])
            durable.sync_directory(directory)
        return self._done

    def _metadata(self) -> SessionMeta:
        path = self._layout.metadata(self._session_id)
        try:
            found = self._sessions.find(self._session_id) if path.exists() else None
        except SessionDamaged:
            found = None
        if found is not None:
            return found
        meta = self._sessions.adopted(self._session_id, count=False)
        # The id is not believed: a copy of another session's directory tells that one's.
        kept = {k: v for k, v in _object(path).items() if k not in ("session_id", "agent_id")}
        self._set_aside(path)
        for name, value in kept.items():
            try:
                meta = SessionMeta.model_validate({**dict(meta), name: value})
            except ValidationError:
                continue
        self._sessions.write(meta)
        self._restored(path)
        return meta

    def _session_file(self) -> None:
        from strands.session.file_session_manager import FileSessionManager

        path = self._layout.session(self._session_id) / "session.json"
        if not path.is_symlink() and {"session_id", "session_type"} <= _object(path).keys():
            return
        self._set_aside(path)
        with self._beside() as beside:
            FileSessionManager(self._session_id, storage_dir=str(beside))
            os.replace(beside / path.parent.name / path.name, path)
        self._restored(path)

    def _messages(self, history: History, directory: Path) -> None:
        """Replaces what can't be read by a note in its place, so that what was said around it keeps its order."""
        from strands.types.session import SessionMessage

        names = sorted(os.listdir(directory)) if directory.is_dir() else []
        indices = {index for name in names if (index := message_index(name)) is not None}
        for name in names:
            if name.startswith("message_") and name.endswith(".json") and message_index(name) is None:
                self._set_aside(directory / name)
        records: list[SessionMessage | None] = []
        for index in range(max(indices, default=-1) + 1):
            try:
                records.append(history.load(index))
            except SessionDamaged:
                records.append(None)
        whole = _made_valid([record.to_message() if record else None for record in records])
        if len(whole) == len(records):
            changed = [i for i, record in enumerate(records) if record is None or record.to_message() != whole[i]]
        else:
            changed = list(range(len(whole)))  # Something was put in between, and all behind it has another number.
        for index in changed:
            path = directory / f"message_{index}.json"
            self._set_aside(path)
        for index in changed:
            path = directory / f"message_{index}.json"
            durable.write_text(
                path,
                json.dumps(SessionMessage.from_message(whole[index], index).to_dict(), indent=2, ensure_ascii=False),
                sync=self._sync,
            )
            self._restored(path)

    def _agent_file(self, history: History, path: Path, *, wanted: bool) -> None:
        from strands.session.file_session_manager import FileSessionManager
        from strands.types.session import SessionAgent

        try:
            if history.conversation() is not None or not wanted:
                return
        except SessionDamaged:
            if not wanted:
                self._set_aside(path)
                return
        state = _object(path).get("state")
        self._set_aside(path)
        agent = SessionAgent(
            agent_id=history.agent_id,
            state=cast("dict[str, Any]", state) if isinstance(state, dict) else {},
            conversation_manager_state=NOTHING_REMOVED,
        )
        with self._beside() as beside:
            manager = FileSessionManager(self._session_id, storage_dir=str(beside))
            manager.create_agent(self._session_id, agent)
            os.replace(beside / path.relative_to(self._layout.root), path)
        self._restored(path)

    def _set_aside(self, path: Path) -> None:
        """Moves a file, link or directory away, under a name that nothing has."""
        if not os.path.lexists(path):
            return
        name = path.relative_to(self._layout.root)
        below = self._layout.set_aside(self._session_id)
        number = 0
        while os.path.lexists(to := below / f"{number}" / name):
            number += 1
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.rename(path, to)
        if self._sync:
            durable.sync_directory(to.parent)
        self._done.aside.append((name.as_posix(), to.relative_to(self._layout.root).as_posix()))

    @contextmanager
    def _beside(self) -> Generator[Path]:
        """A directory in which Strands makes a file that is then moved to its place."""
        path = self._layout.root / f"{NEW_PREFIX}{secrets.token_hex(8)}"
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _restored(self, path: Path) -> None:
        self._done.restored.append(path.relative_to(self._layout.root).as_posix())


def _object(path: Path) -> dict[str, Any]:
    """What a file still tells; nothing where it is no JSON object."""
    try:
        value: object = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _made_valid(messages: list[StrandsMessage | None]) -> list[StrandsMessage]:
    """Messages that a model accepts, as far as they are there: notes stand for what is lost."""
    whole: list[StrandsMessage] = []
    for message in messages:
        role = "assistant" if len(whole) % 2 else "user"
        if message is None or message["role"] != role:
            whole.append({"role": role, "content": _answers(whole, [])})
        if message is not None:
            whole.append({**message, "content": _answers(whole, message["content"])})
    return whole


def _answers(before: list[StrandsMessage], content: list[ContentBlock]) -> list[ContentBlock]:
    """The content of the next message: a result for each use of a tool in the one before, and for no other."""
    last = before[-1]["content"] if before and before[-1]["role"] == "assistant" else []
    used = [block["toolUse"]["toolUseId"] for block in last if "toolUse" in block]
    given = {block["toolResult"]["toolUseId"] for block in content if "toolResult" in block}
    kept = [block for block in content if "toolResult" not in block or block["toolResult"]["toolUseId"] in used]
    lacking: list[ContentBlock] = [
        {"toolResult": {"toolUseId": use, "status": "error", "content": [{"text": _NO_RESULT}]}}
        for use in used
        if use not in given
    ]
    return [*lacking, *kept] or [{"text": LOST}]
