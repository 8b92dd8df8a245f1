"""Settling: after any failure, cancel or kill the history is one that a model accepts, with roles that alternate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_mcp.storage.history import NOTHING_REMOVED, REMOVED, History

if TYPE_CHECKING:
    from strands.types.content import ContentBlock
    from strands.types.content import Message as StrandsMessage

INTERRUPTED = "[This turn was interrupted before it was finished.]"
_TOOL_INTERRUPTED = "Interrupted while the tool was running: whether it took effect is not known."


def settle(
    history: History,
    *,
    note: str = INTERRUPTED,
    tool_note: str = _TOOL_INTERRUPTED,
    partial: str = "",
    saved: dict[str, Any] | None = None,
) -> bool:
    """Closes or withdraws what the last turn left open, and returns whether anything was changed.

    A last prompt that got no text and no tool is withdrawn; one that got `partial` text, or tools, is kept and closed
    with `note`; each use of a tool that has no result gets `tool_note`. `saved` is the conversation manager's state
    from before the turn: it is put back where the state that is stored counts more messages than there are now. Each
    step leaves a history that the next call goes on from, so that being killed in here is harmless.
    """
    changed = False
    while (end := history.last()) is not None:
        if calls := _tool_uses(end):
            history.append("user", [_error_result(call_id, tool_note) for call_id in calls])
        elif end["role"] == "assistant":
            if end["content"]:
                break
            history.drop_last()  # A stream that ended without a word; no provider takes such a message.
        elif partial.strip() or any("toolResult" in block for block in end["content"]):
            history.append("assistant", [{"text": _joined(partial, note)}])
        else:
            history.drop_last()
        changed = True
    if history.is_interrupted():
        history.clear_interrupts()
        changed = True
    return _restore_conversation(history, saved) or changed


def _restore_conversation(history: History, saved: dict[str, Any] | None) -> bool:
    state = history.conversation()
    count = history.count()
    if state is None or max(int(state.get("removed_message_count", 0)), int(state.get(REMOVED, 0))) <= count:
        return False
    history.restore_conversation(saved or {**NOTHING_REMOVED})
    return True


def _joined(partial: str, note: str) -> str:
    return f"{partial.rstrip()}\n\n{note}" if partial.strip() else note


def _tool_uses(message: StrandsMessage) -> list[str]:
    return [block["toolUse"]["toolUseId"] for block in message["content"] if "toolUse" in block]


def _error_result(tool_use_id: str, note: str) -> ContentBlock:
    return {"toolResult": {"toolUseId": tool_use_id, "status": "error", "content": [{"text": note}]}}
