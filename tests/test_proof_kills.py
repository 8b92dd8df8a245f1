"""A few kills in each phase of a turn; `python -m tests.proof` makes a thousand of them."""

import pytest

from conftest import PROOF
from proof.kills import PHASES, Kills
from proof.together import ask_together, soak

pytestmark = PROOF


@pytest.mark.parametrize("phase", PHASES)
async def test_killed_in_any_phase_every_answered_turn_is_kept_once_and_the_next_ask_succeeds(
    kills: Kills, phase: str
) -> None:
    assert await PHASES[phase](kills, 2) == 2


async def test_servers_that_ask_in_the_same_sessions_at_once_lose_and_double_nothing(kills: Kills) -> None:
    done = await ask_together(kills.place, servers=3, sessions=2, asks=24)
    assert (done.asks, done.created) == (24, 2)


async def test_a_server_that_is_asked_for_long_keeps_one_record_for_each_turn_and_no_descriptor(kills: Kills) -> None:
    samples = await soak(kills.place, asks=60, sessions=10, every=20)
    assert len({one.descriptors for one in samples}) <= 4
