"""Tools by name: which ones an agent may be given, and the objects behind the names.

A name is looked up in a list. It is never handed to Strands, which would load code by it.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, cast
from zoneinfo import ZoneInfo

from agent_mcp.domain import AgentId
from agent_mcp.errors import InvalidArgument, ToolNotAllowed
from agent_mcp.late import load_strands

if TYPE_CHECKING:
    from strands.types.tools import AgentTool

logger = logging.getLogger(__name__)

AGENT_PREFIX = "agent:"
"""An agent as a tool: `agent:<agent_id>`."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What tools work with in one turn.

    `search` looks through the whole transcript of the session, `ask` asks another agent on behalf of this one and
    returns its answer, `describe` says what another agent is for. `may_interrupt` is whether there is somebody to turn
    to: an agent that is called as a tool has nobody. `workspace` makes the session's directory for files.
    """

    search: Callable[[str], str]
    ask: Callable[[AgentId, str], Awaitable[str]]
    describe: Callable[[AgentId], str]
    workspace: Callable[[], str]
    may_interrupt: bool


def reads_outside(tool_name: str) -> bool:
    """Whether a tool, by the name that the model uses, brings in what others wrote: the web, servers, other agents."""
    return tool_name.startswith(("web_", "mcp", "agent_"))


class Toolbox:
    """The tools that the operator allows.

    `modules` are Python modules of the operator with `@tool` functions, `allowed` the names of tools beyond the safe
    ones, `unapproved` those of them that need no person's yes.
    """

    def __init__(
        self, *, modules: Sequence[str] = (), allowed: Sequence[str] = (), unapproved: Sequence[str] = ()
    ) -> None:
        self._modules = tuple(modules)
        self._allowed = tuple(name for name in allowed if name in _ON_REQUEST)
        self._unapproved = frozenset(unapproved)
        self._operator: dict[str, AgentTool] | None = None
        self._importing = threading.Lock()
        self.warnings: list[str] = [
            f"AGENT_MCP_ALLOW_TOOLS: there is no tool {name!r} (there are: {', '.join(_ON_REQUEST)})"
            for name in allowed
            if name not in _ON_REQUEST
        ]

    def names(self) -> list[str]:
        """Every name that an agent may be given. Blocking at first: imports the operator's modules."""
        return sorted([*_SAFE, *self._allowed, *self._operator_tools()])

    def needs_approval(self) -> frozenset[str]:
        """The tools, by the name that the model uses, whose every use a person must allow."""
        return frozenset(self._allowed) - self._unapproved

    def is_allowed(self, name: str, *, agents: Collection[AgentId]) -> bool:
        """Whether an agent may be given this tool, where `agents` are the agents that there are."""
        if name.startswith(AGENT_PREFIX):
            return name.removeprefix(AGENT_PREFIX) in agents
        return name in self.names()

    def check(self, names: Iterable[str], *, agents: Collection[AgentId]) -> None:
        """Raises ToolNotAllowed, with the allowed names, for the first name that isn't one."""
        for name in names:
            if self.is_allowed(name, agents=agents):
                continue
            allowed = [*self.names(), *(f"{AGENT_PREFIX}{agent_id}" for agent_id in sorted(agents))]
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ToolNotAllowed(
                f"The tool {name[:100]!r} is unknown or not allowed.{hint} Allowed: {', '.join(allowed[:100])}. "
                "The operator can allow more with AGENT_MCP_ALLOW_TOOLS and AGENT_MCP_TOOLS."
            )

    def build(self, names: Iterable[str], bench: Bench) -> list[AgentTool]:
        """The tools for one agent in one turn: the named ones that are (still) allowed, and `search_session`."""
        operator = self._operator_tools()
        built: list[AgentTool] = []
        for name in dict.fromkeys([*names, "search_session"]):
            if name in _SAFE and (bench.may_interrupt or name != "handoff_to_user"):
                built.append(_SAFE[name](bench))
            elif name in self._allowed:
                built.append(_ON_REQUEST[name](bench))
            elif name in operator:
                built.append(operator[name])
            elif name.startswith(AGENT_PREFIX):
                built.append(_agent(AgentId(name.removeprefix(AGENT_PREFIX)), bench))
        return built

    def needs_sandbox(self, names: Iterable[str]) -> bool:
        """Whether one of these tools runs code or writes files."""
        return any(name in self._allowed for name in names)

    def _operator_tools(self) -> Mapping[str, AgentTool]:
        with self._importing:  # one thread imports, for its warnings are kept once
            if self._operator is None:
                found: dict[str, AgentTool] = {}
                for module in self._modules:
                    found.update(self._import(module))
                self._operator = found
            return self._operator

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
        tools: dict[str, AgentTool] = {
            f"py:{value.tool_name}": ContainedTool(value) for value in values if isinstance(value, AgentTool)
        }
        if not tools:
            self.warnings.append(f"AGENT_MCP_TOOLS: {module} has no function with Strands' @tool")
        return tools


def check_circles(agent_id: AgentId, tools: Iterable[str], tools_of: Callable[[AgentId], Iterable[str]]) -> None:
    """Raises InvalidArgument if an agent with these tools would come to ask itself, by whatever way round."""
    seen: set[AgentId] = set()
    ways: list[tuple[AgentId, ...]] = [(agent_id, called) for called in _called(tools)]
    while ways:
        way = ways.pop()
        if way[-1] == agent_id:
            raise InvalidArgument(
                f"These tools make a circle, in which agents would ask each other for ever: {' > '.join(way)}. "
                "Leave one of them out."
            )
        if way[-1] not in seen:
            seen.add(way[-1])
            ways.extend((*way, called) for called in _called(tools_of(way[-1])))


def _called(tools: Iterable[str]) -> list[AgentId]:
    return [AgentId(name.removeprefix(AGENT_PREFIX)) for name in tools if name.startswith(AGENT_PREFIX)]


def _calculator(_: Bench) -> AgentTool:
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


def _current_time(_: Bench) -> AgentTool:
    from strands import tool  # pyright: ignore[reportUnknownVariableType] a parameter of it is a bare dict

    @tool
    def current_time(timezone: str = "UTC") -> str:
        """The current date and time in ISO 8601.

        Args:
            timezone: A name of the IANA database such as "Europe/Berlin".
        """
        return datetime.now(ZoneInfo(timezone)).isoformat(timespec="seconds")

    return current_time


def _search_session(bench: Bench) -> AgentTool:
    from strands import tool  # pyright: ignore[reportUnknownVariableType] a parameter of it is a bare dict

    @tool
    def search_session(query: str) -> str:
        """Search everything that was ever said in this conversation, also what you no longer see.

        Use it when the user refers to something that is not in the messages before you.

        Args:
            query: Words to look for; all must occur in a message.
        """
        return bench.search(query)

    return search_session


def _vended(name: str) -> Callable[[Bench], AgentTool]:
    """One of the tools that come with Strands. `name` is from the tables below, never a caller's."""

    def build(_: Bench) -> AgentTool:
        return cast("AgentTool", getattr(importlib.import_module(f"strands.vended_tools.{name}"), name))

    return build


def tool_name(agent_id: AgentId) -> str:
    """The name under which a model calls an agent: providers allow 64 characters."""
    name = f"agent_{agent_id}"
    return name if len(name) <= 64 else f"{name[:55]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _agent(agent_id: AgentId, bench: Bench) -> AgentTool:
    from strands import tool  # pyright: ignore[reportUnknownVariableType] a parameter of it is a bare dict

    description = (
        f"Ask the agent {agent_id} and get its answer. It sees only what you write, and remembers what you asked it "
        f"before in this conversation. {bench.describe(agent_id)}".strip()
    )

    @tool(name=tool_name(agent_id), description=description)
    async def ask(prompt: str) -> str:
        return await bench.ask(agent_id, prompt)

    return ask


_SAFE: Mapping[str, Callable[[Bench], AgentTool]] = {
    "calculator": _calculator,
    "current_time": _current_time,
    "handoff_to_user": _vended("handoff_to_user"),
    "search_session": _search_session,
    "stop": _vended("stop"),
}
_ON_REQUEST: Mapping[str, Callable[[Bench], AgentTool]] = {"shell": _vended("shell")}
