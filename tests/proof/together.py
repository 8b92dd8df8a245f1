"""Many servers on one data directory, asking in the same sessions at once; and one server that is asked for long."""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proof.place import Place, Session, placed, telling
from proof.servers import Nursery, Server

_IN_FLIGHT = 12
"""How many asks of one server are on their way at once: fewer than the queue of one session takes."""
MORE_KIB = 12 * 1024
MORE_DESCRIPTORS = 4
"""What a server may hold more after a soak than one that was started after it: memory, open files.

Histories grow, and with them what a turn holds while it runs, so a server is compared with a new one that is asked in
the same sessions. What a server kept of each ask would be the difference: 12 MiB are 1.2 KiB an ask in 10,000.
"""
_LAST_ROUNDS = 2


@dataclass(frozen=True)
class Together:
    """What came of it: the asks, the sessions, how many asks overlapped with those of other servers, seconds."""

    asks: int
    servers: int
    sessions: int
    seconds: float
    created: int


async def ask_together(place: Place, *, servers: int, sessions: int, asks: int) -> Together:
    """Asks from several servers in the same sessions, whose making they race for; raises AssertionError."""
    began = time.monotonic()
    running = [await place.victim(bedrock=True) for _ in range(servers)]
    names = [Session(f"together-{n}") for n in range(sessions)]
    mine: list[list[dict[str, Any]]] = [[] for _ in running]
    given: list[list[tuple[Session, str]]] = [
        [(names[(number + turn) % sessions], telling()) for turn in range(asks // servers + (number < asks % servers))]
        for number in range(servers)
    ]

    async def use(server: Server, prompts: Sequence[tuple[Session, str]], replies: list[dict[str, Any]]) -> None:
        free = asyncio.Semaphore(_IN_FLIGHT)

        async def one(session: Session, prompt: str) -> None:
            try:
                reply = await server.ask(prompt, session.session_id, agent_id="tester")
            finally:
                free.release()
            replies.append(reply)
            session.answered[prompt] = reply["response"]
            assert reply["response"] == f"You said: {prompt}", "each reply is the one to its prompt"

        async with asyncio.TaskGroup() as tasks:
            for session, prompt in prompts:
                await free.acquire()  # They are sent in this order, so they arrive in it.
                tasks.create_task(one(session, prompt))

    async with asyncio.TaskGroup() as tasks:
        for server, prompts, replies in zip(running, given, mine, strict=True):
            tasks.create_task(use(server, prompts, replies))
        # Another session waits for none of this.
        elsewhere = await place.session(place.witness)
    for session in names:
        kept = [m["content"][0].get("text", "") for m in place.messages(session) if m["role"] == "user"]
        for prompts in given:
            own = [prompt for where, prompt in prompts if where is session]
            assert [text for text in kept if text in set(own)] == own, "in order of arrival within a process"
        session.given = kept
        await place.check(session)
    await place.check(elsewhere)
    created = [reply["session_id"] for replies in mine for reply in replies if reply["new_session"]]
    assert sorted(created) == [session.session_id for session in names], "a session is created once"
    for server in running:
        await server.close()
    seconds = time.monotonic() - began
    return Together(asks=sum(map(len, mine)), servers=servers, sessions=sessions, seconds=seconds, created=len(created))


@dataclass(frozen=True)
class Sample:
    """What a server holds after a number of asks."""

    asks: int
    resident_kib: int
    descriptors: int
    threads: int


def sample(pid: int, asks: int) -> Sample:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    fields = {key: value for key, _, value in (line.partition(":") for line in status.splitlines())}
    return Sample(
        asks=asks,
        resident_kib=int(fields["VmRSS"].split()[0]),
        descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=int(fields["Threads"]),
    )


async def soak(
    place: Place, *, asks: int, sessions: int, every: int, say: Callable[[str], None] = lambda _: None
) -> list[Sample]:
    """Asks one server for long, in many sessions by turns, and then a new one in the same; what they held.

    The last sample is the new one's. Raises AssertionError where the old one held more than that.
    """
    server = await place.victim()
    await server.plan(blind=True)  # What the spy notes of each write would be all that grows.
    names = [await place.session(server, asked=False) for _ in range(sessions)]
    before = len(list((place.data / "turns").iterdir()))
    samples: list[Sample] = []
    free = asyncio.Semaphore(4)

    async def one(server: Server, session: Session) -> None:
        async with free:
            await place.ask(server, session)

    async def once_in_each(server: Server) -> None:
        async with asyncio.TaskGroup() as tasks:
            for session in names:
                tasks.create_task(one(server, session))

    for number in range(1, asks // sessions + 1):
        await once_in_each(server)
        done = number * sessions
        if done // every > (done - sessions) // every:  # No turn runs now.
            samples.append(sample(server.pid, done))
            say(f"  {json.dumps(vars(samples[-1]))}")
    await server.close()
    server = await place.victim()
    await server.plan(blind=True)
    for _ in range(_LAST_ROUNDS):
        await once_in_each(server)
    samples.append(sample(server.pid, _LAST_ROUNDS * sessions))
    say(f"  a new server in the same sessions: {json.dumps(vars(samples[-1]))}")
    await server.close()
    for session in names:
        assert len(session.answered) == asks // sessions + _LAST_ROUNDS
        place.check_kept(session)
    records = len(list((place.data / "turns").iterdir())) - before
    assert records == asks + _LAST_ROUNDS * sessions, f"{records} files of turns: one record each, and no marks"
    old, new = samples[-2:]
    assert old.descriptors <= new.descriptors + MORE_DESCRIPTORS, f"{old}, but a new one {new}"
    assert old.resident_kib <= new.resident_kib + MORE_KIB, f"{old}, but a new one {new}"
    return samples


@asynccontextmanager
async def a_place() -> AsyncGenerator[Place]:
    """A data directory for one proof."""
    with tempfile.TemporaryDirectory() as directory, Nursery() as nursery:
        async with placed(nursery, Path(directory)) as place:
            yield place
