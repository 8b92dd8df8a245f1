"""Sessions over their life: changed, revived, deleted with all that belongs to them."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bedrock_server import BedrockServer, Gate, say, use_tool
from conftest import Door, assert_teaches, call, made, refused
from engine import ToolDesk, bedrock_env, by_prompt, reached, record_of, serving, tools_env
from life import Person, files_of, order, shell, waiting_at

pytestmark = pytest.mark.asyncio(loop_scope="module")


def edit(data: Path, session: str, **fields: Any) -> None:
    """Changes a session's metadata by hand."""
    file = data / f"session_{session}" / "metadata.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def expire(data: Path, session: str) -> None:
    edit(data, session, last_active_at="2020-01-01T00:00:00Z", revived_at=None)


async def begin(door: Door, **arguments: Any) -> str:
    """A session with one turn in it."""
    session = (await call(door.client, "start_session", **arguments))["session_id"]
    await call(door.client, "ask_agent", prompt="My name is John", session_id=session)
    return str(session)


async def shown(door: Door, session: str) -> dict[str, Any]:
    listed = await call(door.client, "list_sessions", limit=200)
    return next(found for found in listed["sessions"] if found["session_id"] == session)


def near(text: str, seconds: float) -> bool:
    """Whether a time is that many seconds from now, give or take a minute."""
    return abs(datetime.fromisoformat(text) - datetime.now(UTC) - timedelta(seconds=seconds)) < timedelta(minutes=1)


async def test_title_life_and_budget_are_changed_each_by_itself(door: Door) -> None:
    session = await begin(door, title="Before")
    before = await shown(door, session)
    titled = await call(door.client, "update_session", session_id=session, title="  After\n all ")
    assert {**titled, "title": "Before"} == {key: before[key] for key in titled}
    assert titled["title"] == "After all"
    budgeted = await call(door.client, "update_session", session_id=session, token_budget=5000)
    assert budgeted == {**titled, "token_budget": 5000}
    living = await call(door.client, "update_session", session_id=session, ttl_seconds=86_400)
    assert near(living["expires_at"], 86_400)
    assert {**living, "expires_at": None} == {**budgeted, "expires_at": None}
    forever = await call(door.client, "update_session", session_id=session, ttl_seconds=0)
    assert forever["expires_at"] is None
    assert {key: (await shown(door, session))[key] for key in forever} == forever
    found = (await call(door.client, "list_sessions", query="after all"))["sessions"]
    assert session in {one["session_id"] for one in found}
    unchanged = await call(door.client, "update_session", session_id=session)
    assert unchanged == forever


async def test_a_life_revives_an_expired_session_and_counts_from_now_and_a_title_does_not(door: Door) -> None:
    session = await begin(door)
    expire(door.data, session)
    text = await refused(door.client, "ask_agent", prompt="Still there?", session_id=session)
    assert_teaches(text, "session_expired")
    assert f"update_session(session_id='{session}', ttl_seconds=3600)" in text
    assert (await call(door.client, "update_session", session_id=session, title="T"))["status"] == "expired"
    expired = (await call(door.client, "list_sessions", status="expired"))["sessions"]
    assert [found["session_id"] for found in expired] == [session]
    assert (await call(door.client, "update_session", session_id=session, token_budget=9))["status"] == "expired"
    await call(door.client, "update_session", session_id=session, token_budget=0)
    revived = await call(door.client, "update_session", session_id=session, ttl_seconds=600)
    assert revived["status"] == "active"
    assert near(revived["expires_at"], 600)
    asked = await call(door.client, "ask_agent", prompt="What's my name?", session_id=session)
    assert "John" in asked["response"]
    assert near(asked["expires_at"], 600)


async def test_what_can_not_be_changed_is_refused(door: Door) -> None:
    session = await begin(door)
    before = await shown(door, session)
    for arguments in ({"title": "t" * 201}, {"ttl_seconds": -1}, {"token_budget": -1}, {"ttl_seconds": 10**10}):
        text = await refused(door.client, "update_session", session_id=session, **arguments)
        assert_teaches(text, "invalid_argument")
    assert await shown(door, session) == before
    for tool in ("update_session", "delete_session"):
        text = await refused(door.client, tool, session_id="nobodys")
        assert_teaches(text, "session_not_found")


async def test_every_reply_tells_when_its_session_expires(door: Door) -> None:
    session = await begin(door, ttl_seconds=600)
    reply = await call(door.client, "ask_agent", prompt="Hello", session_id=session)
    assert near(reply["expires_at"], 600)
    assert reply["expires_at"] == (await shown(door, session))["expires_at"]
    endless = await begin(door, ttl_seconds=0)
    reply = await call(door.client, "ask_agent", prompt="Hello", session_id=endless)
    assert reply["expires_at"] is None


async def test_a_deleted_session_leaves_nothing_behind(data_dir: Path, era: str) -> None:
    env = {"AGENT_MCP_ALLOW_TOOLS": "shell", "AGENT_MCP_APPROVE": "shell"}
    async with serving(data_dir, env=env, mode=era) as server:
        await server.call("create_agent", name="Operator", tools=["shell"])
        before = made(data_dir)
        session = await server.start_session("xanadu-1", agent_id="operator", title="Kubla")
        await server.ask("My name is Coleridge", session_id=session)
        await server.ask(order("shell", command="echo dome > decree"), session_id=session)
        assert (data_dir / "workspaces" / session / "decree").exists()
        assert (await server.call("list_sessions", query="Coleridge"))["sessions"]
        assert await server.call("delete_session", session_id=session) == {"session_id": session, "deleted": True}
        for tool, arguments in (
            ("ask_agent", {"prompt": "Hi"}),
            ("read_transcript", {}),
            ("get_reply", {}),
            ("delete_session", {}),
        ):
            error = await server.refused(tool, session_id=session, **arguments)
            assert error.endswith("[session_not_found]")
        for query in ("Coleridge", "Kubla", None):
            assert (await server.call("list_sessions", query=query))["sessions"] == []
        assert made(data_dir) - {"workspaces"} == before
        # The id is free, and what begins there knows nothing.
        again = await server.ask("What's my name?", session_id=session, agent_id="operator")
        assert again["new_session"]
        assert "Coleridge" not in again["response"]
        await server.call("delete_session", session_id=session)
    for word in ("xanadu-1", "Coleridge", "Kubla"):
        assert files_of(data_dir, word) == []  # the index and locks included


@pytest.mark.parametrize("where", ["in this process", "in another process"])
async def test_deleting_a_session_cancels_what_runs_and_waits_in_it_first(data_dir: Path, where: str) -> None:
    gate = Gate()
    with BedrockServer(by_prompt({"Work": say("Half ", gate, "whole.")})) as model:
        env = bedrock_env(model)
        async with serving(data_dir, env=env) as one, serving(data_dir, env=env) as two:
            deleting = one if where == "in this process" else two
            await two.call("list_agents")
            before = made(data_dir)
            session = await one.start_session("doomed")
            asking = asyncio.create_task(one.client.call_tool("ask_agent", {"prompt": "Work", "session_id": session}))
            await reached(gate)
            queued = [await one.ask(f"Wait {n}", session_id=session, wait_seconds=0) for n in range(5)]
            assert await deleting.call("delete_session", session_id=session) == {
                "session_id": session,
                "deleted": True,
            }
            running = await asking
            assert "cancelled" in str(running.content)
            gate.release()
            for reply in queued:
                async with asyncio.timeout(120):
                    while (await one.client.call_tool("get_reply", {"turn_id": reply["turn_id"]})).is_error is False:
                        pass
            assert (await one.ask("Elsewhere"))["response"] == "You said: Elsewhere"
            assert (await one.ask("Anew", session_id=session, agent_id="assistant"))["new_session"]
            await deleting.call("delete_session", session_id=session)
            for listing in (one, two):
                others = (await listing.call("list_sessions"))["sessions"]
                assert [found["title"] for found in others] == ["Elsewhere"]
        assert [received.last_text for received in model.requests] == ["Work", "Elsewhere", "Anew"]
        kept = made(data_dir) - before
        turns = [name for name in kept if name.startswith("turns/")]
        assert len(turns) == 1, turns  # Elsewhere's


async def test_a_tool_that_outlives_its_session_and_asks_its_agent_on_brings_nothing_back(data_dir: Path) -> None:
    with ToolDesk() as desk, BedrockServer(by_prompt({"Use it": use_tool("stubborn", {"port": desk.port})})) as model:
        async with serving(data_dir, env=bedrock_env(model, **tools_env())) as server:
            await server.call("create_agent", name="User", tools=["py:stubborn"])
            session = await server.start_session("doomed", agent_id="user")
            await server.ask("Use it", session_id=session, wait_seconds=0)
            await desk.started()
            await server.call("delete_session", session_id=session)
            before = made(data_dir)
            desk.release()
            await desk.started()  # the tool has asked its agent, and got what it got
            assert made(data_dir) == before
            desk.release()
            assert (await server.call("list_sessions"))["sessions"] == []
        assert [received.last_text for received in model.requests] == ["Use it"]


async def test_a_session_whose_turn_waits_for_a_person_or_is_being_run_by_one_can_be_deleted(data_dir: Path) -> None:
    env = {"AGENT_MCP_ALLOW_TOOLS": "shell"}
    async with serving(data_dir, env=env) as server, waiting_at(data_dir.parent / "fifo") as fifo:
        await server.call("create_agent", name="Operator", tools=["shell"])
        before = made(data_dir)
        waiting = await server.ask(order("shell", command="true"), agent_id="operator")
        await server.call("delete_session", session_id=waiting["session_id"])
        error = await server.refused("get_reply", turn_id=waiting["turn_id"])
        assert error.endswith("[turn_not_found]")
        held = await server.ask(order("shell", command=f"cat {fifo.path}"), agent_id="operator")
        approving = asyncio.create_task(shell(data_dir, "turns", "approve", held["turn_id"], "--json", env=env))
        await fifo.reached()
        await server.call("delete_session", session_id=held["session_id"])
        assert (await approving).code in (0, 1)
        assert made(data_dir) - {"workspaces"} == before


DAMAGE = {
    "metadata": ("metadata.json", "{"),
    "session.json": ("session.json", ""),
    "a message": ("agents/agent_assistant/messages/message_0.json", "no json"),
    "the agent": ("agents/agent_assistant/agent.json", None),
}


@pytest.mark.parametrize("what", DAMAGE)
async def test_a_damaged_session_can_be_deleted(door: Door, what: str) -> None:
    session = await begin(door)
    name, text = DAMAGE[what]
    file = door.data / f"session_{session}" / name
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    assert_teaches(await refused(door.client, "ask_agent", prompt="Hi", session_id=session), "session_damaged")
    await call(door.client, "delete_session", session_id=session)
    assert not [name for name in files_of(door.data, session) if not name.startswith(("catalog", "locks"))]
    assert_teaches(await refused(door.client, "read_transcript", session_id=session), "session_not_found")


async def test_a_running_turn_keeps_its_session_open_though_its_life_is_over(data_dir: Path) -> None:
    gate = Gate()
    with BedrockServer(by_prompt({"Work": say("Half ", gate, "whole.")})) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            session = await server.start_session("short", ttl_seconds=60)
            working = await server.ask("Work", session_id=session, wait_seconds=0)
            await reached(gate)
            expire(data_dir, session)
            shown = (await server.call("list_sessions", status="active"))["sessions"][0]
            assert (shown["status"], shown["expires_at"]) == ("active", None)
            assert shown["open_turn"] == {"turn_id": working["turn_id"], "status": "working"}
            queued = await server.ask("Next", session_id=session, wait_seconds=0)
            gate.release()
            assert (await server.call("get_reply", turn_id=queued["turn_id"]))["response"] == "You said: Next"
    assert record_of(data_dir, queued["turn_id"])["status"] == "completed"


async def test_a_session_waiting_for_a_person_outlives_its_life(data_dir: Path, era: str) -> None:
    env = {"AGENT_MCP_ALLOW_TOOLS": "shell"}
    person = Person(lambda _: "cancel")
    async with serving(data_dir, env=env, mode=era, elicitation_callback=person) as server:
        await server.call("create_agent", name="Operator", tools=["shell"])
        waiting = await server.ask(order("shell", command="echo 42"), agent_id="operator")
        expire(data_dir, waiting["session_id"])
        person.decide = lambda _: "accept"
        done = await server.call("get_reply", turn_id=waiting["turn_id"])
        assert "42" in done["response"]
        assert done["status"] == "completed"
        assert near(done["expires_at"], 3600)
