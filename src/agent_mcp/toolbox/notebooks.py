"""The notebooks of a session, which are bounded together: Strands bounds each, and neither their number nor names."""

from __future__ import annotations

from typing import Any, cast

from strands.types._events import ToolResultEvent
from strands.types.tools import ToolGenerator, ToolUse

from agent_mcp.contained import ContainedTool

MOST_BYTES = 256 * 1024
"""Of all notebooks with their names. They are state of the agent, which is written anew with every message."""
_KEY = "notebooks"
"""Where Strands' tool keeps them."""


class BoundedNotebooks(ContainedTool):
    """Takes back what makes the notebooks too large. Strands' tool does its work in one step of the loop, so nothing
    else is taken back with it."""

    async def stream(self, tool_use: ToolUse, invocation_state: dict[str, Any], **kwargs: Any) -> ToolGenerator:
        state = invocation_state["agent"].state
        before: Any = state.get(_KEY)
        async for event in super().stream(tool_use, invocation_state, **kwargs):
            size = _size(state.get(_KEY))
            if isinstance(event, ToolResultEvent) and size > max(MOST_BYTES, _size(before)):
                state.set(_KEY, before or {})
                text = (
                    f"The notebooks would have {size} bytes together, and at most {MOST_BYTES} are kept: nothing was "
                    "written. Clear or shorten one first."
                )
                yield ToolResultEvent(
                    {"toolUseId": tool_use["toolUseId"], "status": "error", "content": [{"text": text}]}
                )
            else:
                yield event


def _size(notebooks: Any) -> int:
    if not isinstance(notebooks, dict):
        return 0
    return sum(
        len(f"{name}{text}".encode(errors="replace")) for name, text in cast("dict[Any, Any]", notebooks).items()
    )
