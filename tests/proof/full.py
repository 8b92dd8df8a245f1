"""The system refuses writes: at every write of a turn in turn, for every reason, once or from there on.

What must be true: the ask says so (or is answered, where its turn was complete before), not a byte of what was said
before is another one, and once it is over the next ask works, in the same server and in another one.
"""

import asyncio
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from proof.place import AGENT, Place, Session, order
from proof.servers import DEADLINE, Refused, Server

REASONS = ("ENOSPC", "EACCES", "EMFILE")
"""A full disk, one that is forbidden, and a process that may open no more files."""
_FOR_EVER = 10**9
_PAGE = 4096
_CODES = ("storage_error",)


def files_of(place: Place, session: Session) -> dict[str, bytes]:
    """The messages of a session as they stand on disk, by name."""
    directory = place.data / f"session_{session.session_id}" / "agents" / f"agent_{AGENT}" / "messages"
    return {path.name: path.read_bytes() for path in directory.glob("message_*.json")}


@dataclass(frozen=True)
class Turn:
    """A kind of turn whose writes are refused: what comes before it, and the turn itself, which may raise Refused."""

    ready: Callable[[Place, Server], Awaitable[tuple[Session, Any]]]
    take: Callable[[Place, Server, Session, Any], Awaitable[None]]
    after: Callable[[Any], None] = lambda _: None


async def _asked(place: Place, server: Server) -> tuple[Session, Any]:
    return await place.session(server), None


async def _none(place: Place, server: Server) -> tuple[Session, Any]:
    return Session(place.new_id()), None


async def _with_tool(place: Place, server: Server, session: Session, _: Any) -> None:
    await place.ask(server, session, order("calculator", expression="6 * 7"))


async def _in_a_tool(place: Place, server: Server) -> tuple[Session, Any]:
    session = await place.session(server)
    turn = await place.begin(server, session, order("hold", port=place.port))
    return session, (turn, await place.desk.held())


async def _cancel(place: Place, server: Server, session: Session, held: Any) -> None:
    reply = await server.call("cancel_turn", turn_id=held[0])
    assert reply["status"] == "cancelled", reply


TURNS = {
    "a turn with a tool": Turn(_asked, _with_tool),
    "the first turn of a session": Turn(_none, _with_tool),
    "a turn that is cancelled in a tool": Turn(_in_a_tool, _cancel, after=lambda held: held[1].close()),
}


async def _operations(place: Place, server: Server, turn: Turn) -> int:
    """How many operations on the directory such a turn takes."""
    session, held = await turn.ready(place, server)
    await server.plan()
    await turn.take(place, server, session, held)
    done = await server.plan()
    turn.after(held)
    await place.check(session)
    return len(done)


async def refuse_each(
    place: Place, server: Server, kind: str, reason: str, *, lasting: bool, every: int = 1, first: int = 0
) -> Counter[str]:
    """Has the writes of turns of a kind refused, one after the other, in sessions of their own; raises AssertionError.

    `lasting`: all that follow too. `every` and `first` leave some out. Counts how the turns ended.
    """
    turn = TURNS[kind]
    counts: Counter[str] = Counter()
    for number in range(first, await _operations(place, server, turn), every):
        async with asyncio.timeout(2 * DEADLINE):
            session, held = await turn.ready(place, server)
            await server.plan(fail=number, errno=reason, until=_FOR_EVER if lasting else number)
            try:
                counts[await refused_or_answered(place, session, turn.take(place, server, session, held))] += 1
            finally:
                await server.plan()
                turn.after(held)
            await goes_on(place, server, session, first=number % 2 == 0)
    return counts


async def refused_or_answered(
    place: Place, session: Session, asked: Awaitable[None], *, codes: tuple[str, ...] = _CODES
) -> str:
    """How an ask ended while writes are refused. What was said before must be there, byte by byte."""
    before = files_of(place, session)
    try:
        await asked
        ended = "answered"
    except Refused as error:
        if error.code not in codes:
            raise
        ended = "refused"
    after = files_of(place, session)
    assert {name: after.get(name) for name in before} == before, "what was there is intact"
    return ended


async def goes_on(
    place: Place, server: Server, session: Session, *, first: bool, codes: tuple[str, ...] = _CODES
) -> None:
    """Nothing is refused any more: the next asks work, in this server and in another one, in one order or the other."""
    if first:
        await place.ask(server, session)
    await place.check(session, failed=(*codes, "turn_interrupted"))
    await place.ask(server, session)
    place.check_kept(session)


async def refuse_everywhere(place: Place, *, say: Callable[[str], None], every: int = 1) -> int:
    """All kinds of turns, all reasons; returns how many writes were refused."""
    server = await place.victim()
    total = 0
    for kind in TURNS:
        for reason in REASONS:
            for lasting in (False, True):
                began = time.monotonic()
                counts = await refuse_each(place, server, kind, reason, lasting=lasting, every=every)
                how = "from there on" if lasting else "once"
                ended = f"{counts['refused']} refused, {counts['answered']} answered"
                say(f"  {counts.total():5}  {reason} {how}, {kind}: {ended} ({time.monotonic() - began:.0f} s)")
                total += counts.total()
    await server.close()
    return total


class Disk:
    """A disk of its own, small enough to be filled. Raises PermissionError where this process may mount none."""

    def __init__(self, place: Path, *, size: str = "16m") -> None:
        self.place = place
        self._size = size
        self._filler = place / "filler"

    def __enter__(self) -> Self:
        self.place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={self._size}", "proof", str(self.place)], capture_output=True
        )
        if done.returncode:
            raise PermissionError(done.stderr.decode().strip())
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.place)], check=True)

    def fill(self, *, but: int) -> None:
        """Leaves only so many pages free."""
        with self._filler.open("wb", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(bytes(_PAGE))
            file.truncate(max(0, file.tell() - but * _PAGE))

    def free(self) -> None:
        self._filler.unlink()


async def fill_each(place: Place, disk: Disk, server: Server, pages: Iterable[int]) -> Counter[str]:
    """Fills a disk but for so many pages, asks, makes room, and asks on: the system itself says where it is full."""
    counts: Counter[str] = Counter()
    for number in pages:
        async with asyncio.timeout(2 * DEADLINE):
            session = await place.session(server)
            disk.fill(but=number)
            try:
                counts[await refused_or_answered(place, session, _with_tool(place, server, session, None))] += 1
            finally:
                disk.free()
            await goes_on(place, server, session, first=number % 2 == 0)
    return counts


async def open_no_more(place: Place, server: Server, files: Iterable[int]) -> Counter[str]:
    """Lets a server open only so many files more, asks, lets it open more again, and asks on."""
    counts: Counter[str] = Counter()
    for number in files:
        async with asyncio.timeout(2 * DEADLINE):
            session = await place.session(server)
            await server.limit_files(number)
            try:
                counts[await refused_or_answered(place, session, _with_tool(place, server, session, None))] += 1
            finally:
                await server.limit_files(None)
            await goes_on(place, server, session, first=number % 2 == 0)
    return counts


def directories_of(place: Place, session: Session) -> list[Path]:
    """The directories that a turn writes to."""
    of_session = place.data / f"session_{session.session_id}"
    agent = of_session / "agents" / f"agent_{AGENT}"
    return [place.data, place.data / "turns", place.data / "locks", of_session, agent, agent / "messages"]


async def forbid_each(place: Place, server: Server, mode: int) -> Counter[str]:
    """Takes the right to write (or also to read) from each directory in turn. The server must heed it: `OBEYS`."""
    counts: Counter[str] = Counter()
    for number in range(len(directories_of(place, Session("any")))):
        async with asyncio.timeout(2 * DEADLINE):
            session = await place.session(server)
            directory = directories_of(place, session)[number]
            before = directory.stat().st_mode
            directory.chmod(mode)
            asked = _with_tool(place, server, session, None)
            codes = _CODES if mode else (*_CODES, "session_damaged")
            try:
                counts[await refused_or_answered(place, session, asked, codes=codes)] += 1
            finally:
                directory.chmod(before)
            await goes_on(place, server, session, first=number % 2 == 0, codes=codes)
    return counts
