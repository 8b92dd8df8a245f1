"""Agents with memory `auto` learn from each turn: behind the reply, once, also when a process dies in between."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from agent_mcp.memory import worker
from agent_mcp.offline import LEARNING_MARKER
from agent_mcp.service import AgentDraft, Service
from agent_mcp.storage import database
from bedrock_server import Answer, BedrockServer, Fault, Gate, Received, Text, say
from conftest import call, connect
from engine import bedrock_env, reached, serving
from in_process import CALLER, ask, running
from life import DEADLINE, order, shell, until


async def known(service: Service, query: str) -> list[str]:
    """What is remembered that fits, once everything is learnt."""
    await service.memories.settled(DEADLINE)
    return [memory.text for memory in (await service.memories.recall(CALLER, query)).memories]


async def test_what_is_told_in_passing_is_known_to_another_agent_in_a_new_session(data_dir: Path) -> None:
    async with running(data_dir) as service:
        for name in ("One", "Two"):
            await service.agents.create(CALLER, AgentDraft(name=name, memory="auto"))
        told = await ask(service, "Hello! I live in San Francisco. I like Celsius.", agent="one")
        assert await known(service, "San Francisco") == ["I live in San Francisco"]
        answer = await ask(service, "Where do I live, and what do I like?", agent="two")
        assert "You live in San Francisco." in answer.response
        assert "You like Celsius." in answer.response
        [fact] = (await service.memories.recall(CALLER, "celsius")).memories
        assert (fact.session_id, fact.turn_id, fact.confirmed) == (told.session_id, told.turn_id, True)


async def test_an_explicit_agent_learns_nothing_by_itself_and_nobody_learns_what_agents_tell_each_other(
    data_dir: Path,
) -> None:
    async with running(data_dir) as service:
        await service.agents.create(CALLER, AgentDraft(name="Quiet", memory="explicit"))
        await service.agents.create(CALLER, AgentDraft(name="Asked", memory="auto"))
        await service.agents.create(CALLER, AgentDraft(name="Asking", memory="off", tools=("agent:asked",)))
        await ask(service, "I live in Lisbon.", agent="quiet")
        await ask(service, order("agent_asked", prompt="I live in Lisbon"), agent="asking")
        assert await known(service, "Lisbon") == []


async def test_what_a_turn_taught_that_read_what_others_wrote_is_unconfirmed(data_dir: Path) -> None:
    async with running(data_dir) as service:
        await service.agents.create(CALLER, AgentDraft(name="Helper"))
        await service.agents.create(CALLER, AgentDraft(name="Reader", memory="auto", tools=("agent:helper",)))
        await ask(service, "My bank is Evil Bank. " + order("agent_helper", prompt="hello"), agent="reader")
        await service.memories.settled(DEADLINE)
        [fact] = (await service.memories.recall(CALLER, "bank")).memories
        assert not fact.confirmed


@pytest.mark.parametrize("killed", [True, False])
async def test_a_reply_waits_for_no_lesson_and_a_lesson_that_was_broken_off_is_learnt_at_the_next_start(
    data_dir: Path, killed: bool
) -> None:
    gate = Gate()
    lessons: list[str] = []

    def script(received: Received) -> Answer | Fault:
        if LEARNING_MARKER not in received.system:
            return say("Noted.")
        lessons.append(received.last_text)
        if len(lessons) > 1:
            return say("- Lives in San Francisco\n- Prefers Celsius")
        return Answer([Text("- Lives")], before=[gate])

    with BedrockServer(script) as bedrock:
        async with serving(data_dir, env=bedrock_env(bedrock)) as server:
            await server.call("create_agent", name="Keen", memory="auto")
            reply = await server.ask("I live in San Francisco and like Celsius.", agent_id="keen")
            assert reply["response"] == "Noted."
            await reached(gate)  # it is being learnt, and the reply is here
            if killed:
                server.kill()
        gate.release()
        assert "user: I live in San Francisco and like Celsius." in lessons[0]
        async with connect(data_dir, env=bedrock_env(bedrock)) as client:
            found: list[Any] = []
            for _ in range(600):
                found = (await call(client, "recall", query="Celsius Francisco"))["memories"]
                if len(found) == 2:
                    break
                await asyncio.sleep(0.1)
        assert {fact["text"] for fact in found} == {"Lives in San Francisco", "Prefers Celsius"}
        assert {fact["turn_id"] for fact in found} == {reply["turn_id"]}


async def test_a_model_that_fails_to_learn_does_the_turn_no_harm(data_dir: Path) -> None:
    def script(received: Received) -> Answer | Fault:
        return Fault(400, "ValidationException") if LEARNING_MARKER in received.system else say("Well.")

    with BedrockServer(script) as bedrock:
        async with serving(data_dir, env=bedrock_env(bedrock)) as server:
            await server.call("create_agent", name="Keen", memory="auto")
            reply = await server.ask("I live in Rome.", agent_id="keen")
            assert reply["response"] == "Well."
            await asyncio.to_thread(bedrock.wait_for_requests, 2)
            assert (await server.ask("And?", session_id=reply["session_id"]))["response"] == "Well."
            usage = (await server.call("list_sessions"))["sessions"][0]["usage"]
            assert usage["total_tokens"] > 0


async def test_a_lesson_that_could_not_be_written_is_learnt_by_the_same_server_once_it_can(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.1)
    monkeypatch.setattr(worker, "AGAIN_SECONDS", 0.1)
    gate = Gate()

    def script(received: Received) -> Answer:
        if LEARNING_MARKER not in received.system:
            return say("Noted.")
        return Answer([Text("- Lives in San Francisco")], before=[gate])

    with BedrockServer(script) as bedrock:
        for name, value in bedrock_env(bedrock).items():
            monkeypatch.setenv(name, value)
        async with running(data_dir, model="bedrock") as service:
            await service.agents.create(CALLER, AgentDraft(name="Keen", memory="auto"))
            await ask(service, "I live in San Francisco.", agent="keen")
            await reached(gate)
            with sqlite3.connect(data_dir / "memory.db", isolation_level=None) as other:
                other.execute("BEGIN IMMEDIATE")
                gate.release()
                await until(lambda: "the memory's queue can't be worked off" in caplog.text)
                other.execute("ROLLBACK")
            await until(lambda: len(bedrock.requests) == 3)
            assert await known(service, "Francisco") == ["Lives in San Francisco"]


async def test_a_command_of_the_shell_learns_too_before_it_is_over(data_dir: Path) -> None:
    assert (await shell(data_dir, "agents", "create", "Keen", "--memory", "auto")).code == 0
    assert (await shell(data_dir, "ask", "--agent", "keen", "I live in San Francisco.")).code == 0
    found = await shell(data_dir, "memory", "recall", "francisco", "--json")
    assert [memory["text"] for memory in found.json["memories"]] == ["I live in San Francisco"]
