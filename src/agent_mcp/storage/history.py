"""The conversation of one session, as Strands' FileSessionManager keeps it: read, checked, mended, made durable."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import TypeAdapter, ValidationError

from agent_mcp.domain import AgentId, Message, SessionId, Timestamp, ToolCall
from agent_mcp.errors import SessionDamaged
from agent_mcp.late import load_strands
from agent_mcp.storage import durable
from agent_mcp.storage.layout import Layout, message_index
from agent_mcp.storage.shapes import check_agent

if TYPE_CHECKING:
    # Importing Strands takes half a second: only calls that need it pay.
    from strands.types.content import ContentBlock, Message as StrandsMessage
    from strands.types.session import SessionMessage

    from agent_mcp.storage.fenced import FencedSessionManager

OWN_STATE = "agent_mcp"
"""The part of the conversation manager's state that a plain Strands program doesn't know."""
# The state of a conversation manager that has left nothing out, in the shape of Strands' default one.
NOTHING_REMOVED = {
    "__name__": "SlidingWindowConversationManager",
    "removed_message_count": 0,
    "model_call_count": 0,
}
_TIMESTAMP: TypeAdapter[Any] = TypeAdapter(Timestamp)
# What the system says of a file that can't be read now nor later, whoever made it so.
UNUSABLE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
# What Strands raises, by kind of damage, when it reads a file that it did not write.
UNREADABLE = (TypeError, AttributeError, KeyError, ValueError)


def damaged(session_id: SessionId, path: Path) -> SessionDamaged:
    """The error for a file of a session that can't be read."""
    return SessionDamaged(
        f"The session {session_id!r} can't be read: {path.parent.name}/{path.name} is missing or damaged. "
        f"Nothing was changed and other sessions are not affected. `agent-mcp sessions repair {session_id}` sets "
        "damaged files aside and restores what can be; start_session begins another session."
    )


class History:
    """The messages of one session. Its methods read and write files: call them off the event loops."""

    def __init__(self, layout: Layout, session_id: SessionId, agent_id: AgentId, *, sync: bool) -> None:
        self._layout = layout
        self._sync = sync
        self.session_id = session_id
        self.agent_id = agent_id

    def manager(self) -> FencedSessionManager:
        """Strands' session manager for this session; raises SessionDamaged where it would fail or overwrite."""
        load_strands()
        from agent_mcp.storage.fenced import FencedSessionManager

        self.check_files()
        self.count()
        try:
            return FencedSessionManager(self.session_id, storage_dir=str(self._layout.root))
        except UNREADABLE:
            raise damaged(self.session_id, self._session_file) from None

    def check_files(self) -> None:
        """Raises SessionDamaged where what Strands keeps beside the messages can't be read."""
        if not {"session_id", "session_type"} <= self._object(self._session_file).keys():
            raise damaged(self.session_id, self._session_file)
        messages = self._layout.messages(self.session_id, self.agent_id)
        for place in (messages.parent.parent, messages.parent, messages):
            if place.is_symlink():
                raise damaged(self.session_id, place)  # What is said would be kept elsewhere.
        if self._agent() is not None and not messages.is_dir():
            raise damaged(self.session_id, messages)

    def count(self) -> int:
        """How many messages there are; raises SessionDamaged where one is missing in the middle."""
        directory = self._layout.messages(self.session_id, self.agent_id)
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            return 0
        except UNUSABLE:
            raise damaged(self.session_id, directory) from None
        indices = [message_index(name) for name in names if name.startswith("message_") and name.endswith(".json")]
        known = {index for index in indices if index is not None}
        if len(known) != len(indices):
            raise damaged(self.session_id, next(directory / n for n in names if message_index(n) is None))
        for index in range(len(known)):
            if index not in known:
                raise damaged(self.session_id, self._message(index))
        if known and not self._agent_file.is_file():
            raise damaged(self.session_id, self._agent_file)
        return len(known)

    def read(self, *, offset: int = 0, limit: int | None = None) -> list[Message]:
        """The messages from index `offset` on, at most `limit`; raises SessionDamaged naming the file."""
        count = self.count()
        end = count if limit is None else min(count, offset + limit)
        try:
            # One more, for how the tools that are used in the last of them ended.
            records = [self.load(index) for index in range(offset, min(end + 1, count))]
        except SessionDamaged:
            if self.count() < count:
                return self.read(offset=offset, limit=limit)  # A prompt was withdrawn while we read.
            raise
        ends = _tool_ends(records)
        return [_shown(index, record, ends) for index, record in zip(range(offset, end), records, strict=False)]

    def prompts(self) -> list[str]:
        """All that was asked, in order: as many as there are turns. Reads every message; raises SessionDamaged."""
        return [message.text for message in self.read() if message.role == "user"]

    def last(self) -> StrandsMessage | None:
        """The last message as Strands has it, or None."""
        count = self.count()
        return self.load(count - 1).to_message() if count else None

    def append(self, role: Literal["user", "assistant"], content: list[ContentBlock]) -> None:
        """Adds a message through Strands' own repository."""
        load_strands()
        from strands.types.session import SessionMessage

        message: StrandsMessage = {"role": role, "content": content}
        self.manager().create_message(
            self.session_id, self.agent_id, SessionMessage.from_message(message, self.count())
        )

    def drop_last(self) -> None:
        """Removes the last message. Strands' repository has no call for this, hence the file."""
        self._message(self.count() - 1).unlink()

    def conversation(self) -> dict[str, Any] | None:
        """The stored state of Strands' conversation manager, None before the first turn; raises SessionDamaged."""
        agent = self._agent()
        return agent["conversation_manager_state"] if agent is not None else None

    def restore_conversation(self, state: dict[str, Any]) -> None:
        """Puts the conversation manager's state back, through Strands' own repository."""
        manager = self.manager()
        agent = manager.read_agent(self.session_id, self.agent_id)
        if agent is not None:
            agent.conversation_manager_state = state
            manager.update_agent(self.session_id, agent)

    def is_interrupted(self) -> bool:
        """Whether Strands waits for somebody's input in this session."""
        agent = self._agent() or {}
        return bool(agent.get("_internal_state", {}).get("interrupt_state", {}).get("activated"))

    def clear_interrupts(self) -> None:
        """Makes Strands wait for nobody any more: it would refuse every plain prompt."""
        manager = self.manager()
        agent = manager.read_agent(self.session_id, self.agent_id)
        if agent is not None:
            # The one place in Strands where this can be said; test_settle fails when it moves.
            agent._internal_state.pop("interrupt_state", None)  # pyright: ignore[reportPrivateUsage]
            manager.update_agent(self.session_id, agent)

    def copy_into(self, other: History, *, count: int, whole: bool) -> None:
        """Begins the empty session `other` with the first `count` messages; with `whole` summary and state come along.

        `other` may have another agent. Interrupts that are pending are left behind.
        """
        from strands.types.session import SessionAgent

        source = self.manager().read_agent(self.session_id, self.agent_id)
        if source is None:
            return
        agent = SessionAgent(
            agent_id=other.agent_id,
            state=source.state if whole else {},
            conversation_manager_state=source.conversation_manager_state if whole else NOTHING_REMOVED,
        )
        manager = other.manager()
        manager.create_agent(other.session_id, agent)
        for index in range(count):
            manager.create_message(other.session_id, other.agent_id, self.load(index))

    def make_durable(self, *, since: int) -> None:
        """Waits until the messages from index `since` on, the agent's state and their names are on disk."""
        if not self._sync or not self._agent_file.exists():
            return
        durable.sync_files([*(self._message(i) for i in range(since, self.count())), self._agent_file])
        messages = self._layout.messages(self.session_id, self.agent_id)
        for directory in (
            messages,
            messages.parent,
            messages.parent.parent,
            self._layout.session(self.session_id),
        ):
            durable.sync_directory(directory)

    def find_damage(self) -> SessionDamaged | None:
        """The first file of the session that can't be read, as the error to raise; None if all can."""
        try:
            self.manager()
            self.read()
        except SessionDamaged as error:
            return error
        return None

    @property
    def _session_file(self) -> Path:
        return self._layout.session(self.session_id) / "session.json"

    @property
    def _agent_file(self) -> Path:
        return self._layout.history(self.session_id, self.agent_id) / "agent.json"

    def _agent(self) -> dict[str, Any] | None:
        """What is kept of the agent, None before the first turn; raises SessionDamaged."""
        if not self._agent_file.exists():
            return None
        agent = self._object(self._agent_file)
        try:
            check_agent(agent, own_state=OWN_STATE)
        except UNREADABLE:
            raise damaged(self.session_id, self._agent_file) from None
        return agent

    def _message(self, index: int) -> Path:
        return self._layout.message(self.session_id, self.agent_id, index)

    def _object(self, path: Path) -> dict[str, Any]:
        try:
            if path.is_symlink():
                raise ValueError("a link")
            value: object = json.loads(path.read_bytes())
        except (*UNUSABLE, ValueError, RecursionError):
            raise damaged(self.session_id, path) from None
        if not isinstance(value, dict):
            raise damaged(self.session_id, path)
        return cast("dict[str, Any]", value)

    def load(self, index: int) -> SessionMessage:
        """A message as Strands keeps it; raises SessionDamaged naming its file."""
        load_strands()
        from agent_mcp.storage.fenced import read_message

        path = self._message(index)
        try:
            return read_message(path)
        except (FileNotFoundError, *UNREADABLE):
            raise damaged(self.session_id, path) from None


def _tool_ends(records: list[SessionMessage]) -> dict[str, Literal["success", "error"]]:
    """How each use of a tool ended, by its id."""
    ends: dict[str, Literal["success", "error"]] = {}
    for record in records:
        for block in record.to_message()["content"]:
            if "toolResult" in block:
                result = block["toolResult"]
                ends[result["toolUseId"]] = "error" if result.get("status") == "error" else "success"
    return ends


def _shown(index: int, record: SessionMessage, ends: Mapping[str, Literal["success", "error"]]) -> Message:
    """A message of the transcript: the text that people read, and the tools by name."""
    message = record.to_message()
    calls: list[ToolCall] = []
    results = False
    texts: list[str] = []
    for block in message["content"]:
        if "toolUse" in block:
            use = block["toolUse"]
            given: object = use.get("input")
            arguments = cast("dict[str, Any]", given) if isinstance(given, dict) else {"input": given}
            calls.append(ToolCall(name=use["name"], arguments=arguments, status=ends.get(use["toolUseId"])))
        elif "toolResult" in block:
            results = True
            texts.extend(_result_text(item) for item in block["toolResult"].get("content", []))
        elif "text" in block:
            texts.append(block["text"])
        elif "citationsContent" in block:
            texts.extend(part.get("text", "") for part in block["citationsContent"].get("content", []))
        elif "image" in block or "document" in block or "video" in block:
            texts.append(f"[{next(iter(block))}]")
    return Message(
        index=index,
        role="tool" if results else message["role"],
        text="\n".join(text for text in texts if text),
        tool_calls=tuple(calls),
        created_at=_time(record.created_at),
    )


def _result_text(item: Any) -> str:
    if "text" in item:
        return str(item["text"])
    return json.dumps(item["json"], ensure_ascii=False) if "json" in item else f"[{next(iter(item), 'nothing')}]"


def _time(text: str) -> Any:
    try:
        return _TIMESTAMP.validate_python(text)
    except ValidationError:
        return None
