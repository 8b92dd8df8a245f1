"""The agents that come with the package: the built-in ones, and examples to make agents from."""

from pathlib import Path

from agent_mcp.domain import AgentId, AgentSpec
from agent_mcp.errors import AgentNotFound
from agent_mcp.storage.agent_files import read_directory

DEFAULT_AGENT = AgentId("assistant")
_LIBRARY = Path(__file__).parent / "library"


def built_in() -> dict[AgentId, AgentSpec]:
    """Agents that are there without being made."""
    return _read(_LIBRARY, source="built-in")


def examples() -> dict[AgentId, AgentSpec]:
    """Definitions from which `create_agent(example=...)` makes an agent."""
    return _read(_LIBRARY / "examples", source="example")


def example(name: str) -> AgentSpec:
    """One example; raises AgentNotFound with the names that there are."""
    known = examples()
    found = known.get(AgentId(name))
    if found is None:
        raise AgentNotFound(f"There is no example {name[:100]!r}. Examples: {', '.join(known)}.")
    return found


def _read(directory: Path, *, source: str) -> dict[AgentId, AgentSpec]:
    agents, _ = read_directory(directory, source=source)
    return {agent.agent_id: agent for agent in agents}
