"""SIGKILL in every phase of a turn, the phase proven by what the process itself says, and what must be true then."""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from bedrock_server import Gate
from proof.place import HOLD, Place, Session, order, placed, telling
from proof.servers import Gone, Nursery, Server

Operations = list[tuple[str, str]]
_PER_PLACE = 40
"""How many kills a data directory sees before the next one is taken: its catalog grows with each."""


async def _reaches(server: Server, place: Place, session: Session, prompt: str, number: int, **plan: str) -> str | None:
    """Asks with a pause at the operation `number`; returns the operation, None where the turn ended without it."""
    await server.plan(pause=number, **plan)
    session.given.append(prompt)
    asked = asyncio.ensure_future(server.ask(prompt, session.session_id))
    paused = asyncio.ensure_future(server.told("paused"))
    done, _ = await asyncio.wait({asked, paused}, return_when=asyncio.FIRST_COMPLETED)
    if paused in done:
        asked.add_done_callback(lambda task: task.cancelled() or task.exception())
        news = paused.result()
        assert news is not None
        return f"{news['kind']} {news['name']}"
    paused.cancel()
    session.answered[prompt] = asked.result()["response"]
    return None


def _with_tool() -> str:
    return order("calculator", expression="6 * 7")


class Kills:
    """The phases. Each kills servers until it has counted `times`, and checks after each of them."""

    def __init__(self, place: Place) -> None:
        self.place = place

    async def operations(self, prompt: Callable[[], str]) -> Operations:
        """What one turn does to the directory, from a dry run."""
        server = await self.place.victim()
        session = await self.place.session(server)
        await server.plan()
        await self.place.ask(server, session, prompt())
        done = await server.plan()
        await server.kill()
        await self.place.check(session)
        return done

    async def _at(self, choose: Callable[[Operations], list[int]], times: int) -> int:
        """Kills at the chosen operations of a turn with a tool, each in turn."""
        chosen = choose(await self.operations(_with_tool))
        killed = 0
        while killed < times:
            server = await self.place.victim()
            session = await self.place.session(server)
            number = chosen[killed * len(chosen) // times]
            reached = await _reaches(server, self.place, session, _with_tool(), number)
            await server.kill()
            await self.place.check(session)
            killed += reached is not None
        return killed

    async def in_a_file(self, times: int) -> int:
        """Half of what is written to a file is there."""
        return await self._at(lambda done: [n for n, (kind, _) in enumerate(done) if kind == "write"], times)

    async def before_the_metadata(self, times: int) -> int:
        """The last message is kept; the turn's record or the session's metadata does not say so yet."""

        def choose(done: Operations) -> list[int]:
            messages = [n for n, (kind, name) in enumerate(done) if kind == "replace" and "/message_" in name]
            metadata = [n for n, (kind, name) in enumerate(done) if kind == "replace" and "metadata" in name]
            return list(range(messages[-1] + 1, metadata[-1] + 1))

        return await self._at(choose, times)

    async def anywhere(self, times: int) -> int:
        """Any operation of a turn on a file or directory."""
        return await self._at(lambda done: list(range(len(done))), times)

    async def queued(self, times: int) -> int:
        """One turn runs in a tool, others wait behind it."""
        for _ in range(times):
            server = await self.place.victim()
            session = await self.place.session(server)
            await self.place.begin(server, session, order("hold", port=self.place.port))
            await self.place.desk.held()
            waiting = [await self.place.begin(server, session, telling()) for _ in range(3)]
            assert all(self.place.record(turn)["status"] == "queued" for turn in waiting)
            await server.kill()
            await self.place.check(session)
            assert not [turn for turn in waiting if self.place.record(turn)["status"] == "completed"]
        return times

    async def in_the_stream(self, times: int) -> int:
        """The model has sent half of its text."""
        for _ in range(times):
            server = await self.place.victim(bedrock=True)
            session = await self.place.session(server)
            prompt, gate = f"{HOLD}: {telling()}", Gate()
            self.place.gates[prompt] = gate
            await self.place.begin(server, session, prompt)
            await asyncio.to_thread(gate.wait_until_reached, 100)
            await server.kill()
            gate.release()
            await self.place.check(session)
        return times

    async def in_a_tool(self, times: int) -> int:
        """The use of a tool is kept, and the tool runs."""
        for _ in range(times):
            server = await self.place.victim()
            session = await self.place.session(server)
            await self.place.begin(server, session, order("hold", port=self.place.port))
            await self.place.desk.held()
            assert any("toolUse" in block for block in self.place.messages(session)[-1]["content"])
            await server.kill()
            await self.place.check(session)
        return times

    async def _broken(self, count: int) -> list[Session]:
        """Sessions whose last turn died in a tool: all with one server, which is killed once and not counted."""
        server = await self.place.victim()
        broken: list[Session] = []
        for _ in range(count):
            session = await self.place.session(server)
            await self.place.begin(server, session, order("hold", port=self.place.port))
            await self.place.desk.held()
            broken.append(session)
        await server.kill()
        return broken

    async def in_settling(self, times: int) -> int:
        """A turn that died is being settled by the next ask, which dies too."""
        session, *broken = await self._broken(1 + min(times, 20))
        server = await self.place.victim()
        await server.plan()
        await self.place.ask(server, session)
        done = await server.plan()
        await server.kill()
        await self.place.check(session)
        # Settling begins behind the new turn's record, and ends where that says that it works.
        records = [
            n for n, (kind, name) in enumerate(done) if kind in ("link", "replace") and name.startswith("turns/")
        ]
        chosen = range(records[0] + 1, records[-2] + 1)
        killed = 0
        while killed < times:
            if not broken:
                broken = await self._broken(min(times - killed, 20))
            session = broken.pop()
            server = await self.place.victim()
            number = chosen[killed * len(chosen) // times]
            reached = await _reaches(server, self.place, session, telling(), number)
            await server.kill()
            await self.place.check(session)
            killed += reached is not None
        return killed

    async def holding_the_lock(self, times: int) -> int:
        """Another process waits for the session's lock, and gets it."""
        for _ in range(times):
            server = await self.place.victim()
            session = await self.place.session(server)
            await self.place.begin(server, session, order("hold", port=self.place.port))
            await self.place.desk.held()
            waiting = await self._waits(self.place.witness, session)
            await server.kill()
            prompt = session.given[-1]
            session.answered[prompt] = (await self.place.witness.reply(waiting))["response"]
            await self.place.check(session)
        return times

    async def waiting_for_the_lock(self, times: int) -> int:
        """The process that waits for the lock dies; the one that has it goes on."""
        for _ in range(times):
            holder, server = await self.place.victim(), await self.place.victim()
            session = await self.place.session(holder)
            turn = await self.place.begin(holder, session, order("hold", port=self.place.port))
            tool = await self.place.desk.held()
            await self._waits(server, session)
            await server.kill()
            tool.close()
            reply = await holder.reply(turn)
            session.answered[session.given[-2]] = reply["response"]
            await self.place.check(session)
            await holder.close()
        return times

    async def _waits(self, server: Server, session: Session) -> str:
        """Asks in a session that is in use elsewhere, until the server has looked for the lock twice."""
        name = f"session-{session.session_id}.lock"
        await server.watch(name)
        turn = await self.place.begin(server, session, telling())
        assert await server.told("watched")
        await server.watch(name)
        assert await server.told("watched")
        return turn


PHASES: dict[str, Callable[[Kills, int], Awaitable[int]]] = {
    "queued behind a running turn": Kills.queued,
    "the model streams": Kills.in_the_stream,
    "between a tool's use and its result": Kills.in_a_tool,
    "inside the writing of a file": Kills.in_a_file,
    "between the last message and the metadata": Kills.before_the_metadata,
    "in settling": Kills.in_settling,
    "another process waits for the lock": Kills.holding_the_lock,
    "waiting for the lock of another process": Kills.waiting_for_the_lock,
    "at any operation on the directory": Kills.anywhere,
}


async def kill(nursery: Nursery, phase: str, times: int) -> int:
    """Kills in one phase, in data directories of its own; returns how many kills were counted."""
    counted = 0
    with tempfile.TemporaryDirectory() as directory:
        while counted < times:
            async with placed(nursery, Path(directory), f"data-{counted}") as place:
                counted += await PHASES[phase](Kills(place), min(times - counted, _PER_PLACE))
    return counted


@asynccontextmanager
async def killing(directory: Path) -> AsyncGenerator[Kills]:
    """The phases, on one data directory."""
    with Nursery() as nursery:
        async with placed(nursery, directory) as place:
            yield Kills(place)


async def kill_everywhere(times: int, *, at_once: int, say: Callable[[str], None]) -> Counter[str]:
    """At least `times` kills, as many in each phase; `say` is told the count of each."""
    each = -(-times // len(PHASES))
    free = asyncio.Semaphore(at_once)
    counts: Counter[str] = Counter()

    async def one(phase: str) -> None:
        async with free:
            began = time.monotonic()
            try:
                counts[phase] = await kill(nursery, phase, each)
            except Exception as error:
                say(f"         {phase}: FAILED ({type(error).__name__}: {error})")
                raise
            say(f"  {counts[phase]:5}  {phase} ({time.monotonic() - began:.0f} s)")

    with Nursery() as nursery:
        ends = await asyncio.gather(*map(one, PHASES), return_exceptions=True)
    failures = [end for end in ends if isinstance(end, Exception)]
    if failures:
        raise ExceptionGroup("a check failed", failures)
    return counts


__all__ = ["PHASES", "Gone", "Kills", "kill", "kill_everywhere", "killing"]
