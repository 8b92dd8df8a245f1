"""Nothing grows without bound: records of turns, who is told of changes, what waits for a follower.

The queue of a session is bounded in test_turns.py, what one connection may subscribe to in test_notices.py; that memory
and descriptors stay as they are is measured by `python -m tests.proof --only soak`.
"""

import asyncio
import gc
import os
import time
import weakref
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from agent_mcp.events import Event, Mailbox, Retrying, TextWritten
from agent_mcp.models import Models, parse_model
from agent_mcp.server.app import build_server
from agent_mcp.storage import upkeep
from conftest import assert_teaches
from engine import DEADLINE, serving
from in_process import ask, running
from test_notices import BEGUN, STREAM
from wire import MODERN, Refused, wire

_MOST = 256


def age(data: Path, turn: str, *, days: float) -> Path:
    """Makes the record of a turn as old as that."""
    path = data / "turns" / f"{turn}.json"
    at = time.time() - days * 86_400
    os.utime(path, (at, at))
    return path


def until_gone(path: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while path.exists():
        assert time.monotonic() < deadline, f"{path} is still there"
        time.sleep(0.05)


async def test_a_turns_record_is_gone_after_seven_days_and_what_was_said_is_not(data_dir: Path, era: str) -> None:
    async with serving(data_dir, mode=era) as server:
        old = await server.ask("My name is John")
        young = await server.ask("Hello", session_id=old["session_id"])
    path = age(data_dir, old["turn_id"], days=7.1)
    age(data_dir, young["turn_id"], days=6.9)
    async with serving(data_dir, mode=era) as server:
        assert_teaches(await server.refused("get_reply", turn_id=old["turn_id"]), "turn_not_found")
        assert await server.call("get_reply", turn_id=young["turn_id"]) == young
        assert (await server.call("read_transcript", session_id=old["session_id"]))["total"] == 4
    assert not path.exists()


async def test_a_server_that_runs_for_long_removes_old_records_too(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "CLEAR_SECONDS", 0.0)
    async with running(data_dir) as service:
        old, young = await ask(service, "One"), await ask(service, "Two")
        path = age(data_dir, old.turn_id, days=7.1)
        await asyncio.to_thread(until_gone, path)
        assert (data_dir / "turns" / f"{young.turn_id}.json").exists()


async def test_only_so_many_streams_of_notices_are_kept_at_once(data_dir: Path) -> None:
    async with running(data_dir) as service, wire(build_server(service), MODERN) as client:
        wanted = {"notifications": {"resourcesListChanged": True}}
        numbers = [(await client.start("subscriptions/listen", wanted))[0] for _ in range(_MOST)]
        await client.until(
            lambda: {params["_meta"][STREAM] for method, params in client.told if method == BEGUN} == set(numbers)
        )
        with pytest.raises(Refused):
            await client.request("subscriptions/listen", wanted)


@pytest.mark.filterwarnings("ignore:resources/subscribe is removed")  # it is how the older revisions ask
async def test_only_so_many_connections_of_the_older_revisions_are_told_at_once(data_dir: Path) -> None:
    uri = {"uri": "session://any/transcript"}
    async with running(data_dir) as service, AsyncExitStack() as stack:
        server = build_server(service)
        first = await stack.enter_async_context(AsyncExitStack())
        for number in range(_MOST):
            client = await (stack if number else first).enter_async_context(wire(server, "2025-11-25"))
            await client.request("resources/subscribe", uri)
        late = await stack.enter_async_context(wire(server, "2025-11-25"))
        with pytest.raises(Refused, match="close some"):
            await late.request("resources/subscribe", uri)
        await first.aclose()  # whoever leaves makes room
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    await late.request("resources/subscribe", uri)
                    break
                except Refused:
                    await asyncio.sleep(0.05)


async def test_what_waits_for_a_follower_that_is_slow_is_the_latest_and_no_more() -> None:
    mailbox = Mailbox()
    for number in range(1000):
        mailbox.put(Retrying(float(number)))
    for _ in range(100):
        mailbox.put(TextWritten("x" * 10_000))
    mailbox.close()
    found: list[Event] = [event async for event in mailbox.events(wait=1, beat=1, pace=0)]
    assert len(found) == 256
    assert found[-2] == Retrying(999.0)
    assert isinstance(found[-1], TextWritten)
    assert len(found[-1].text) == 64 * 1024


def test_only_so_many_models_are_kept_whatever_parameters_callers_make_up() -> None:
    models = Models(default="offline", environ={})
    used, first = (
        models.build(parse_model("offline")),
        weakref.ref(models.build(parse_model("offline"), {"top_p": 1.0})),
    )
    for number in range(100):
        models.build(parse_model("offline"), {"temperature": number / 100})
        assert models.build(parse_model("offline")) is used
    gc.collect()
    assert first() is None
