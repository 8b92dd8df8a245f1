"""The disk is full at some write of a turn: a clear error, nothing is lost, and afterwards it works."""

import sys
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from conftest import assert_teaches, held
from proof.kills import killing
from proof.place import Place, Session, order
from proof.servers import Refused, Server

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.platform != "linux", reason="the proof forks its servers and looks into /proc"),
    pytest.mark.timeout(900),
]
_LEAST = 40
"""A turn with a tool does more to the directory than this: the count must not be of something else."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Place]:
    async with held(killing(tmp_path_factory.mktemp("faults"))) as phases:
        yield phases.place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(place: Place) -> AsyncGenerator[Server]:
    """One server for all faults: it must live through each of them."""
    running = await place.victim()
    yield running
    await running.close()


def prompt() -> str:
    return order("calculator", expression="6 * 7")


async def refused_or_answered(place: Place, server: Server, session: Session) -> None:
    """Asks while something is wrong: either the reply, or an error that says what is."""
    asked = prompt()
    session.given.append(asked)
    try:
        reply = await server.ask(asked, session.session_id)
        session.answered[asked] = reply["response"]
    except Refused as error:
        assert_teaches(str(error), "storage_error")


async def test_full_at_any_write_of_a_turn_what_was_there_is_kept_and_the_next_ask_works(
    place: Place, server: Server
) -> None:
    session = await place.session(server)
    await server.plan()
    await place.ask(server, session, prompt())
    writes = len(await server.plan())
    assert writes > _LEAST
    for number in range(writes):
        before = place.messages(session)
        await server.plan(fail=number, errno="ENOSPC")
        await refused_or_answered(place, server, session)
        await server.plan()
        assert place.messages(session)[: len(before)] == before
        await place.ask(server, session)  # there is space and permission again
    await place.check(session)
