"""Tools of an operator (AGENT_MCP_TOOLS), for tests of what tools do to a turn."""

import asyncio
import socket
import sys

from strands import tool  # pyright: ignore[reportUnknownVariableType] a parameter of it is a bare dict


@tool
def hold(port: int) -> str:
    """Run until the test lets go.

    Args:
        port: Where the test listens.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=180) as connection:
        connection.recv(1)
    return "held"


@tool
def chatter() -> str:
    """Print on stdout, as tools do."""
    print("This is not JSON-RPC.", flush=True)
    print("Nor is this, which nobody flushes.")
    return f"read {sys.stdin.read()!r}"


@tool
async def give_up() -> str:
    """Raise what asyncio raises in a task that is cancelled."""
    raise asyncio.CancelledError


@tool
def leave() -> str:
    """Call sys.exit, as the functions of command lines do."""
    sys.exit(3)


@tool
async def leave_behind() -> str:
    """Leave something on the loop that calls sys.exit."""
    asyncio.get_running_loop().call_soon(sys.exit, 3)
    return "left"
