"""A full disk, a forbidden one, no file to be had: a clear error, nothing is lost, and afterwards it works.

`python -m tests.proof --only full` refuses every write of every kind of turn; here it is some of them.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from conftest import PROOF
from proof.full import REASONS, TURNS, Disk, fill_each, forbid_each, open_no_more, refuse_each
from proof.kills import Kills, killing
from proof.place import Place
from proof.servers import Server

pytestmark = PROOF
_LEAST = 3
"""A sweep that refuses fewer writes than this has not found the turn."""


@pytest.fixture(scope="module")
def place(kills: Kills) -> Place:
    return kills.place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(place: Place) -> AsyncGenerator[Server]:
    """One server for all: it must live through each of them."""
    running = await place.victim()
    yield running
    await running.close()


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from there on"])
@pytest.mark.parametrize("kind", TURNS)
async def test_whatever_write_of_a_turn_is_refused_what_was_there_is_kept_and_the_next_ask_works(
    place: Place, server: Server, kind: str, lasting: bool
) -> None:
    for first, reason in enumerate(REASONS):
        counts = await refuse_each(place, server, kind, reason, lasting=lasting, every=11, first=first)
        assert counts.total() >= _LEAST


async def test_where_no_file_can_be_opened_any_more_the_ask_says_so_and_the_next_one_works(
    place: Place, server: Server
) -> None:
    counts = await open_no_more(place, server, range(8))
    assert counts["refused"] >= _LEAST


async def test_directories_that_may_not_be_written_or_read_cost_nothing_and_the_next_ask_works(place: Place) -> None:
    server = await place.victim(PROOF_OBEYS="yes")
    for mode in (0o500, 0o000):
        counts = await forbid_each(place, server, mode)
        assert counts["refused"] >= _LEAST
    await server.close()


async def test_a_disk_that_fills_up_at_any_page_costs_nothing_and_the_next_ask_works(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        try:
            disk = stack.enter_context(Disk(tmp_path / "disk"))
        except PermissionError as error:
            pytest.skip(f"this needs a disk of its own: {error}")
        phases = await stack.enter_async_context(killing(disk.place))
        server = await phases.place.victim()
        counts = await fill_each(phases.place, disk, server, range(0, 24, 2))
        assert min(counts["refused"], counts["answered"]) >= _LEAST
        await server.close()
