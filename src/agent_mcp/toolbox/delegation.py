"""Agents as tools of agents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from agent_mcp.errors import InvalidArgument
from agent_mcp.ids import AgentId
from agent_mcp.toolbox.bench import Bench

if TYPE_CHECKING:
    from strands.types.tools import AgentTool

AGENT_PREFIX = "agent:"
"""An agent as a tool: `agent:<agent_id>`."""


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


def without_circles(
    agent_id: AgentId, agents: Iterable[AgentId], tools_of: Callable[[AgentId], Iterable[str]]
) -> list[AgentId]:
    """Those of the agents that this one may call: neither itself nor any that would come to ask it."""
    callers = {agent_id}
    there = list(agents)
    while found := {each for each in there if each not in callers and not callers.isdisjoint(_called(tools_of(each)))}:
        callers |= found
    return [each for each in there if each not in callers]


def _called(tools: Iterable[str]) -> list[AgentId]:
    return [AgentId(name.removeprefix(AGENT_PREFIX)) for name in tools if name.startswith(AGENT_PREFIX)]


def tool_name(agent_id: AgentId) -> str:
    """The name under which a model calls an agent: providers allow 64 characters."""
    name = f"agent_{agent_id}"
    return name if len(name) <= 64 else f"{name[:55]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def agent_tool(agent_id: AgentId, bench: Bench) -> AgentTool:
    from strands import tool  # pyright: ignore[reportUnknownVariableType] a parameter of it is a bare dict

    description = (
        f"Ask the agent {agent_id} and get its answer. It sees only what you write, and remembers what you asked it "
        f"before in this conversation. {bench.describe(agent_id)}".strip()
    )

    @tool(name=tool_name(agent_id), description=description)
    async def ask(prompt: str) -> str:
        return await bench.ask(agent_id, prompt)

    return ask
