"""Settling: after any failure, cancel or kill the history is one that a model accepts, with roles that alternate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_mcp.storage.history import OWN_STATE, History

if TYPE_CHECKING:
    from strands.types.content import ContentBlock, Message as StrandsMessage

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
    from before the turn: it is put back where the state that is stored leaves none of the messages that there are now.
    Each step leaves a history that the next call goes on from, so that being killed in here is harmless.
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
    if state is None or _fits(state, count):
        return False
    # Without a state to go back to nothing is left out, and summed up anew where that is needed.
    whole = {key: value for key, value in state.items() if key != OWN_STATE} | {"removed_message_count": 0}
    history.restore_conversation(saved if saved is not None and _fits(saved, count) else whole)
    return True


def _fits(state: dict[str, Any], count: int) -> bool:
    """Whether the state leaves at least one of `count` messages.

    Strands numbers the next message behind the last one that it has loaded: where a state counts them all as removed it
    loads none, begins again with 0, and overwrites what was said first.
    """
    removed = [part.get("removed_message_count", 0) for part in (state, state.get(OWN_STATE, {}))]
    return max(removed) < count or not any(removed)


def _joined(partial: str, note: str) -> str:
    return f"{partial.rstrip()}\n\n{note}" if partial.strip() else note


def _tool_uses(message: StrandsMessage) -> list[str]:
    return [block["toolUse"]["toolUseId"] for block in message["content"] if "toolUse" in block]


def _error_result(tool_use_id: str, note: str) -> ContentBlock:
    return {"toolResult": {"toolUseId": tool_use_id, "status": "error", "content": [{"text": note}]}}
