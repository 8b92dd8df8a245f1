"""Several server processes on one data directory, and what becomes of the turns of one that is killed."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bedrock_server import Answer, BedrockServer, Gate, Received, Reply, Text, say, use_tool
from engine import (
    Served,
    ToolDesk,
    bedrock_env,
    by_prompt,
    reached,
    record_of,
    roles,
    said,
    serving,
    tools_env,
)


async def test_two_processes_take_turns_in_one_session(data_dir: Path, era: str) -> None:
    gate = Gate()

    def script(received: Received) -> Reply:
        held = [] if received.last_text == "Warm up" else [gate]
        return Answer([Text(f"Reply to {received.last_text}")], before=held)

    with BedrockServer(script) as model:
        env = bedrock_env(model)
        async with serving(data_dir, env=env, mode=era) as one, serving(data_dir, env=env, mode=era) as two:
            await asyncio.gather(one.ask("Warm up"), two.ask("Warm up"))
            session = await one.start_session("shared")
            asks = [(server, f"{name} {n}") for n in range(4) for server, name in ((one, "One"), (two, "Two"))]
            # All are in their queues before the first one is answered.
            turns = [await server.ask(prompt, session_id=session, wait_seconds=0) for server, prompt in asks]
            await reached(gate)
            gate.release()
            replies = await asyncio.gather(
                *(server.call("get_reply", turn_id=t["turn_id"]) for (server, _), t in zip(asks, turns, strict=True))
            )
            transcript = await two.call("read_transcript", session_id=session)
        assert model.violations == []
        seen = model.requests[2:]
    assert [reply["response"] for reply in replies] == [f"Reply to {prompt}" for _, prompt in asks]
    order = [received.last_text for received in seen]
    for name in ("One", "Two"):
        assert [prompt for prompt in order if name in prompt] == [f"{name} {n}" for n in range(4)]
    # Each turn saw the replies to all that came before it, so that none ran beside another.
    conversation = [text for prompt in order for text in (prompt, f"Reply to {prompt}")]
    assert [said(received) for received in seen] == [conversation[: 2 * n + 1] for n in range(8)]
    assert [message["text"] for message in transcript["messages"]] == conversation


async def test_a_process_waits_for_the_turn_of_another_one(data_dir: Path) -> None:
    gate = Gate()
    with BedrockServer(by_prompt({"First": say("One ", gate, "moment.")})) as model:
        env = bedrock_env(model)
        async with serving(data_dir, env=env) as one, serving(data_dir, env=env) as two:
            first = await one.ask("First", wait_seconds=0)
            session = first["session_id"]
            await reached(gate)
            second = asyncio.create_task(two.ask("Second", session_id=session))
            # Another session of the same process is not kept waiting by it.
            assert (await two.ask("Elsewhere"))["response"] == "You said: Elsewhere"
            assert (await two.call("get_reply", turn_id=first["turn_id"], wait_seconds=0))["status"] == "working"
            assert [received.last_text for received in model.requests] == ["First", "Elsewhere"]
            gate.release()
            assert (await second)["response"] == "You said: Second"
        assert model.violations == []
        assert said(model.requests[-1]) == ["First", "One moment.", "Second"]


async def _interrupted(server: Served, **which: Any) -> str:
    error = await server.refused("get_reply", **which)
    assert error.endswith("[turn_interrupted]")
    assert "ask again" in error
    return error


@pytest.mark.parametrize("moment", ["before any text", "in the text", "in a tool"])
async def test_the_turn_of_a_killed_server_is_interrupted_and_its_session_goes_on(data_dir: Path, moment: str) -> None:
    gate = Gate()
    with ToolDesk() as desk:
        replies: dict[str, Reply] = {
            "before any text": Answer([Text("Late.")], before=[gate]),
            "in the text": say("Half of ", gate, "it."),
        }
        prompt = moment
        # What got no answer at all is withdrawn; text and tools are kept, and closed with a note.
        expected = {"before any text": "u", "in the text": "uau", "in a tool": "uauau"}[moment]

        def script(received: Received) -> Reply:
            if received.last_text == "in a tool":
                return use_tool("hold", {"port": desk.port})
            return by_prompt(replies)(received)

        with BedrockServer(script) as model:
            env = bedrock_env(model, **tools_env())
            async with serving(data_dir, env=env) as other:
                async with serving(data_dir, env=env) as server:
                    await server.call("create_agent", name="User", tools=["py:hold"])
                    sessions = [await server.start_session(f"killed-{n}", agent_id="user") for n in range(3)]
                    turns: list[str] = []
                    for session in sessions:
                        asked = await server.ask(prompt, session_id=session, wait_seconds=0)
                        turns.append(asked["turn_id"])
                        if moment == "in a tool":
                            await desk.started()
                    queued = await server.ask("Queued", session_id=sessions[0], wait_seconds=0)
                    await asyncio.to_thread(model.wait_for_requests, 3)
                    if moment != "in a tool":
                        await reached(gate)
                    if moment == "in the text":
                        for turn in turns:
                            await _kept(data_dir, turn)
                    await other.call("list_agents")
                    following = asyncio.create_task(other.refused("get_reply", turn_id=turns[0]))
                    server.kill()
                    # Who was following hears of it, who asks later too, and who just goes on need not ask.
                    async with asyncio.timeout(5):
                        first = await following
                assert first.endswith("[turn_interrupted]")
                assert await _interrupted(other, turn_id=turns[0]) == first
                await _interrupted(other, turn_id=queued["turn_id"])
                await _interrupted(other, session_id=sessions[1])
                gate.release()
                for session in sessions:
                    assert (await other.ask("Go on", session_id=session))["response"] == "You said: Go on"
                    assert roles(model.requests[-1]) == expected
                if moment == "in the text":
                    read = await other.call("read_transcript", session_id=sessions[0])
                    assert read["messages"][1]["text"].startswith("Half of")
                    assert "interrupted" in read["messages"][1]["text"]
                await _interrupted(other, turn_id=turns[2])
                listed = await other.call("list_sessions")
                assert [s["open_turn"] for s in listed["sessions"]] == [None] * 3
            assert model.violations == []
    assert record_of(data_dir, turns[0])["prompt"] == prompt


async def _kept(data_dir: Path, turn_id: str) -> None:
    """Waits until the server has kept what the model wrote so far, which it does from time to time."""
    async with asyncio.timeout(120):
        while not (data_dir / "turns" / f"{turn_id}.partial").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # a file of another process


async def test_a_turn_queued_in_a_killed_server_is_interrupted_also_while_its_session_is_busy(data_dir: Path) -> None:
    gates = {"First": Gate(), "Other": Gate()}
    replies = {prompt: say("Some ", gate, "text.") for prompt, gate in gates.items()}
    with BedrockServer(by_prompt(replies)) as model:
        env = bedrock_env(model)
        async with serving(data_dir, env=env) as other:
            async with serving(data_dir, env=env) as server:
                session = await server.start_session("busy")
                await server.ask("First", session_id=session, wait_seconds=0)
                await reached(gates["First"])
                queued = await server.ask("Queued", session_id=session, wait_seconds=0)
                server.kill()
            busy = await other.ask("Other", session_id=session, wait_seconds=0)
            await reached(gates["Other"])
            await _interrupted(other, turn_id=queued["turn_id"])
            gates["Other"].release()
            assert (await other.call("get_reply", turn_id=busy["turn_id"]))["response"] == "Some text."
        assert model.violations == []


async def test_a_turn_whose_server_died_after_its_last_message_was_kept_is_completed(data_dir: Path) -> None:
    async with serving(data_dir) as server:
        asked = await server.ask("My name is Ada")
    path = data_dir / "turns" / f"{asked['turn_id']}.json"
    record = json.loads(path.read_bytes())
    # As it was on disk until the turn's very end, by a process that is no more.
    record |= {"status": "working", "response": "", "stop_reason": None, "ended_at": None, "process": "0" * 16}
    path.write_text(json.dumps(record))
    async with serving(data_dir) as server:
        reply = await server.call("get_reply", turn_id=asked["turn_id"])
        assert (reply["status"], reply["response"]) == ("completed", asked["response"])
        again = await server.ask("What's my name?", session_id=asked["session_id"])
        assert "Ada" in again["response"]
