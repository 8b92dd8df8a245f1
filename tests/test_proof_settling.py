"""What comes while a turn is being kept comes too late: the turn is completed, once, and the session goes on."""

import os
import signal

import pytest

from conftest import PROOF
from proof.kills import Kills
from proof.place import Session, telling

pytestmark = PROOF


@pytest.mark.parametrize("what", ["a cancel", "a cancel by another process", "the client's end"])
async def test_what_comes_while_a_turn_is_being_kept_comes_too_late(kills: Kills, what: str) -> None:
    place = kills.place
    done = await kills.operations(telling)
    written = max(number for number, (kind, name) in enumerate(done) if kind == "replace" and "/message_" in name)
    first = next(n for n, (kind, _) in enumerate(done) if n > written and kind == "fsync")  # the model has ended
    last = max(number for number, (kind, name) in enumerate(done) if kind == "replace" and name.startswith("turns/"))
    for number in (first, last):
        server = await place.victim()
        session = await place.session(server)
        prompt = telling()
        await server.plan(pause=number)
        turn = await place.begin(server, session, prompt)
        assert await server.told("paused")
        if what == "the client's end":
            os.kill(server.pid, signal.SIGTERM)
        else:
            canceller = server if what == "a cancel" else place.witness
            # The cancel has been heard when it gives up waiting for the end of the turn.
            assert (await canceller.call("cancel_turn", turn_id=turn))["status"] == "working"
        server.go()
        await place.check(session)
        assert place.record(turn)["status"] == "completed"
        assert prompt in session.answered
        await server.close()
    assert not list((place.data / "turns").glob("*.cancel"))


@pytest.mark.parametrize("how", ["killed", "refused"])
async def test_what_a_turn_could_not_count_behind_its_record_is_counted_by_the_next_one(kills: Kills, how: str) -> None:
    place = kills.place
    server = await place.victim()
    await place.session(server)  # The first one takes its time, and more is written while it runs.
    await server.plan()
    await place.session(server)
    done = await server.plan()
    record = max(n for n, (kind, name) in enumerate(done) if kind == "replace" and name.startswith("turns/"))
    counts = next(n for n, (kind, name) in enumerate(done) if n > record and kind == "replace" and "metadata" in name)
    session = Session(place.new_id())
    first = telling()
    if how == "killed":
        await server.plan(pause=counts)
        await place.begin(server, session, first)
        assert await server.told("paused")
        await server.kill()
    else:
        await server.plan(fail=counts, errno="ENOSPC")
        await place.ask(server, session, first)
        await server.close()
    (turn,) = place.turns(session)
    assert place.record(turn)["status"] == "completed"
    assert place.metadata(session)["turns"] == 0
    await place.check(session)
    assert session.answered.keys() == set(session.given)
    counted = place.metadata(session)
    assert (counted["turns"], counted["title"]) == (2, first)
    used = [place.record(turn)["usage"]["total_tokens"] for turn in place.turns(session)]
    assert counted["usage"]["total_tokens"] == sum(used)
    assert min(used) > 0
