"""A tool of an MCP server, as agents use it."""

from __future__ import annotations

import asyncio
from typing import Any

from strands.tools.mcp.mcp_agent_tool import MCPAgentTool
from strands.types._events import ToolResultEvent
from strands.types.tools import AgentTool, ToolGenerator, ToolResult, ToolSpec, ToolUse

from agent_mcp.contained import bounded
from agent_mcp.toolbox.mcp_servers import McpServer, McpServers, Unreachable, model_name
from agent_mcp.toolbox.server_file import ServerEntry

_SECONDS = 600.0
"""How long one use may take. The turn has its own limit."""


def build_server_tools(servers: McpServers, name: str, subject: str) -> list[tuple[AgentTool, bool]]:
    """The tools that a name means, each with whether a person must allow its use. Blocking: may connect.

    A server that can't be reached gives one tool, which says so.
    """
    found = servers.find(name, subject)
    if found is None:
        return []
    server, tool = found
    try:
        tools = server.link().tools
    except Unreachable as error:
        return [(AbsentServerTool(server, str(error)), False)]
    chosen = [tools[tool]] if tool in tools else [] if tool else list(tools.values())
    return [(ServerTool(server, each), _needs_approval(server.entry, each.tool_spec)) for each in chosen]


def _needs_approval(entry: ServerEntry, spec: ToolSpec) -> bool:
    if entry.approve != "writes":
        return entry.approve == "always"
    return "annotations" not in spec or spec["annotations"].get("readOnlyHint") is not True


class ServerTool(AgentTool):
    """Uses a tool over the connection that its server has now, which is made anew where it is gone."""

    def __init__(self, server: McpServer, tool: MCPAgentTool) -> None:
        super().__init__()
        self._server = server
        self._own_name: str = tool.mcp_tool.name
        # Without the schema of its output, which not every provider takes, and which costs tokens.
        self._spec: ToolSpec = {
            "name": model_name(server.name, self._own_name),
            "description": tool.tool_spec["description"],
            "inputSchema": tool.tool_spec["inputSchema"],
        }

    @property
    def tool_name(self) -> str:
        return self._spec["name"]

    @property
    def tool_spec(self) -> ToolSpec:
        return self._spec

    @property
    def tool_type(self) -> str:
        return "mcp"

    async def stream(self, tool_use: ToolUse, invocation_state: dict[str, Any], **kwargs: Any) -> ToolGenerator:
        yield ToolResultEvent(await self._use(tool_use))

    async def _use(self, tool_use: ToolUse) -> ToolResult:
        server, use_id = self._server, tool_use["toolUseId"]
        try:
            link = server.alive or await asyncio.to_thread(server.link)
        except Unreachable as error:
            return failed(use_id, f"The MCP server {server.name} is not reached: {error}. The tool was not run.")
        try:
            result = await link.call(self._own_name, tool_use["input"], use_id=use_id, seconds=_SECONDS)
        except Exception as error:  # of a connection that ended in between: Strands raises what it likes
            result = failed(use_id, str(error) or type(error).__name__)
        if result["status"] == "error" and not link.is_alive:
            return failed(
                use_id,
                f"The MCP server {server.name} ended while the tool {self._own_name} ran, and whether it took effect "
                "is not known. The server is started again when one of its tools is next used.",
            )
        return _bounded(result)


class AbsentServerTool(AgentTool):
    """Stands for the tools of a server that can't be reached, so that the model can say what is wrong."""

    def __init__(self, server: McpServer, reason: str) -> None:
        super().__init__()
        self._server = server
        self._reason = reason

    @property
    def tool_name(self) -> str:
        return model_name(self._server.name)

    @property
    def tool_spec(self) -> ToolSpec:
        return {
            "name": self.tool_name,
            "description": f"The tools of the MCP server {self._server.name} are not there now: {self._reason}. "
            "Use this one to have the server tried again.",
            "inputSchema": {"json": {"type": "object", "properties": {}}},
        }

    @property
    def tool_type(self) -> str:
        return "mcp"

    async def stream(self, tool_use: ToolUse, invocation_state: dict[str, Any], **kwargs: Any) -> ToolGenerator:
        try:
            await asyncio.to_thread(self._server.link)
        except Unreachable as error:
            text = f"The MCP server {self._server.name} is not reached: {error}."
        else:
            text = f"The MCP server {self._server.name} is there again. Its tools can be used from the next prompt on."
        yield ToolResultEvent(failed(tool_use["toolUseId"], text))


def failed(use_id: str, text: str) -> ToolResult:
    return {"toolUseId": use_id, "status": "error", "content": [{"text": text}]}


def _bounded(result: ToolResult) -> ToolResult:
    """A result that a history can hold: never empty, and not longer than a model can read."""
    return {
        "toolUseId": result["toolUseId"],
        "status": result["status"],
        "content": bounded(result["content"]) or [{"text": "(nothing)"}],
    }
