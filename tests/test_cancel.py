"""Cancelling: by the tool, by the client that asked, from another process; and what is left of the turn."""

import asyncio
from pathlib import Path

import pytest

from bedrock_server import Answer, BedrockServer, Gate, Text, say, use_tool
from engine import (
    NOTE,
    Progress,
    Served,
    ToolDesk,
    bedrock_env,
    by_prompt,
    cancelled_by_client,
    reached,
    record_of,
    roles,
    said,
    serving,
    tools_env,
)


async def _go_on(server: Served, model: BedrockServer, session: str) -> list[str]:
    """Asks once more, and returns what the model saw: it must be a history that a model takes."""
    assert (await server.ask("Go on", session_id=session))["response"] == "You said: Go on"
    assert model.violations == []
    return said(model.requests[-1])


async def test_a_queued_turn_that_is_cancelled_never_reaches_the_model(data_dir: Path, era: str) -> None:
    gate = Gate()
    with BedrockServer(by_prompt({"First": say("One ", gate, "moment.")})) as model:
        async with serving(data_dir, env=bedrock_env(model), mode=era) as server:
            first = await server.ask("First", wait_seconds=0)
            session = first["session_id"]
            await reached(gate)
            queued = await server.ask("Second", session_id=session, wait_seconds=0)
            reply = await server.call("cancel_turn", turn_id=queued["turn_id"])
            assert (reply["status"], reply["response"], reply["stop_reason"]) == ("cancelled", "", "cancelled")
            assert await server.call("get_reply", turn_id=queued["turn_id"]) == reply
            gate.release()
            assert (await server.call("get_reply", turn_id=first["turn_id"]))["response"] == "One moment."
            assert await _go_on(server, model, session) == ["First", "One moment.", "Go on"]
    assert record_of(data_dir, queued["turn_id"])["prompt"] == "Second"


async def test_a_turn_cancelled_before_any_text_withdraws_its_prompt(data_dir: Path) -> None:
    gate = Gate()
    with BedrockServer(by_prompt({"Think": Answer([Text("Thought.")], before=[gate])})) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            session = (await server.ask("Hello"))["session_id"]
            asked = await server.ask("Think", session_id=session, wait_seconds=0)
            await reached(gate)
            reply = await server.call("cancel_turn", session_id=session)
            assert (reply["turn_id"], reply["status"], reply["response"]) == (asked["turn_id"], "cancelled", "")
            assert (await server.call("read_transcript", session_id=session))["total"] == 2
            assert await _go_on(server, model, session) == ["Hello", "You said: Hello", "Go on"]
            # A turn that has ended stays as it is.
            assert await server.call("cancel_turn", turn_id=asked["turn_id"]) == reply
    assert record_of(data_dir, asked["turn_id"])["prompt"] == "Think"


async def test_a_turn_cancelled_in_its_text_keeps_it_with_a_note(data_dir: Path, era: str) -> None:
    gate = Gate()
    with BedrockServer(by_prompt({"Count": say("One, two, ", gate, "three.")})) as model:
        async with serving(data_dir, env=bedrock_env(model), mode=era) as server:
            progress = Progress()
            asking = asyncio.create_task(
                server.client.call_tool("ask_agent", {"prompt": "Count"}, progress_callback=progress)
            )
            await progress.until("One, two, ")
            session = (await server.call("list_sessions"))["sessions"][0]
            reply = await server.call("cancel_turn", turn_id=session["open_turn"]["turn_id"])
            assert reply["status"] == "cancelled"
            assert reply["response"].startswith("One, two,\n")
            assert NOTE in reply["response"]
            assert (await asking).structured_content == reply
            seen = await _go_on(server, model, session["session_id"])
            assert seen == ["Count", reply["response"], "Go on"]


async def test_a_turn_cancelled_in_a_tool_keeps_the_call_with_a_note(data_dir: Path) -> None:
    with ToolDesk() as desk, BedrockServer(by_prompt({"Use it": use_tool("hold", {"port": desk.port})})) as model:
        async with serving(data_dir, env=bedrock_env(model, **tools_env())) as server:
            await server.call("create_agent", name="User", tools=["py:hold"])
            asked = await server.ask("Use it", agent_id="user", wait_seconds=0)
            await desk.started()
            reply = await server.call("cancel_turn", turn_id=asked["turn_id"])
            assert (reply["status"], [c["name"] for c in reply["tool_calls"]]) == ("cancelled", ["hold"])
            assert NOTE in reply["response"]
            desk.release()  # the tool ends after its turn, and nobody hears of it
            seen = await _go_on(server, model, asked["session_id"])
        assert roles(model.requests[-1]) == "uauau"
    assert "not known" in seen[2]
    assert NOTE in seen[3]


@pytest.mark.parametrize("moment", ["queued", "before any text", "in the text"])
async def test_the_client_that_cancels_its_ask_cancels_the_turn(data_dir: Path, era: str, moment: str) -> None:
    gate = Gate()
    replies = {"Slow": say("Some text ", gate, "more."), "Silent": Answer([Text("Late.")], before=[gate])}
    prompt = "Silent" if moment == "before any text" else "Slow"
    with BedrockServer(by_prompt(replies)) as model:
        async with serving(data_dir, env=bedrock_env(model), mode=era) as server:
            session = await server.start_session("mine")
            progress = Progress()
            running = ""
            if moment == "queued":
                running = (await server.ask("Slow", session_id=session, wait_seconds=0))["turn_id"]
                await reached(gate)

            async def ask() -> None:
                arguments = {"prompt": prompt, "session_id": session}
                await server.client.call_tool("ask_agent", arguments, progress_callback=progress)

            async def has_begun() -> None:
                match moment:
                    case "queued":
                        await _latest_turn_is_not(server, session, running)
                    case "before any text":
                        await reached(gate)
                    case _:
                        await progress.until("Some text ")

            await cancelled_by_client(ask, has_begun())
            reply = await server.call("get_reply", session_id=session)
            assert reply["status"] == "cancelled"
            gate.release()
            if moment == "queued":
                assert (await server.call("get_reply", turn_id=running))["status"] == "completed"
                assert await _go_on(server, model, session) == ["Slow", "Some text more.", "Go on"]
            elif moment == "before any text":
                assert await _go_on(server, model, session) == ["Go on"]
            else:
                assert await _go_on(server, model, session) == ["Slow", reply["response"], "Go on"]
                assert reply["response"].startswith("Some text\n")
                assert NOTE in reply["response"]


async def _latest_turn_is_not(server: Served, session: str, turn: str) -> None:
    """Waits until there is a later turn in the session than `turn`."""
    async with asyncio.timeout(10):
        while (await server.call("get_reply", session_id=session, wait_seconds=0))["turn_id"] == turn:
            pass


async def test_the_client_that_cancels_a_get_reply_only_stops_following(data_dir: Path, era: str) -> None:
    gate = Gate()
    with BedrockServer(by_prompt({"Count": say("One, two, ", gate, "three.")})) as model:
        async with serving(data_dir, env=bedrock_env(model), mode=era) as server:
            asked = await server.ask("Count", wait_seconds=0)
            progress = Progress()

            async def follow() -> None:
                arguments = {"turn_id": asked["turn_id"]}
                await server.client.call_tool("get_reply", arguments, progress_callback=progress)

            await cancelled_by_client(follow, progress.until("One, two, "))
            # Whatever the cancel does is done before a later request of the same client is answered.
            await server.client.list_tools()
            gate.release()
            reply = await server.call("get_reply", turn_id=asked["turn_id"])
            assert (reply["status"], reply["response"]) == ("completed", "One, two, three.")


@pytest.mark.parametrize("moment", ["queued", "in the text", "in a tool"])
async def test_another_process_cancels_a_turn(data_dir: Path, moment: str) -> None:
    gate = Gate()
    with ToolDesk() as desk:
        replies = {"Count": say("One, two, ", gate, "three."), "Use it": use_tool("hold", {"port": desk.port})}
        with BedrockServer(by_prompt(replies)) as model:
            env = bedrock_env(model, **tools_env())
            async with serving(data_dir, env=env) as server, serving(data_dir, env=env) as other:
                await server.call("create_agent", name="User", tools=["py:hold"])
                session = await server.start_session("shared", agent_id="user")
                prompt = "Use it" if moment == "in a tool" else "Count"
                asked = await server.ask(prompt, session_id=session, wait_seconds=0)
                await (desk.started() if moment == "in a tool" else reached(gate))
                turn = asked
                if moment == "queued":
                    turn = await server.ask("Second", session_id=session, wait_seconds=0)
                reply = await other.call("cancel_turn", turn_id=turn["turn_id"])
                assert reply["status"] == "cancelled"
                assert await server.call("get_reply", turn_id=turn["turn_id"]) == reply
                gate.release()
                desk.release()
                if moment == "queued":
                    await server.call("get_reply", turn_id=asked["turn_id"])
                seen = await _go_on(other, model, session)
    assert not list((data_dir / "turns").glob("*.cancel"))
    if moment == "queued":
        assert seen == ["Count", "One, two, three.", "Go on"]
    else:
        assert NOTE in seen[-2]
        assert ("One, two," in seen[-2]) == (moment == "in the text")
