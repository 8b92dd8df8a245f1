"""Tools by name: which ones an agent may be given, and the objects behind the names.

A name is looked up in a list. It is never handed to Strands, which would load code by it.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from agent_mcp.errors import ToolNotAllowed
from agent_mcp.strands_import import import_strands

if TYPE_CHECKING:
    from strands.types.tools import AgentTool

logger = logging.getLogger(__name__)

Search = Callable[[str], str]
"""Searches the whole transcript of the agent's session: query in, text for the model out."""


class Toolbox:
    """The tools that the operator allows. `modules` are Python modules of the operator with `@tool` functions."""

    def __init__(self, *, modules: Sequence[str] = ()) -> None:
        self._modules = tuple(modules)
        self._operator: dict[str, AgentTool] | None = None
        self.warnings: list[str] = []

    def names(self) -> list[str]:
        """Every name that an agent may be given. Blocking at first: imports the operator's modules."""
        return sorted([*_SAFE, *self._operator_tools()])

    def check(self, names: Iterable[str]) -> None:
        """Raises ToolNotAllowed, with the allowed names, for the first name that isn't one."""
        allowed = self.names()
        for name in names:
            if name not in allowed:
                near = difflib.get_close_matches(name, allowed, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ToolNotAllowed(
                    f"The tool {name[:100]!r} is unknown or not allowed.{hint} Allowed: {', '.join(allowed)}. "
                    "The operator can add tools with AGENT_MCP_TOOLS."
                )

    def build(self, names: Iterable[str], *, search: Search) -> list[AgentTool]:
        """The tools for one agent in one session: the named ones that are (still) allowed, and `search_session`."""
        operator = self._operator_tools()
        wanted = dict.fromkeys([*names, "search_session"])
        built: list[AgentTool] = []
        for name in wanted:
            if name in _SAFE:
                built.append(_SAFE[name](search))
            elif name in operator:
                built.append(operator[name])
        return built

    def _operator_tools(self) -> Mapping[str, AgentTool]:
        if self._operator is None:
            found: dict[str, AgentTool] = {}
            for module in self._modules:
                found.update(self._import(module))
            self._operator = found
        return self._operator

    def _import(self, module: str) -> dict[str, AgentTool]:
        import_strands()
        from strands.types.tools import AgentTool

        from agent_mcp.contained import ContainedTool

        try:
            values = vars(importlib.import_module(module)).values()
        except Exception as error:  # The operator's code may raise anything; the server goes on without it.
            logger.exception("module %r of AGENT_MCP_TOOLS can't be imported", module)
            self.warnings.append(f"AGENT_MCP_TOOLS: {module} can't be imported ({type(error).__name__}: {error})")
            return {}
        tools: dict[str, AgentTool] = {
            f"py:{value.tool_name}": ContainedTool(value) for value in values if isinstance(value, AgentTool)
        }
        if not tools:
            self.warnings.append(f"AGENT_MCP_TOOLS: {module} has no function with Strands' @tool")
        return tools


def _calculator(_: Search) -> AgentTool:
    from simpleeval import EvalWithCompoundTypes  # pyright: ignore[reportMissingTypeStubs] has none
    from strands import tool  # pyright: ignore[reportUnknownVariableType] a parameter of it is a bare dict

    functions = {name: value for name, value in vars(math).items() if callable(value) and not name.startswith("_")}
    # These take time or memory without bound for small inputs.
    bounded = {k: v for k, v in functions.items() if k not in ("factorial", "comb", "perm", "lcm", "prod", "ldexp")}

    @tool
    def calculator(expression: str) -> str:
        """Evaluate an arithmetic expression exactly as Python would.

        Args:
            expression: For example "3 * (4 + 5) ** 2" or "sqrt(2) / pi". Functions of Python's math are there.
        """
        evaluator = EvalWithCompoundTypes(
            functions={**bounded, "abs": abs, "round": round, "min": min, "max": max, "sum": sum},
            names={"pi": math.pi, "e": math.e, "tau": math.tau, "inf": math.inf},
        )
        return str(evaluator.eval(expression))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]

    return calculator


def _current_time(_: Search) -> AgentTool:
    from strands import tool  # pyright: ignore[reportUnknownVariableType] a parameter of it is a bare dict

    @tool
    def current_time(timezone: str = "UTC") -> str:
        """The current date and time in ISO 8601.

        Args:
            timezone: A name of the IANA database such as "Europe/Berlin".
        """
        return datetime.now(ZoneInfo(timezone)).isoformat(timespec="seconds")

    return current_time


def _search_session(search: Search) -> AgentTool:
    from strands import tool  # pyright: ignore[reportUnknownVariableType] a parameter of it is a bare dict

    @tool
    def search_session(query: str) -> str:
        """Search everything that was ever said in this conversation, also what you no longer see.

        Use it when the user refers to something that is not in the messages before you.

        Args:
            query: Words to look for; all must occur in a message.
        """
        return search(query)

    return search_session


_SAFE: Mapping[str, Callable[[Search], AgentTool]] = {
    "calculator": _calculator,
    "current_time": _current_time,
    "search_session": _search_session,
}
