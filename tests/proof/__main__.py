"""`python -m tests.proof`: the long form of the proof, in a checkout with the test requirements. It prints figures.

--kills N    kills in all, as many in each phase (1000)
--at-once N  how many phases of kills run side by side (4)
--every N    refuses only each nth write of a turn (1)
--together N asks of servers that ask at once (500), of --servers (8) in 3 sessions
--asks N     asks of the soak (10000), over --sessions (200)
--only WORD  only kills, full, together or soak
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from proof.full import refuse_everywhere
from proof.kills import kill_everywhere
from proof.together import a_place, ask_together, soak


def _say(line: str) -> None:
    print(line, flush=True)


async def _kills(times: int, at_once: int) -> None:
    began = time.monotonic()
    _say("Killed:")
    counts = await kill_everywhere(times, at_once=at_once, say=_say)
    _say(f"  {sum(counts.values()):5}  in all, every check passed ({time.monotonic() - began:.0f} s)")


async def _full(every: int) -> None:
    began = time.monotonic()
    _say("Refused writes:")
    async with a_place() as place:
        total = await refuse_everywhere(place, every=every, say=_say)
    _say(f"  {total:5}  in all, every check passed ({time.monotonic() - began:.0f} s)")


async def _together(asks: int, servers: int) -> None:
    async with a_place() as place:
        done = await ask_together(place, servers=servers, sessions=3, asks=asks)
    _say(f"Together: {done.asks} asks of {done.servers} servers in {done.sessions} sessions ({done.seconds:.0f} s)")


async def _soak(asks: int, sessions: int) -> None:
    began = time.monotonic()
    _say("Soak:")
    async with a_place() as place:
        await soak(place, asks=asks, sessions=sessions, every=max(1, asks // 20), say=_say)
    _say(f"  {asks} asks over {sessions} sessions ({time.monotonic() - began:.0f} s)")


async def main() -> None:
    parser = argparse.ArgumentParser(description="Break things for real, and see what must be true.")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--asks", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--together", type=int, default=500)
    parser.add_argument("--servers", type=int, default=8)
    parser.add_argument("--only", choices=["kills", "full", "together", "soak"])
    given = parser.parse_args()
    if given.only in (None, "together"):
        await _together(given.together, given.servers)
    if given.only in (None, "full"):
        await _full(given.every)
    if given.only in (None, "kills"):
        await _kills(given.kills, given.at_once)
    if given.only in (None, "soak"):
        await _soak(given.asks, given.sessions)


if __name__ == "__main__":
    asyncio.run(main())
