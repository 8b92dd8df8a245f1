"""`agent-mcp demo`: the continuity test, through a real MCP client and across a restart of the server."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcp import StdioServerParameters
from mcp.client import Client

from agent_mcp.domain import Fact

_NAME = "John"


class Outcome(Fact):
    """Whether the name was known in the same session after a restart and in no other, and the three replies."""

    remembered: bool
    apart: bool
    replies: tuple[dict[str, Any], ...]


async def run(data_dir: Path | None, *, say: Callable[[str], object]) -> Outcome:
    """Runs the test in `data_dir` (None: a temporary one) and tells each step."""
    with tempfile.TemporaryDirectory(prefix="agent-mcp-demo-") as temporary:
        root = data_dir or Path(temporary)
        first = await _session(root, None, f"My name is {_NAME}", say)
        say("The server has stopped. It is started again.")
        again = await _session(root, first["session_id"], "What's my name?", say)
        other = await _session(root, None, "What's my name?", say)
    remembered = _NAME in again["response"]
    apart = _NAME not in other["response"]
    say(f"Same session after a restart: {'remembered' if remembered else 'FORGOTTEN'}.")
    say(f"Another session: {'knows nothing, as it should' if apart else 'KNOWS the name, which it must not'}.")
    return Outcome(remembered=remembered, apart=apart, replies=(first, again, other))


async def _session(root: Path, session_id: str | None, prompt: str, say: Callable[[str], object]) -> dict[str, Any]:
    """Starts a server, asks once in a session (None: a new one), and ends the server."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "agent_mcp", "serve", "--data-dir", str(root), "--model", "offline"],
    )
    async with Client(server) as client:
        arguments = {"prompt": prompt} | ({"session_id": session_id} if session_id else {})
        result = await client.call_tool("ask_agent", arguments)
    reply = result.structured_content
    if result.is_error or reply is None:
        raise RuntimeError(f"ask_agent failed: {result.content}")
    say(f"[{reply['session_id']}]\n  > {prompt}\n  < {reply['response']}")
    return reply
