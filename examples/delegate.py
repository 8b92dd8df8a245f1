"""A plain Strands agent that delegates: agent-mcp is one of its tools, and its agents remember for it.

    python examples/delegate.py "Have an agent remember that my name is John, and ask it what my name is."

The agent here uses Strands' default model (Amazon Bedrock); AGENT_MCP_MODEL is the model of the agents behind it.
"""

import os
import sys

from mcp import StdioServerParameters
from mcp.client.stdio import stdio_client
from strands import Agent
from strands.tools.mcp import MCPClient

SERVER = StdioServerParameters(command=sys.executable, args=["-m", "agent_mcp", "serve"], env=dict(os.environ))
"""The server gets this program's whole environment: its model, its data directory, its credentials."""

SYSTEM_PROMPT = """You lead a team of agents, which you reach with ask_agent. An agent remembers what was said in a
session: keep the session_id that it answers with, and give it again to go on in the same conversation."""


def main(prompt: str) -> None:
    team = MCPClient(
        lambda: stdio_client(SERVER),  # pyright: ignore[reportArgumentType] a transport, as Strands' own loader passes it
        tool_filters={"allowed": ["ask_agent", "list_agents", "get_reply"]},
    )
    with team:
        agent = Agent(system_prompt=SYSTEM_PROMPT, tools=[*team.list_tools_sync()], callback_handler=None)
        print(agent(prompt))


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "Which agents are there, and what is each of them for?")
