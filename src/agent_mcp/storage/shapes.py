"""The shape that everybody who reads a history relies on: what is read is checked for it, what comes brought into it.

A message that lacks it would be sent to the model with every later ask, and refused each time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, cast

from agent_mcp.characters import whole

BLANK = "[no text]"
"""Stands for what a tool returned without a word: models refuse a text without one."""
_MEDIA = ("image", "document", "video")


def check_message(message: Any) -> None:
    """Raises KeyError, TypeError or ValueError where a message can't be shown, or no model takes it."""
    if message["role"] not in ("user", "assistant"):
        raise ValueError("a role of its own")
    _a(str, message.get("tracking_id", ""))
    for block in _a(list, message["content"]):
        if not _a(dict, block):
            raise ValueError("a block of nothing")
        if "text" in block:
            _a(str, block["text"])
        if "toolUse" in block:
            _a(str, block["toolUse"]["name"])
            _a(str, block["toolUse"]["toolUseId"])
        if "toolResult" in block:
            _a(str, block["toolResult"]["toolUseId"])
            _pieces(block["toolResult"]["content"])
        if "citationsContent" in block:
            _pieces(block["citationsContent"].get("content", []))


def check_agent(agent: dict[str, Any], *, own_state: str) -> None:
    """Raises KeyError, TypeError or ValueError where Strands could not restore an agent from what is kept of it.

    `own_state` is the name of our part in the conversation manager's state.
    """
    _a(str, agent["agent_id"])
    _a(dict, agent["state"])
    state = _a(dict, agent["conversation_manager_state"])
    _a(int, state["removed_message_count"])
    ours = _a(dict, state.get(own_state, {}))
    for name in ("removed_message_count", "reduced_before"):
        _a(int, ours.get(name, 0))
    for message in _a(list, ours.get("prefix", [])):
        check_message(message)
    interrupts = _a(dict, _a(dict, agent.get("_internal_state", {})).get("interrupt_state", {}))
    if interrupts:
        _a(bool, interrupts["activated"])
        _a(dict, interrupts["context"])
        for interrupt in _a(dict, interrupts["interrupts"]).values():
            _a(str, _a(dict, interrupt)["id"])


def put_right(message: Any) -> None:
    """Brings a message into shape that comes from a model or a tool, and may hold anything: what JSON can't say becomes
    text, also where a tool's result is none in Strands' sense."""
    message["content"][:] = [_block(block) for block in message["content"]]


def _pieces(content: Any) -> None:
    for piece in _a(list, content):
        _a(str, _a(dict, piece).get("text", ""))


def _a(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} in the place of {kind.__name__}")
    return value


def _block(block: dict[str, Any]) -> dict[str, Any]:
    if "toolUse" in block:
        use = _json(block["toolUse"])
        given = use.get("input")
        return {**block, "toolUse": {**use, "input": given if isinstance(given, dict) else {"input": given}}}
    if "toolResult" in block:
        result = block["toolResult"]
        content = result.get("content")
        items = cast("list[Any]", content if isinstance(content, list) else [content])
        status = "success" if result.get("status") == "success" else "error"
        told = {**_json({**result, "content": None}), "status": status, "content": [_item(item) for item in items]}
        return {**block, "toolResult": told}
    return _strings_whole(block)


def _item(item: Any) -> dict[str, Any]:
    """One piece of what a tool returned."""
    if isinstance(item, dict):
        piece = cast("dict[str, Any]", item)
        if any(_is_media(piece.get(kind)) for kind in _MEDIA):
            return _strings_whole(piece)
        if "json" in piece:
            value = _json(piece["json"])
            return {"json": value} if isinstance(value, dict) else {"text": json.dumps(value, ensure_ascii=False)}
        item = piece.get("text", piece)
    text = whole(item if isinstance(item, str) else str(item))
    return {"text": text if text.strip() else BLANK}


def _is_media(value: Any) -> bool:
    return isinstance(value, dict) and "format" in value and isinstance(cast("Any", value).get("source"), dict)


def _json(value: Any) -> Any:
    """The value as JSON can say it: what it can't becomes text."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, Mapping):
        return {whole(str(key)): _json(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json(item) for item in cast("Any", value)]
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return whole(str(value))


def _strings_whole(value: Any) -> Any:
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, dict):
        return {key: _strings_whole(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list):
        return [_strings_whole(item) for item in cast("list[Any]", value)]
    return value
