"""A tool, held so that nothing it raises can leave its call, and that what it gives fits into a history."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from strands.types._events import ToolResultEvent
from strands.types.tools import AgentTool, ToolGenerator, ToolResult, ToolSpec, ToolUse

MOST_TEXT = 100_000
"""Characters of one result."""
MOST_MEDIA = 4 * 1024 * 1024
"""Bytes of the images and documents of one result: providers take little more, and they are sent again each time."""
_MEDIA = ("image", "document", "video", "audio")


class ContainedTool(AgentTool):
    """Makes a failed result of what Strands lets through: `sys.exit`, which would end the loop that all agents run on,
    and a CancelledError that comes from the tool itself, which would leave the call without a result. What is too long
    is cut: with it in the history, the turn would fail after the tool had its effect."""

    def __init__(self, tool: AgentTool) -> None:
        super().__init__()
        self._tool = tool

    @property
    def tool_name(self) -> str:
        return self._tool.tool_name

    @property
    def tool_spec(self) -> ToolSpec:
        return self._tool.tool_spec

    @property
    def tool_type(self) -> str:
        return self._tool.tool_type

    async def stream(self, tool_use: ToolUse, invocation_state: dict[str, Any], **kwargs: Any) -> ToolGenerator:
        try:
            async for event in self._tool.stream(tool_use, invocation_state, **kwargs):
                if isinstance(event, ToolResultEvent) and "content" in event.tool_result:
                    event.tool_result["content"] = bounded(event.tool_result["content"])
                yield event
        except (SystemExit, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # It is the turn that is cancelled.
            text = f"Error: the tool stopped with {type(error).__name__}"
            result: ToolResult = {
                "toolUseId": tool_use["toolUseId"],
                "status": "error",
                "content": [{"text": text}],
            }
            yield ToolResultEvent(result)


def bounded(content: Any) -> Any:
    """The pieces of a result, as many as fit, and a note of how much does not. What is no list of pieces stays."""
    if not isinstance(content, list):
        return content
    kept: list[Any] = []
    text, media, left_out = MOST_TEXT, MOST_MEDIA, 0
    for piece in cast("list[Any]", content):
        size = _media_size(piece)
        if size:
            kept.append(piece if size <= media else {"text": f"[an attachment of {size} bytes left out]"})
            media -= size if size <= media else 0
            continue
        words = _words(piece)
        if len(words) <= text:
            kept.append(piece)
        elif text:
            kept.append({"text": words[:text]})
        left_out += max(0, len(words) - text)
        text = max(0, text - len(words))
    return [*kept, {"text": f"[{left_out} characters left out]"}] if left_out else kept


def _words(piece: Any) -> str:
    try:
        return str(_of(piece, "text") or piece)
    except Exception:  # of an operator's object that has no text; what is kept of it is put right later
        return ""


def _media_size(piece: Any) -> int:
    """How many bytes an image or the like has; 0 for another piece."""
    data = next((data for kind in _MEDIA if (data := _of(_of(_of(piece, kind), "source"), "bytes"))), b"")
    return len(data) if isinstance(data, bytes) else 0


def _of(value: Any, key: str) -> Any:
    return cast("dict[str, Any]", value).get(key) if isinstance(value, dict) else None
