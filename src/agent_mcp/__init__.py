"""An MCP server through which an AI client keeps a team of agents that remember."""
