"""From the start of the process to its first answer (tools/list) over stdio, beside a bare server of the SDK."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks import servers
from benchmarks.figures import Figure

_TIMES = 7


def measure() -> Sequence[Figure]:
    with tempfile.TemporaryDirectory() as place:
        return asyncio.run(_measure(Path(place)))


async def _measure(place: Path) -> Sequence[Figure]:
    ours, bare = list[float](), list[float]()
    for _ in range(_TIMES):  # in turns, so that what else the machine does falls on both
        bare.append(await _started(*servers.bare(place / "bare"), data_dir=place / "bare"))
        ours.append(await _started(*servers.ours(place / "ours"), data_dir=place / "ours"))
    return [Figure(what="agent-mcp", value=median(ours), base=median(bare), than="bare server that imports Strands")]


async def _started(*command: str, data_dir: Path) -> float:
    began = time.perf_counter()
    async with servers.connected(*command, data_dir=data_dir) as client:
        await client.list_tools()
        return (time.perf_counter() - began) * 1000
