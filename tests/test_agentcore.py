"""Memory in Bedrock AgentCore: real boto3 against a server that speaks by botocore's own service model."""

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client

from agentcore_server import MEMORY_ID, AgentCoreServer
from conftest import call, connect
from life import DEADLINE, files_of, order, shell


@pytest.fixture
def aws() -> Generator[AgentCoreServer]:
    with AgentCoreServer() as server:
        yield server


async def recalled(client: Client, query: str, actor: str = "local") -> dict[str, Any]:
    """What is recalled, asked again where the machine was too slow for the deadline of a search."""
    for _ in range(20):
        found = await call(client, "recall", query=query, actor_id=actor)
        if "did not answer" not in (found["note"] or ""):
            return found
        await asyncio.sleep(1)
    raise TimeoutError


async def says(client: Client, prompt: str, agent: str, actor: str, *, words: tuple[str, ...]) -> None:
    """Has an agent asked in new sessions until its answer holds the words: a search has a deadline, machines stall."""
    reply: dict[str, Any] = {}
    for _ in range(20):
        reply = await call(client, "ask_agent", prompt=prompt, agent_id=agent, actor_id=actor)
        if all(word in reply["response"] for word in words):
            return
        await asyncio.sleep(1)
    raise AssertionError(reply)


async def until(aws: AgentCoreServer, operation: str, times: int = 1) -> None:
    await asyncio.to_thread(aws.wait_until, lambda: aws.calls[operation] >= times, DEADLINE)


async def test_what_is_told_to_one_agent_another_knows_in_a_new_session_and_nobody_once_it_is_forgotten(
    data_dir: Path, aws: AgentCoreServer
) -> None:
    async with connect(data_dir, env=aws.env) as client:
        for name in ("One", "Two"):
            await call(client, "create_agent", name=name, memory="auto")
        told = await call(
            client, "ask_agent", prompt="I live in San Francisco. I like Celsius.", agent_id="one", actor_id="anna"
        )
        await until(aws, "CreateEvent")
        [event] = aws.events
        assert [part["conversational"]["role"] for part in event["payload"]] == ["USER", "ASSISTANT"]
        assert event["sessionId"] == told["session_id"]
        assert "anna" not in str(event)

        async def asked(actor: str) -> str:
            prompt = f"Where do I live? What do I like? ({len(aws.calls)})"
            return str((await call(client, "ask_agent", prompt=prompt, agent_id="two", actor_id=actor))["response"])

        known = ("You live in San Francisco.", "You like Celsius.")
        await says(client, "Where do I live? What do I like?", "two", "anna", words=known)
        for other in ("Anna", "anna/b", "bert"):
            assert "Francisco" not in await asked(other)
        facts = (await recalled(client, "San Francisco", "anna"))["memories"]
        assert facts[0]["text"] == "I live in San Francisco"
        for fact in facts:
            await call(client, "forget", memory_id=fact["memory_id"], actor_id="anna")
        assert "Francisco" not in await asked("anna")
        assert aws.texts() == []


async def test_explicit_facts_go_there_with_their_origin_once_and_nothing_that_is_said_does(
    data_dir: Path, aws: AgentCoreServer
) -> None:
    aws.appears_at_once = False
    async with connect(data_dir, env=aws.env) as client:
        await call(client, "create_agent", name="One", memory="explicit")
        prompt = "My secret is Rosebud. " + order("remember", fact="Prefers Celsius")
        reply = await call(client, "ask_agent", prompt=prompt, agent_id="one")
        assert (await call(client, "remember", text="prefers celsius."))["confirmed"]
        aws.appear()
        assert aws.texts() == ["Prefers Celsius"]
        assert aws.events == []
        [fact] = (await recalled(client, "Celsius"))["memories"]
        assert (fact["session_id"], fact["turn_id"]) == (reply["session_id"], reply["turn_id"])
        other = await client.call_tool("forget", {"memory_id": fact["memory_id"], "actor_id": "bert"})
        assert other.is_error
        assert aws.texts() == ["Prefers Celsius"]
    assert files_of(data_dir, "Prefers Celsius") != []  # in the session; and nowhere is it in a memory of ours
    assert not (data_dir / "memory.db").exists()


async def test_a_service_that_throttles_or_hangs_fails_no_turn_and_gets_everything_later(
    data_dir: Path, aws: AgentCoreServer
) -> None:
    aws.fail("*")
    async with connect(data_dir, env=aws.env) as client:
        await call(client, "create_agent", name="Keen", memory="auto")
        kept = await call(client, "remember", text="Prefers Celsius")
        assert kept["confirmed"]
        reply = await call(client, "ask_agent", prompt="I live in Rome. What do I like?", agent_id="keen")
        assert reply["status"] == "completed"
        found = await call(client, "recall", query="celsius")
        assert [fact["text"] for fact in found["memories"]] == ["Prefers Celsius"]
        assert "1 facts still wait" in found["note"]
        assert "did not answer" in found["note"]
    aws.release()
    aws.hold("RetrieveMemoryRecords", "ListMemoryRecords")
    async with connect(data_dir, env=aws.env) as client:
        reply = await call(client, "ask_agent", prompt="Hello?", agent_id="keen")
        assert reply["status"] == "completed"
    aws.release()
    async with connect(data_dir, env=aws.env) as client:
        await call(client, "recall", query="celsius")
        await asyncio.to_thread(
            aws.wait_until, lambda: {"Prefers Celsius", "I live in Rome"} <= set(aws.texts()), DEADLINE
        )
        # It is still known by the id that it was given at first.
        assert (await call(client, "forget", memory_id=kept["memory_id"]))["deleted"]
        assert "Prefers Celsius" not in aws.texts()


async def test_what_could_not_be_sent_is_sent_by_the_same_server_once_the_service_is_back(
    data_dir: Path, aws: AgentCoreServer
) -> None:
    aws.fail("*")
    async with connect(data_dir, env=aws.env) as client:
        await call(client, "create_agent", name="One", memory="explicit")
        await call(client, "remember", text="Likes Marmalade", actor_id="bert")
        prompt = order("remember", fact="Prefers Celsius")
        assert (await call(client, "ask_agent", prompt=prompt, agent_id="one"))["status"] == "completed"
        assert aws.texts() == []
        aws.release()
        await asyncio.to_thread(aws.wait_until, lambda: aws.texts() == ["Likes Marmalade", "Prefers Celsius"], DEADLINE)


async def test_unconfirmed_facts_are_kept_apart_there_until_they_are_confirmed(
    data_dir: Path, aws: AgentCoreServer
) -> None:
    async with connect(data_dir, env=aws.env) as client:
        await call(client, "create_agent", name="Helper")
        await call(client, "create_agent", name="Reader", memory="explicit", tools=["agent:helper"])
        prompt = order("agent_helper", prompt="hello") + " and " + order("remember", fact="My bank is Evil Bank")
        await call(client, "ask_agent", prompt=prompt, agent_id="reader")

        reply = await call(client, "ask_agent", prompt="What is my bank?", agent_id="reader")
        assert "Evil" not in reply["response"]
        [fact] = (await recalled(client, "bank"))["memories"]
        assert not fact["confirmed"]
        assert (await call(client, "remember", memory_id=fact["memory_id"]))["confirmed"]
        await says(client, "What is my bank, please?", "reader", "local", words=("Your bank is Evil Bank.",))


async def test_erasing_an_actor_takes_records_events_and_what_is_queued(data_dir: Path, aws: AgentCoreServer) -> None:
    async with connect(data_dir, env=aws.env) as client:
        await call(client, "create_agent", name="Keen", memory="auto")
        await call(client, "ask_agent", prompt="I live in Rome.", agent_id="keen", actor_id="anna")
        await call(client, "remember", text="Likes Marmalade", actor_id="bert")
        await until(aws, "CreateEvent")
        aws.fail("BatchCreateMemoryRecords", "RetrieveMemoryRecords")
        await call(client, "remember", text="Likes Zanzibar", actor_id="anna")
        assert files_of(data_dir, "Zanzibar") != []
        aws.release()
        done = await shell(data_dir, "memory", "erase", "anna", "--yes", "--json", env=aws.env)
        assert done.json["facts"] >= 1
        assert aws.texts() == ["Likes Marmalade"]
        assert aws.events == []
        assert files_of(data_dir, "Zanzibar") == []


async def test_erasing_goes_through_all_pages_of_what_is_kept_there(data_dir: Path, aws: AgentCoreServer) -> None:
    async with connect(data_dir, env=aws.env) as client:
        await call(client, "remember", text="Likes Zanzibar", actor_id="anna")
        await call(client, "remember", text="Likes Marmalade", actor_id="bert")
        await until(aws, "BatchCreateMemoryRecords", 2)
        aws.wait_until(lambda: len(aws.texts()) == 2, DEADLINE)
        [record] = [record for record in aws.records.values() if "Zanzibar" in record.text]
        for number in range(130):
            aws.add(record.namespace, f"Likes number {number}")
        done = await shell(data_dir, "memory", "erase", "anna", "--yes", "--json", env=aws.env)
        assert done.json["facts"] == 131
        assert aws.texts() == ["Likes Marmalade"]


async def test_setup_creates_a_memory_with_both_strategies_for_one_actor_at_a_time(
    data_dir: Path, aws: AgentCoreServer
) -> None:
    done = await shell(data_dir, "memory", "setup", "--name", "team", env=aws.env)
    assert done.out == f"AGENT_MCP_AGENTCORE_MEMORY_ID={MEMORY_ID}\n"
    as_json = await shell(data_dir, "memory", "setup", "--name", "team", "--json", env=aws.env)
    assert as_json.json == {"AGENT_MCP_AGENTCORE_MEMORY_ID": MEMORY_ID}
    asked, _ = aws.memories
    assert (asked["name"], asked["eventExpiryDuration"]) == ("team", 30)
    assert [next(iter(strategy)) for strategy in asked["memoryStrategies"]] == [
        "semanticMemoryStrategy",
        "userPreferenceMemoryStrategy",
    ]
    assert {next(iter(s.values()))["namespaces"][0] for s in asked["memoryStrategies"]} == {"/actors/{actorId}/"}
    aws.fail("CreateMemory", code="AccessDeniedException", status=403)
    refused = await shell(data_dir, "memory", "setup", env=aws.env)
    assert refused.code == 1
    assert "AccessDenied" in refused.err
