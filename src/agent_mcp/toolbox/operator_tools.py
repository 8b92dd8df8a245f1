"""The operator's own tools: functions with Strands' `@tool` in modules that AGENT_MCP_TOOLS names."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from agent_mcp.late import load_strands

if TYPE_CHECKING:
    from strands.types.tools import AgentTool

logger = logging.getLogger(__name__)


class OperatorTools:
    """The tools `py:<name>`. The name is the tool's own, so it may be none that a model knows another tool by:
    `reserved` are such names, `made` how others begin."""

    def __init__(self, modules: Sequence[str], *, reserved: Collection[str], made: tuple[str, ...]) -> None:
        self._modules = tuple(modules)
        self._reserved = frozenset(reserved)
        self._made = made
        self._tools: dict[str, AgentTool] | None = None
        self._importing = threading.Lock()
        self.warnings: list[str] = []

    def tools(self) -> Mapping[str, AgentTool]:
        """The tools by name. Blocking at first: imports the modules."""
        with self._importing:  # one thread imports, for its warnings are kept once
            if self._tools is None:
                found: dict[str, AgentTool] = {}
                for module in self._modules:
                    for name, tool in self._import(module).items():
                        if name in found:
                            self.warnings.append(f"AGENT_MCP_TOOLS: {module} has a second {name}, which is left out")
                        found.setdefault(name, tool)
                self._tools = found
            return self._tools

    def _import(self, module: str) -> dict[str, AgentTool]:
        load_strands()
        from strands.types.tools import AgentTool

        from agent_mcp.contained import ContainedTool

        try:
            values = vars(importlib.import_module(module)).values()
        except (Exception, SystemExit) as error:  # The operator's code may do anything; the server goes on without it.
            logger.exception("module %r of AGENT_MCP_TOOLS can't be imported", module)
            self.warnings.append(f"AGENT_MCP_TOOLS: {module} can't be imported ({type(error).__name__}: {error})")
            return {}
        tools: dict[str, AgentTool] = {}
        for value in values:
            if not isinstance(value, AgentTool):
                continue
            name = value.tool_name
            if name in self._reserved or name.startswith(self._made):
                self.warnings.append(
                    f"AGENT_MCP_TOOLS: {module} has a tool {name!r}, and models know another one by that name: it is "
                    "left out until it is renamed"
                )
            else:
                tools[f"py:{name}"] = ContainedTool(value)
        if not tools:
            self.warnings.append(f"AGENT_MCP_TOOLS: {module} has no function with Strands' @tool")
        return tools
