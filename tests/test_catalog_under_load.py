"""The catalog deleted, overwritten and put back to an older state while several servers use it: every list and every
search that begins after a reply shows what that reply was about, and no server has to be started again."""

import asyncio
import os
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from proof.servers import Nursery, Server

SERVERS = 3
MORE = 6
"""So many asks each server answers between two looks."""
Damage = Callable[[Path], None]


def _files(data: Path) -> list[Path]:
    return [path for suffix in ("", "-wal", "-shm") if (path := data / f"catalog.db{suffix}").exists()]


def deleted(data: Path) -> None:
    for path in _files(data):
        path.unlink(missing_ok=True)


def deleted_without_its_journal(data: Path) -> None:
    (data / "catalog.db").unlink()


def overwritten(data: Path) -> None:
    """In its place and as long as it was: other processes have these files open, and one of them in their memory."""
    for path in _files(data):
        with suppress(FileNotFoundError), path.open("r+b") as file:  # a server has just made them anew
            file.write(b"no database at all " * (path.stat().st_size // 19))


def overwritten_in_the_middle(data: Path) -> None:
    path = data / "catalog.db"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(os.urandom(3 * 4096))


def emptied(data: Path) -> None:
    db = sqlite3.connect(data / "catalog.db", timeout=60)
    db.executescript("DELETE FROM sessions; DELETE FROM words; DELETE FROM turns; DELETE FROM noted;")
    db.close()


def of_another_version(data: Path) -> None:
    db = sqlite3.connect(data / "new.db")
    db.executescript("CREATE TABLE sessions (id); PRAGMA user_version = 999")
    db.close()
    deleted(data)
    (data / "new.db").rename(data / "catalog.db")


def stale(data: Path) -> None:
    """A copy of earlier takes its place, as when a backup is put back."""
    earlier = data.with_name("earlier.db")
    deleted(data)
    earlier.rename(data / "catalog.db")


def stale_beside_the_journal(data: Path) -> None:
    earlier = data.with_name("earlier.db")
    earlier.rename(data / "catalog.db")


def _copied(data: Path) -> None:
    source, copy = sqlite3.connect(data / "catalog.db", timeout=60), sqlite3.connect(data.with_name("earlier.db"))
    source.backup(copy)
    source.close()
    copy.close()


class Talk:
    """What the servers were asked so far: the word of each session that was answered."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}
        self._more = asyncio.Event()

    async def go_on(self, server: Server, said: list[str]) -> None:
        """Asks one server again and again, each time in a session of its own."""
        while True:
            word = f"w{uuid.uuid4().hex[:12]}"
            reply = await server.call("ask_agent", prompt=f"I keep thinking of a {word}", wait_seconds=45)
            assert reply["status"] == "completed", reply
            self.words[reply["session_id"]] = word
            said.append(word)
            self._more.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not is_so():
                self._more.clear()
                await self._more.wait()


async def listed(server: Server) -> list[str]:
    found: list[str] = []
    page = await server.call("list_sessions", limit=20)
    found += [row["session_id"] for row in page["sessions"]]
    while cursor := page.get("next_cursor"):
        page = await server.call("list_sessions", limit=20, cursor=cursor)
        found += [row["session_id"] for row in page["sessions"]]
    return found


async def check(server: Server, answered: dict[str, str]) -> None:
    """What was answered before is listed once, and the first, the middle and the last of it are found by their word."""
    found = await listed(server)
    assert answered.keys() <= set(found), "what was answered before the list began is in it"
    assert len(found) == len(set(found)), "no session is listed twice"
    sessions = list(answered)
    for session in {sessions[0], sessions[len(sessions) // 2], sessions[-1]}:
        hits = await server.call("list_sessions", query=answered[session])
        assert [row["session_id"] for row in hits["sessions"]] == [session]


@pytest.mark.parametrize(
    "damage",
    [
        deleted,
        deleted_without_its_journal,
        overwritten,
        overwritten_in_the_middle,
        emptied,
        of_another_version,
        stale,
        stale_beside_the_journal,
    ],
)
async def test_lists_and_searches_are_right_again(tmp_path: Path, damage: Damage) -> None:
    talk, data = Talk(), tmp_path / "data"
    async with AsyncExitStack() as stack:
        nursery = stack.enter_context(Nursery())
        servers = [await nursery.start(data, AGENT_MCP_MODEL="offline") for _ in range(SERVERS)]
        for server in servers:
            stack.push_async_callback(server.close)
        said: list[list[str]] = [[] for _ in servers]
        async with asyncio.TaskGroup() as group:
            talking = [group.create_task(talk.go_on(*pair)) for pair in zip(servers, said, strict=True)]
            await talk.until(lambda: all(len(words) >= MORE for words in said))
            _copied(data)
            await _all_are_right(talk, servers, said)
            damage(data)
            await _all_are_right(talk, servers, said)
            await _all_are_right(talk, servers, said)
            for task in talking:
                task.cancel()


async def _all_are_right(talk: Talk, servers: list[Server], said: list[list[str]]) -> None:
    """Looks at once and beside the asks, and again once each server has answered more."""
    counts = [len(words) for words in said]
    answered = dict(talk.words)
    await asyncio.gather(*(check(server, answered) for server in servers))
    await talk.until(lambda: all(len(words) >= count + MORE for words, count in zip(said, counts, strict=True)))
