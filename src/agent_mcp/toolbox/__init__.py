"""Tools by name: which ones an agent may be given, and the objects behind the names.

A name is looked up in a list. It is never handed to Strands, which would load code by it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_mcp.domain import LOCAL_SUBJECT
from agent_mcp.errors import ToolNotAllowed
from agent_mcp.ids import AgentId
from agent_mcp.late import load_strands
from agent_mcp.toolbox import builtin
from agent_mcp.toolbox.bench import Bench
from agent_mcp.toolbox.delegation import AGENT_PREFIX, agent_tool, check_circles, tool_name, without_circles
from agent_mcp.toolbox.files import Shelf, read_files
from agent_mcp.toolbox.internet import Internet
from agent_mcp.toolbox.mcp_servers import MCP_PREFIX, McpServers
from agent_mcp.toolbox.operator_tools import OperatorTools
from agent_mcp.toolbox.risks import risks
from agent_mcp.toolbox.search import SearchService, web_search
from agent_mcp.toolbox.server_file import read_servers
from agent_mcp.toolbox.web import web_fetch

if TYPE_CHECKING:
    from strands.types.tools import AgentTool

__all__ = [
    "AGENT_PREFIX",
    "Bench",
    "Offer",
    "Toolbox",
    "Tools",
    "check_circles",
    "reads_outside",
    "tool_name",
    "without_circles",
]

_ALWAYS: Mapping[str, builtin.Build] = {
    "calculator": builtin.calculator,
    "current_time": builtin.current_time,
    "handoff_to_user": builtin.vended("handoff_to_user"),
    "notebook": builtin.notebook,
    "search_session": builtin.search_session,
    "stop": builtin.vended("stop"),
}
_RUN_CODE: Mapping[str, builtin.Build] = {
    "file_editor": builtin.file_editor,
    "python_repl": builtin.vended("python_repl"),
    "shell": builtin.vended("shell"),
}
_ON_REQUEST = (*_RUN_CODE, "http_request")
_MEMORY = ("remember", "recall")
"""What an agent is given with its memory."""
_OUTSIDE = ("web_search", "web_fetch", "http_request", "shell", "python_repl")
_MADE = ("agent_", "mcp_")
"""How the names begin that models see for agents and for tools of MCP servers."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A tool that agents may be given, or that they may not, and why."""

    name: str
    allowed: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class Tools:
    """The tools of one agent in one turn. `approve` are those, by the names that the model uses, whose every use a
    person must allow; `run_code` is whether one of them runs code or writes files."""

    tools: Sequence[AgentTool]
    approve: frozenset[str]
    run_code: bool


def reads_outside(tool_name: str) -> bool:
    """Whether a tool, by the name that the model uses (and turn records keep), brings in what others wrote.

    That is the web, MCP servers, whatever runs commands, and other agents, which may have been there. What a turn that
    used one says is not more certain than what stands on the web.
    """
    return tool_name in _OUTSIDE or tool_name.startswith(_MADE)


class Toolbox:
    """The tools that the operator allows.

    `modules` are Python modules of the operator with `@tool` functions, `allowed` the names of tools beyond the safe
    ones, `unapproved` those of them that need no person's yes, `files` the directories that agents may read, `internet`
    what they may see of it, `servers` the file of MCP servers, in which `environ` is filled in.
    """

    def __init__(
        self,
        *,
        modules: Sequence[str] = (),
        allowed: Sequence[str] = (),
        unapproved: Sequence[str] = (),
        files: Sequence[str] = (),
        internet: Internet | None = None,
        servers: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        internet = internet or Internet()
        shelf = Shelf.of(files)
        self._safe = dict(_ALWAYS)
        if shelf.roots:
            self._safe["read_files"] = lambda _: read_files(shelf)
        if internet.is_open:
            self._safe["web_fetch"] = lambda _: web_fetch(internet)
        service = SearchService.choose(environ or {})
        if service.is_within(internet.domains):
            self._safe["web_search"] = lambda _: web_search(service, internet)
        self._on_request: dict[str, builtin.Build] = {
            **_RUN_CODE,
            "http_request": lambda _: builtin.http_request(internet),
        }
        reserved = (*_ALWAYS, *_ON_REQUEST, *_OUTSIDE, *_MEMORY, "read_files")
        self._operator = OperatorTools(modules, reserved=reserved, made=_MADE)
        self._allowed = tuple(name for name in allowed if name in _ON_REQUEST)
        self._unapproved = frozenset(unapproved)
        self._warnings = [
            f"AGENT_MCP_ALLOW_TOOLS: there is no tool {name!r} (there are: {', '.join(_ON_REQUEST)})"
            for name in allowed
            if name not in _ON_REQUEST
        ]
        entries, warnings = read_servers(servers, environ or {}) if servers else ({}, [])
        self._warnings += warnings
        self._servers = McpServers(entries)

    @property
    def warnings(self) -> list[str]:
        """What is wrong with the operator's settings. All is known once `names()` was called."""
        return [*self._warnings, *self._operator.warnings]

    def names(self, *, subject: str = LOCAL_SUBJECT) -> list[str]:
        """Every name that an agent of this subject may be given. Blocking at first: imports the operator's modules."""
        return sorted([*self._safe, *self._allowed, *self._operator.tools(), *self._servers.names(subject)])

    def offers(self, *, subject: str = LOCAL_SUBJECT) -> list[Offer]:
        """Every tool that there is, and why agents of this subject may be given it or not. Blocking at first, as
        `names`."""
        return [
            *(Offer(name=name, allowed=True, why="safe") for name in sorted(self._safe)),
            *(
                Offer(name=name, allowed=False, why=why)
                for name, why in (
                    ("read_files", "AGENT_MCP_FILES names no directory"),
                    ("web_fetch", "AGENT_MCP_WEB_DOMAINS is none"),
                    ("web_search", "AGENT_MCP_WEB_DOMAINS leaves out the service that would be asked"),
                )
                if name not in self._safe
            ),
            *(Offer(name=name, allowed=name in self._allowed, why=self._why(name)) for name in sorted(_ON_REQUEST)),
            *(Offer(name=name, allowed=True, why="of AGENT_MCP_TOOLS") for name in sorted(self._operator.tools())),
            *(
                Offer(name=f"{MCP_PREFIX}{name}", allowed=entry.serves(subject), why=entry.terms)
                for name, entry in sorted(self._servers.entries().items())
            ),
        ]

    def _why(self, name: str) -> str:
        if name not in self._allowed:
            return "AGENT_MCP_ALLOW_TOOLS does not name it"
        return "used without being asked for (AGENT_MCP_APPROVE)" if name in self._unapproved else "a person approves"

    def needs_approval(self) -> frozenset[str]:
        """The tools of AGENT_MCP_ALLOW_TOOLS whose every use a person must allow."""
        return frozenset(self._allowed) - self._unapproved

    @staticmethod
    def risks(tools: Iterable[str], *, remembers: bool) -> list[str]:
        """What an operator should know of an agent with these tools; see `toolbox.risks`."""
        return risks(tools, remembers=remembers)

    def is_allowed(self, name: str, *, agents: Collection[AgentId], subject: str | None) -> bool:
        """Whether an agent of this subject may be given this tool, where `agents` are the agents that there are.

        Without a subject, for the operator, MCP servers count whoever may use them.
        """
        if name.startswith(AGENT_PREFIX):
            return name.removeprefix(AGENT_PREFIX) in agents
        if name.startswith(MCP_PREFIX):
            return self._servers.find(name, subject) is not None
        return name in self.names()

    def check(self, names: Iterable[str], *, agents: Collection[AgentId], subject: str = LOCAL_SUBJECT) -> None:
        """Raises ToolNotAllowed, with the allowed names, for the first name that isn't one.

        Blocking: whether an MCP server has a tool is asked of the server, where it can be reached.
        """
        for name in names:
            allowed = [*self.names(subject=subject), *(f"{AGENT_PREFIX}{agent_id}" for agent_id in sorted(agents))]
            if self.is_allowed(name, agents=agents, subject=subject):
                there = self._servers.missing(name, subject) if name.startswith(MCP_PREFIX) else None
                if there is None:
                    continue
                allowed = there
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ToolNotAllowed(
                f"The tool {name[:100]!r} is unknown or not allowed.{hint} Allowed: {', '.join(allowed[:100])}. "
                "The operator can allow more with AGENT_MCP_ALLOW_TOOLS, AGENT_MCP_TOOLS and AGENT_MCP_MCP_SERVERS."
            )

    def build(self, names: Iterable[str], bench: Bench) -> Tools:
        """The tools for one agent in one turn: the named ones that are (still) allowed, and `search_session`.

        Blocking: connects to MCP servers.
        """
        operator = self._operator.tools()
        built: list[AgentTool] = []
        approve = set(self.needs_approval())
        run_code = False
        for name in dict.fromkeys([*names, "search_session"]):
            if name in self._safe and (bench.may_interrupt or name != "handoff_to_user"):
                built.append(self._safe[name](bench))
            elif name in self._allowed:
                built.append(builtin.contained(self._on_request[name](bench)))
                run_code = run_code or name in _RUN_CODE
            elif name in operator:
                built.append(operator[name])
            elif name.startswith(AGENT_PREFIX):
                built.append(agent_tool(AgentId(name.removeprefix(AGENT_PREFIX)), bench))
            elif name.startswith(MCP_PREFIX):
                load_strands()
                from agent_mcp.toolbox.server_tool import build_server_tools

                for tool, needs_approval in build_server_tools(self._servers, name, bench.subject):
                    if all(tool.tool_name != other.tool_name for other in built):  # named alone and with its server
                        built.append(tool)
                        approve |= {tool.tool_name} if needs_approval else set()
        return Tools(tools=built, approve=frozenset(approve), run_code=run_code)

    def close(self) -> None:
        """Ends the connections to MCP servers. Blocking, for some seconds at most."""
        self._servers.close()
