"""Progress: what a client is told while a turn runs."""

import asyncio
import time
from pathlib import Path

import pytest
from mcp.client import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult

from agent_mcp.server.app import build_server
from bedrock_server import Answer, BedrockServer, Gate, Pause, StreamFault, Text, fail, in_turn, say, use_tool
from conftest import call, text_of
from contract_record import RecordingClient
from engine import Progress, bedrock_env, by_prompt, reached, requests, roles, serving
from in_process import CALLER, running
from life import order


async def test_forty_deltas_over_four_seconds_are_told_as_they_come(data_dir: Path, era: str) -> None:
    gate = Gate()
    pieces = [f"word{n} " for n in range(40)]
    steps = [gate, *(step for piece in pieces for step in (piece, Pause(0.1)))]
    with BedrockServer(lambda _: say(*steps)) as model:
        async with serving(data_dir, env=bedrock_env(model), mode=era) as server:
            progress = Progress()
            asking = asyncio.create_task(
                server.client.call_tool("ask_agent", {"prompt": "Tell me"}, progress_callback=progress)
            )
            await reached(gate)
            began = time.monotonic()
            gate.release()
            result = await asking
            ended = time.monotonic()
        assert model.violations == []
    assert result.structured_content is not None, text_of(result)
    reply = result.structured_content["response"]
    assert reply == "".join(pieces)
    assert len(progress.messages) >= 8
    assert progress.times[0] - began < (ended - began) / 2, "the first is told long before the last is written"
    assert all(message in reply for message in progress.messages)
    assert "".join(progress.messages) == reply
    assert progress.steps == sorted(set(progress.steps)), "progress must increase"


async def test_a_silent_model_gives_a_heartbeat_to_all_who_follow_in_any_process(data_dir: Path) -> None:
    gate = Gate()
    with BedrockServer(lambda _: Answer([Text("At last.")], before=[gate])) as model:
        env = bedrock_env(model)
        async with serving(data_dir, env=env) as server, serving(data_dir, env=env) as other:
            here, there = Progress(), Progress()
            asking = asyncio.create_task(
                server.client.call_tool("ask_agent", {"prompt": "Think"}, progress_callback=here)
            )
            await reached(gate)
            session = (await other.call("list_sessions"))["sessions"][0]
            arguments = {"turn_id": session["open_turn"]["turn_id"]}
            waiting = asyncio.create_task(other.client.call_tool("get_reply", arguments, progress_callback=there))
            await asyncio.gather(here.until("Still working (10 s)"), there.until("Still working (10 s)"))
            gate.release()
            replies = [await asking, await waiting]
        assert model.violations == []
    for reply in replies:
        assert reply.structured_content is not None
        assert reply.structured_content["response"] == "At last."
    assert here.messages[0] == there.messages[0] == "Still working (10 s)"


async def test_tools_are_told_by_name_as_they_run(data_dir: Path, era: str) -> None:
    replies = in_turn(
        Answer([Text("Let me see. "), use_tool("calculator", {"expression": "6 * 7"}).blocks[0]]),
        use_tool("calculator", {"expression": "6 *"}),
        say("It is 42."),
    )
    with BedrockServer(replies) as model:
        async with serving(data_dir, env=bedrock_env(model), mode=era) as server:
            await server.call("create_agent", name="Counter", tools=["calculator"])
            progress = Progress()
            result = await server.client.call_tool(
                "ask_agent", {"prompt": "6 times 7?", "agent_id": "counter"}, progress_callback=progress
            )
        assert model.violations == []
    reply = result.structured_content
    assert reply is not None, text_of(result)
    assert reply["response"] == "It is 42."
    assert [call["status"] for call in reply["tool_calls"]] == ["success", "error"]
    assert reply["tool_calls"][0]["arguments"] == {"expression": "6 * 7"}
    told = [message for message in progress.messages if "tool" in message]
    assert told == [
        "Uses the tool calculator",
        "The tool calculator is done",
        "Uses the tool calculator",
        "The tool calculator failed",
    ]
    text = "".join(message for message in progress.messages if "tool" not in message)
    assert text == "Let me see. It is 42."


@pytest.mark.parametrize("where", ["before the answer", "inside the stream"])
async def test_a_throttled_call_is_made_again_and_progress_says_so(data_dir: Path, where: str) -> None:
    refusal = (
        fail("ThrottlingException")
        if where == "before the answer"
        else say("Void words. ", StreamFault("throttlingException"))
    )
    with BedrockServer(in_turn(refusal, say("Here I am."), say("Still here."))) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            progress = Progress()
            result = await server.client.call_tool("ask_agent", {"prompt": "Hello?"}, progress_callback=progress)
            reply = result.structured_content
            assert reply is not None, text_of(result)
            again = await server.ask("And now?", session_id=reply["session_id"])
            transcript = await server.call("read_transcript", session_id=reply["session_id"])
        assert model.violations == []
        assert [roles(r) for r in await requests(model, 3)] == ["u", "u", "uau"]
    assert reply["response"] == "Here I am."
    assert reply["status"] == "completed"
    assert "The model is busy; tried again in 1 s" in progress.messages
    assert again["response"] == "Still here."
    assert "Void" not in str(transcript)


async def test_a_second_follower_is_told_what_was_written_before_it_came(data_dir: Path) -> None:
    gate = Gate()
    with BedrockServer(by_prompt({"Count": say("One, two, ", gate, "three.")})) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            asked = await server.ask("Count", wait_seconds=0)
            await reached(gate)
            progress = Progress()
            waiting = asyncio.create_task(
                server.client.call_tool("get_reply", {"turn_id": asked["turn_id"]}, progress_callback=progress)
            )
            await progress.until("One, two, ")
            gate.release()
            result = await waiting
    assert result.structured_content is not None
    assert result.structured_content["response"] == "".join(progress.messages) == "One, two, three."


async def test_progress_goes_on_while_a_person_is_asked_and_a_decision_elsewhere_ends_the_waiting(
    data_dir: Path,
) -> None:
    asked, progress = asyncio.Event(), Progress()

    async def person(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        asked.set()
        await asyncio.Event().wait()  # reads, and does nothing
        raise AssertionError

    async with (
        running(data_dir, allow_tools=("shell",)) as service,
        RecordingClient(build_server(service), mode="legacy", elicitation_callback=person) as client,
    ):
        await call(client, "create_agent", name="Operator", tools=["shell"])
        arguments = {"prompt": order("shell", command="echo 42 done"), "agent_id": "operator", "session_id": "mine"}
        asking = asyncio.create_task(client.call_tool("ask_agent", arguments, progress_callback=progress))
        await asyncio.wait_for(asked.wait(), 60)
        await progress.until("Waits for a person's decision (10 s)")
        [turn] = await service.turns.list_turns(CALLER)
        await service.turns.decide(CALLER, turn.turn_id, approve=True)
        result = await asyncio.wait_for(asking, 60)
    assert not result.is_error, text_of(result)
    assert "42 done" in text_of(result)
