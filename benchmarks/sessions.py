"""A first ask after a restart, in sessions of 10, 100 and 1,000 messages, beside a Strands agent that restores them."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from agent_mcp.domain import SessionId
from agent_mcp.service import Prompt
from benchmarks import bare_server, corpus
from benchmarks.corpus import CALLER
from benchmarks.figures import Figure

_TIMES = 7
_LENGTHS = (10, 100, 1000)


def measure() -> Sequence[Figure]:
    figures: list[Figure] = []
    for length in _LENGTHS:
        with tempfile.TemporaryDirectory() as place:
            data_dir = Path(place) / "data"
            corpus.make(data_dir, sessions=2 * _TIMES + 2, messages=length)
            ours = [asyncio.run(_ours(data_dir, number)) for number in range(_TIMES + 1)]
            alone = [_alone(data_dir, number) for number in range(_TIMES + 1, 2 * _TIMES + 2)]
        figures.append(
            Figure(
                what=f"agent-mcp, {length} messages",
                value=median(ours[1:]),
                base=median(alone[1:]),
                than="Strands agent alone, last 40 messages",
            )
        )
    return figures


async def _ours(data_dir: Path, number: int) -> float:
    service = corpus.service_on(data_dir)
    began = time.perf_counter()
    try:
        asked = Prompt(text="What is new?", session_id=SessionId(f"c-{number}"))
        async for _ in (await service.turns.ask(CALLER, asked)).followed.events(wait=120):
            pass
        return (time.perf_counter() - began) * 1000
    finally:
        await service.close(grace=0)


def _alone(data_dir: Path, number: int) -> float:
    began = time.perf_counter()
    agent = bare_server.agent(str(data_dir), session_id=f"c-{number}", agent_id="assistant")
    agent("What is new?")
    return (time.perf_counter() - began) * 1000
