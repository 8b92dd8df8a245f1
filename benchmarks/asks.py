"""One ask in a session that is warm, over stdio: agent-mcp, a bare server of the SDK, and a Strands agent alone."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import bare_server, servers
from benchmarks.figures import Figure, median_ms_async

_TIMES = 40
_PROMPT = "Tell me something about the harbour"


def measure() -> Sequence[Figure]:
    with tempfile.TemporaryDirectory() as place:
        return asyncio.run(_measure(Path(place)))


async def _measure(place: Path) -> Sequence[Figure]:
    alone = bare_server.agent(str(place / "alone"))
    agent_ms = await median_ms_async(lambda: alone.invoke_async(_PROMPT), times=_TIMES)
    async with servers.connected(*servers.bare(place / "bare"), data_dir=place / "bare") as client:
        bare_ms = await median_ms_async(lambda: client.call_tool("ask", {"prompt": _PROMPT}), times=_TIMES)
    async with servers.connected(*servers.ours(place / "ours"), data_dir=place / "ours") as client:
        began = await client.call_tool("ask_agent", {"prompt": _PROMPT})
        assert began.structured_content is not None
        session_id = str(began.structured_content["session_id"])
        asked = {"prompt": _PROMPT, "session_id": session_id}
        ours_ms = await median_ms_async(lambda: client.call_tool("ask_agent", asked), times=_TIMES)
    return [
        Figure(what="agent-mcp", value=ours_ms, base=bare_ms, than="bare server"),
        Figure(what="agent-mcp", value=ours_ms, base=agent_ms, than="Strands agent alone"),
        Figure(what="bare server", value=bare_ms, base=agent_ms, than="Strands agent alone"),
    ]
