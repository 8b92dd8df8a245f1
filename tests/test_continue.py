"""`continue_from`: a new session with the history of another one, whole or up to a message."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bedrock_server import Answer, BedrockServer, Received, Reply, Text, ToolUse, say
from conftest import Door, assert_teaches, call, connect, held, refused
from engine import bedrock_env, said, serving
from life import contents, order

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def source(door: Door) -> AsyncGenerator[str]:
    """A session of ann's: a name (0, 1), a calculation (2 to 5), a town (6, 7)."""
    await call(door.client, "create_agent", name="Clerk", tools=["calculator"])
    session = "source"
    await call(
        door.client,
        "start_session",
        session_id=session,
        agent_id="clerk",
        actor_id="ann",
        title="At the desk",
        ttl_seconds=7200,
        token_budget=100_000,
    )
    for prompt in ("My name is John", "What is 6 * 7?", "I live in Rome"):
        await call(door.client, "ask_agent", prompt=prompt, session_id=session)
    assert (await call(door.client, "read_transcript", session_id=session))["total"] == 8
    yield session


async def messages(door: Door, session: str) -> list[tuple[str, str]]:
    page = await call(door.client, "read_transcript", session_id=session)
    return [(message["role"], message["text"]) for message in page["messages"]]


async def test_a_continued_session_begins_with_the_whole_history_and_the_source_stays_as_it_was(
    door: Door, source: str
) -> None:
    before = contents(door.data / f"session_{source}")
    made = await call(door.client, "start_session", continue_from=source)
    expected = {"agent_id": "clerk", "actor_id": "ann", "title": "At the desk", "continued_from": source, "turns": 3}
    assert {key: made[key] for key in expected} == expected
    assert (made["token_budget"], made["usage"]["total_tokens"]) == (0, 0)
    assert made["session_id"] != source
    assert await messages(door, made["session_id"]) == await messages(door, source)
    asked = await call(door.client, "ask_agent", prompt="What's my name?", session_id=made["session_id"])
    assert "John" in asked["response"]
    assert asked["usage"] == asked["session_usage"]
    assert contents(door.data / f"session_{source}") == before
    found = (await call(door.client, "list_sessions", query="Rome"))["sessions"]
    assert made["session_id"] in {session["session_id"] for session in found}


@pytest.mark.parametrize(
    ("at", "total"), [(0, 0), (1, 2), (2, 2), (3, 2), (4, 2), (5, 6), (6, 6), (7, 8)], ids=lambda n: str(n)
)
async def test_at_is_inclusive_and_inside_a_turn_moves_back_to_the_end_of_the_last_whole_one(
    door: Door, source: str, at: int, total: int
) -> None:
    made = await call(door.client, "start_session", continue_from=source, at=at)
    assert await messages(door, made["session_id"]) == (await messages(door, source))[:total]
    assert made["turns"] == {0: 0, 2: 1, 6: 2, 8: 3}[total]
    asked = await call(door.client, "ask_agent", prompt="Where do I live?", session_id=made["session_id"])
    assert ("Rome" in asked["response"]) == (total == 8)


async def test_it_can_go_on_with_another_agent_and_a_title_and_an_id_of_its_own(door: Door, source: str) -> None:
    made = await call(
        door.client,
        "start_session",
        continue_from=source,
        agent_id="assistant",
        actor_id="ann",
        title="Elsewhere",
        session_id="elsewhere",
        ttl_seconds=60,
        token_budget=5_000,
    )
    expected = {"session_id": "elsewhere", "agent_id": "assistant", "title": "Elsewhere", "token_budget": 5_000}
    assert {key: made[key] for key in expected} == expected
    asked = await call(door.client, "ask_agent", prompt="What's my name?", session_id="elsewhere")
    assert (asked["agent_id"], "John" in asked["response"]) == ("assistant", True)
    text = await refused(door.client, "start_session", continue_from=source, session_id="elsewhere")
    assert_teaches(text, "session_exists")


async def test_what_can_not_be_continued_is_refused_and_nothing_is_made(door: Door, source: str) -> None:
    before = {path.name for path in door.data.iterdir()}
    for arguments, code, hint in (
        ({"continue_from": source, "actor_id": "bob"}, "actor_mismatch", "actor_id"),
        ({"continue_from": source, "at": 8}, "invalid_argument", "index 7"),
        ({"at": 1}, "invalid_argument", "continue_from"),
        ({"continue_from": "nobodys"}, "session_not_found", "list_sessions"),
        ({"continue_from": source, "agent_id": "nobody"}, "agent_not_found", "list_agents"),
        ({"continue_from": source, "at": -1}, "invalid_argument", "at"),
    ):
        text = await refused(door.client, "start_session", **arguments)
        assert_teaches(text, code)
        assert hint in text
    assert {path.name for path in door.data.iterdir()} == before


async def test_an_empty_and_an_expired_session_can_be_continued(door: Door) -> None:
    empty = await call(door.client, "start_session")
    made = await call(door.client, "start_session", continue_from=empty["session_id"])
    assert made["turns"] == 0
    assert (
        "John"
        in (await call(door.client, "ask_agent", prompt="My name is John", session_id=made["session_id"]))["response"]
    )
    file = door.data / f"session_{made['session_id']}" / "metadata.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({**kept, "last_active_at": "2020-01-01T00:00:00Z"}))
    assert_teaches(
        await refused(door.client, "ask_agent", prompt="Hello", session_id=made["session_id"]), "session_expired"
    )
    on = await call(door.client, "start_session", continue_from=made["session_id"])
    assert on["status"] == "active"
    asked = await call(door.client, "ask_agent", prompt="What's my name?", session_id=on["session_id"])
    assert "John" in asked["response"]


async def test_a_turn_that_waits_stays_behind(door: Door) -> None:
    await call(door.client, "create_agent", name="Asker", tools=["handoff_to_user"])
    told = await call(door.client, "ask_agent", prompt="My name is John", agent_id="asker")
    session = told["session_id"]
    waiting = await call(door.client, "ask_agent", prompt=order("handoff_to_user", message="Sure?"), session_id=session)
    assert waiting["status"] == "input_required"
    before = contents(door.data / f"session_{session}")
    made = await call(door.client, "start_session", continue_from=session)
    assert (made["open_turn"], made["turns"]) == (None, 1)
    asked = await call(door.client, "ask_agent", prompt="What's my name?", session_id=made["session_id"])
    assert "John" in asked["response"]
    assert contents(door.data / f"session_{session}") == before
    done = await call(door.client, "get_reply", turn_id=waiting["turn_id"], answer="Yes")
    assert done["status"] == "completed"


async def test_summary_and_state_come_along_where_the_whole_is_taken(tmp_path: Path) -> None:
    """The small offline model has a window of 2,000 tokens, so that a summary comes soon."""
    async with held(connect(tmp_path / "data", env={"AGENT_MCP_MODEL": "offline:small"})) as client:
        session = (await call(client, "ask_agent", prompt="My name is John"))["session_id"]
        for n in range(8):
            await call(client, "ask_agent", prompt=f"Note {n}: " + "word " * 150, session_id=session)
        state = conversation(tmp_path / "data", session)
        assert state["removed_message_count"] > 0
        whole = await call(client, "start_session", continue_from=session)
        part = await call(client, "start_session", continue_from=session, at=15)
        assert conversation(tmp_path / "data", whole["session_id"]) == state
        assert conversation(tmp_path / "data", part["session_id"])["removed_message_count"] == 0
        for made in (whole, part):
            asked = await call(client, "ask_agent", prompt="What's my name?", session_id=made["session_id"])
            assert "John" in asked["response"]


def conversation(data: Path, session: str) -> dict[str, Any]:
    (file,) = (data / f"session_{session}").glob("agents/*/agent.json")
    return json.loads(file.read_text())["conversation_manager_state"]


async def test_the_model_of_the_new_agent_is_sent_the_history_as_it_was(tmp_path: Path) -> None:
    def script(received: Received) -> Reply:
        if received.last_text == "Reckon":
            return Answer([Text("Let me see."), ToolUse("calculator", {"expression": "6 * 7"})])
        return say(f"You said: {received.last_text or received.tool_results}")

    with BedrockServer(script) as model:
        async with serving(tmp_path / "data", env=bedrock_env(model)) as server:
            await server.call("create_agent", name="Clerk", tools=["calculator"], system_prompt="You reckon.")
            await server.call("create_agent", name="Poet", tools=["calculator"], system_prompt="You rhyme.")
            session = (await server.ask("Reckon", agent_id="clerk"))["session_id"]
            made = await server.call("start_session", continue_from=session, agent_id="poet")
            await server.ask("Rhyme", session_id=made["session_id"])
        assert model.violations == []
        before, after = model.requests[-2:]
    assert (before.system, after.system) == ("You reckon.", "You rhyme.")
    assert said(after)[:3] == said(before)
    assert said(after)[3:] == ["You said: ['42']", "Rhyme"]
