"""Tools that need nothing outside: sums, the time, the session's own transcript, and what comes with Strands."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast
from zoneinfo import ZoneInfo

from agent_mcp.toolbox.bench import Bench
from agent_mcp.toolbox.internet import Internet

if TYPE_CHECKING:
    from strands.types.tools import AgentTool

_NOTEBOOK_BYTES = 64 * 1024

Build = Callable[[Bench], "AgentTool"]
"""Makes a tool for one turn."""


def calculator(_: Bench) -> AgentTool:
    from strands import tool  # pyright: ignore[reportUnknownVariableType] a parameter of it is a bare dict

    from agent_mcp.toolbox.arithmetic import evaluate

    @tool
    def calculator(expression: str) -> str:
        """Evaluate an arithmetic expression exactly as Python would.

        Args:
            expression: For example "3 * (4 + 5) ** 2" or "sqrt(2) / pi". Functions of Python's math are there.
        """
        return str(evaluate(expression))

    return calculator


def current_time(_: Bench) -> AgentTool:
    from strands import tool  # pyright: ignore[reportUnknownVariableType] a parameter of it is a bare dict

    @tool
    def current_time(timezone: str = "UTC") -> str:
        """The current date and time in ISO 8601.

        Args:
            timezone: A name of the IANA database such as "Europe/Berlin".
        """
        return datetime.now(ZoneInfo(timezone)).isoformat(timespec="seconds")

    return current_time


def search_session(bench: Bench) -> AgentTool:
    from strands import tool  # pyright: ignore[reportUnknownVariableType] a parameter of it is a bare dict

    @tool
    def search_session(query: str) -> str:
        """Search everything that was ever said in this conversation, also what you no longer see.

        Use it when the user refers to something that is not in the messages before you.

        Args:
            query: Words to look for; what has most of them comes first.
        """
        return bench.search(query)

    return search_session


def vended(name: str) -> Build:
    """One of the tools that come with Strands. `name` is from the tables below, never a caller's."""

    def build(_: Bench) -> AgentTool:
        return cast("AgentTool", getattr(importlib.import_module(f"strands.vended_tools.{name}"), name))

    return build


def contained(tool: AgentTool) -> AgentTool:
    """A tool whose results are as long as a history can hold."""
    from agent_mcp.contained import ContainedTool

    return ContainedTool(tool)


def notebook(_: Bench) -> AgentTool:
    """Strands' notebook. What is written stays with the session, as state of its agent."""
    from agent_mcp.toolbox.notebooks import BoundedNotebooks

    vended: Any = importlib.import_module("strands.vended_tools.notebook")  # typed in part only
    return BoundedNotebooks(cast("AgentTool", vended.make_notebook(max_notebook_size_bytes=_NOTEBOOK_BYTES)))


def file_editor(bench: Bench) -> AgentTool:
    """Strands' file editor, told where the session's folder is: it takes absolute paths only."""
    vended: Any = importlib.import_module("strands.vended_tools.file_editor.file_editor")  # typed in part only
    place = bench.sandbox().place
    told = f" Your own folder is {place}." if place else ""
    return cast("AgentTool", vended.make_file_editor(description=f"{vended.DEFAULT_FILE_EDITOR_DESCRIPTION}{told}"))


def http_request(internet: Internet) -> AgentTool:
    """Strands' http_request, with a client of ours: it reaches what web_fetch reaches, and nothing else."""
    from agent_mcp.toolbox.guard import guarded_client

    vended: Any = importlib.import_module("strands.vended_tools.http_request")  # typed in part only
    return cast("AgentTool", vended.make_http_request(client=guarded_client(internet)))
