"""Lists and searches over 10,000 sessions of 20 messages, beside the same over 100."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from agent_mcp.errors import StorageFailed
from agent_mcp.service import Service
from benchmarks import corpus
from benchmarks.corpus import CALLER
from benchmarks.figures import Figure, medians_ms

FEW, MANY, MESSAGES = 100, 10_000, 20
PROMISED = 1.5
_TIMES = 150  # longer than the look through a new process's index takes, which goes on beside the first calls


def measure() -> Sequence[Figure]:
    with tempfile.TemporaryDirectory() as place:
        few = _measured(Path(place) / "few", FEW)
        many = _measured(Path(place) / "many", MANY)
    figures = [
        Figure(
            what=f"{what}, {MANY} sessions", value=many[what], base=few[what], than=f"{FEW} sessions", limit=PROMISED
        )
        for what in few
        if what != "index made"
    ]
    return [*figures, Figure(what=f"index of {MANY} sessions made", value=many["index made"] / 1000, unit="s")]


def _measured(data_dir: Path, sessions: int) -> dict[str, float]:
    print(f"making {sessions} sessions of {MESSAGES} messages", file=sys.stderr)
    # As many that hold the rare word, so that both searches have the same to show.
    corpus.make(data_dir, sessions=sessions, messages=MESSAGES, marked=range(0, sessions, sessions // 20))
    print("indexing", file=sys.stderr)
    began = time.perf_counter()
    asyncio.run(_first(data_dir))
    made = (time.perf_counter() - began) * 1000
    return {**asyncio.run(_timed(data_dir)), "index made": made}


async def _first(data_dir: Path) -> None:
    service = corpus.service_on(data_dir)
    try:
        while True:
            with suppress(StorageFailed):  # a search says so while the index is not ready
                await service.sessions.list_sessions(CALLER, query="harbour", limit=1)
                return
    finally:
        await service.close(grace=0)


async def _timed(data_dir: Path) -> dict[str, float]:
    service = corpus.service_on(data_dir)
    calls = {
        "list_sessions": _listing(service),
        "list_sessions, its second page": _listing(service, limit=20, page=2),
        "search for a word in 20 sessions": _listing(service, query="zeppelins", limit=20),
        "search for a word in all sessions": _listing(service, query="harbour", limit=20),
    }
    try:
        await service.sessions.list_sessions(CALLER)
        return await medians_ms(calls, times=_TIMES)
    finally:
        await service.close(grace=0)


def _listing(
    service: Service, *, query: str | None = None, limit: int = 50, page: int = 1
) -> Callable[[], Awaitable[None]]:
    async def call() -> None:
        cursor: str | None = None
        for _ in range(page):
            cursor = (await service.sessions.list_sessions(CALLER, query=query, limit=limit, cursor=cursor)).next_cursor

    return call
