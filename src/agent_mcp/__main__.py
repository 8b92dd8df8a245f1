"""`python -m agent_mcp` is the command `agent-mcp`."""

from agent_mcp.cli import main

if __name__ == "__main__":
    main()
