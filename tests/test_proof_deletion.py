"""Deleting a session that several processes ask in leaves nothing behind, and nothing of it comes back."""

import asyncio

import pytest

from conftest import PROOF
from proof.kills import Kills
from proof.place import Place, Session, order, telling
from proof.servers import DEADLINE, Refused, Server

pytestmark = PROOF


def traces(place: Place, session: Session) -> list[str]:
    """The files that are named after a session or are of its turns, the index left out."""
    found = [path for path in place.data.rglob("*") if session.session_id in path.name]
    records = [path for path in (place.data / "turns").iterdir() if session.session_id in path.read_text()]
    return sorted(str(path.relative_to(place.data)) for path in {*found, *records})


async def nothing_is_left(place: Place, session: Session, *servers: Server) -> None:
    for server in (*servers, place.witness):
        listed = (await server.call("list_sessions", limit=200))["sessions"]
        assert session.session_id not in [one["session_id"] for one in listed]
        with pytest.raises(Refused, match="session_not_found"):
            await server.call("ask_agent", prompt="Still there?", session_id=session.session_id)
    assert traces(place, session) == []


async def ended(server: Server, prompt: str, session: Session) -> str:
    """How an ask ended in a session that is being deleted."""
    try:
        return str((await server.ask(prompt, session.session_id))["status"])
    except Refused as refused:
        return refused.code


async def test_a_session_that_two_processes_ask_in_is_deleted_by_a_third(kills: Kills) -> None:
    place = kills.place
    servers = [await place.victim(), await place.victim()]
    for _ in range(3):
        session = await place.session(servers[0])
        prompts = [telling() for _ in range(12)]
        asks = [asyncio.create_task(ended(servers[n % 2], prompt, session)) for n, prompt in enumerate(prompts)]
        await asyncio.wait(asks, return_when=asyncio.FIRST_COMPLETED, timeout=DEADLINE)
        await place.witness.call("delete_session", session_id=session.session_id)
        ends = await asyncio.gather(*asks)
        assert set(ends) <= {"completed", "cancelled", "session_not_found", "turn_not_found"}, ends
        assert "completed" in ends
        await nothing_is_left(place, session, *servers)
    for server in servers:
        await server.close()


async def test_a_session_is_deleted_at_any_moment_of_a_turn_of_another_process(kills: Kills) -> None:
    place = kills.place
    prompt = order("calculator", expression="6 * 7")
    operations = len(await kills.operations(lambda: prompt))
    server = await place.victim()
    for number in range(1, operations, 6):
        session = await place.session(server)
        await server.plan(pause=number, whole=True)
        asked = asyncio.create_task(ended(server, prompt, session))
        assert await server.told("paused")
        await place.witness.watch(f"session-{session.session_id}.lock")
        deleted = place.witness.send("delete_session", session_id=session.session_id)
        assert await place.witness.told("watched")  # it has the lock, or waits for it
        server.go()
        await place.witness.result(deleted)
        assert await asked in {"completed", "cancelled", "session_not_found", "turn_not_found"}
        await nothing_is_left(place, session, server)
    await server.close()
