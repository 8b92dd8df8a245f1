"""An operator's tool, held so that nothing it raises can leave its call."""

from __future__ import annotations

import asyncio
from typing import Any

from strands.types._events import ToolResultEvent
from strands.types.tools import AgentTool, ToolGenerator, ToolResult, ToolSpec, ToolUse


class ContainedTool(AgentTool):
    """Makes a failed result of what Strands lets through: `sys.exit`, which would end the loop that all agents run on,
    and a CancelledError that comes from the tool itself, which would leave the call without a result."""

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
