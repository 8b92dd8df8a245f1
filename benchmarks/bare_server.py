"""What is compared with: an MCP server of the SDK with one tool that asks one Strands agent, and nothing else.

Started as a process: `python -m benchmarks.bare_server DIRECTORY`. The agent's session is kept by Strands'
FileSessionManager in the directory, as agent-mcp's are; there are no definitions, turns, records or limits.
"""

import sys

from mcp.server import MCPServer
from strands import Agent
from strands.session.file_session_manager import FileSessionManager

from agent_mcp.offline import OfflineModel


def agent(directory: str, session_id: str = "bare", agent_id: str = "bare") -> Agent:
    """A Strands agent that remembers, on the embedded model."""
    manager = FileSessionManager(session_id, storage_dir=directory)
    return Agent(model=OfflineModel(), agent_id=agent_id, session_manager=manager, callback_handler=None)


def main() -> None:
    server = MCPServer("bare")
    asked = agent(sys.argv[1])

    @server.tool()
    async def ask(prompt: str) -> str:  # pyright: ignore[reportUnusedFunction] the decorator takes it
        """Ask the agent."""
        return str(await asked.invoke_async(prompt))

    server.run("stdio")


if __name__ == "__main__":
    main()
