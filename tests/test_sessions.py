"""Sessions: begun by themselves or by name, whose they are, how long they live, how they are found."""

import json
import unicodedata
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from mcp.client import Client

from conftest import Door, assert_teaches, call, connect, held, made, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


def edit_metadata(data: Path, session_id: str, **fields: Any) -> None:
    """Changes a session's metadata by hand: the directory is the truth."""
    path = data / f"session_{session_id}" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


async def walk(client: Client, **arguments: Any) -> list[dict[str, Any]]:
    """All sessions that `list_sessions` gives, page by page."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await call(client, "list_sessions", cursor=cursor, **arguments)
        assert len(page["sessions"]) <= arguments.get("limit", 50)
        found += page["sessions"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def seconds(later: str, earlier: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


async def test_an_ask_without_a_session_begins_one_with_the_assistant(door: Door) -> None:
    reply = await call(door.client, "ask_agent", prompt="Hello")
    assert reply["new_session"]
    assert (reply["agent_id"], reply["actor_id"], reply["status"]) == ("assistant", "local", "completed")
    assert reply["session_id"].startswith("s-")
    assert len(reply["session_id"]) == 34
    assert reply["transcript"] == f"session://{reply['session_id']}/transcript"
    again = await call(door.client, "ask_agent", prompt="Hello again", session_id=reply["session_id"])
    assert not again["new_session"]


async def test_a_reply_names_what_is_needed_to_go_on_in_its_text(door: Door) -> None:
    result = await door.client.call_tool("ask_agent", {"prompt": "Hello"})
    assert result.structured_content is not None
    text = str(result.content)
    assert all(result.structured_content[name] in text for name in ("session_id", "agent_id", "turn_id"))


@pytest.mark.parametrize(
    ("prompt", "title"),
    [("Plan  a trip\nto Rome", "Plan  a trip"), ("\n\n Second line", "Second line"), ("x" * 100, "x" * 77 + "...")],
)
async def test_a_session_is_titled_by_its_first_prompt(door: Door, prompt: str, title: str) -> None:
    reply = await call(door.client, "ask_agent", prompt=prompt)
    await call(door.client, "ask_agent", prompt="Something else", session_id=reply["session_id"])
    [found] = [s for s in await walk(door.client) if s["session_id"] == reply["session_id"]]
    assert found["title"] == title
    assert found["turns"] == 2


async def test_a_title_that_was_given_stays(door: Door) -> None:
    session = await call(door.client, "start_session", title="  My\ntrip ", agent_id="assistant")
    assert session["title"] == "My trip"
    await call(door.client, "ask_agent", prompt="Hello", session_id=session["session_id"])
    assert "My trip" in [found["title"] for found in await walk(door.client)]


async def test_an_own_id_that_nobody_has_used_begins_a_session_if_an_agent_is_named(door: Door) -> None:
    own = {"session_id": "my-trip_1", "agent_id": "assistant"}
    assert_teaches(await refused(door.client, "ask_agent", prompt="Hi", session_id="my-trip_1"), "session_not_found")
    began = await call(door.client, "ask_agent", prompt="My name is John", **own)
    asked = await call(door.client, "ask_agent", prompt="What's my name?", **own)
    assert (began["new_session"], asked["new_session"]) == (True, False)
    assert began["session_id"] == "my-trip_1"
    assert "John" in asked["response"]


async def test_an_id_of_the_full_length_works(door: Door) -> None:
    long = "x" * 100
    assert (await call(door.client, "start_session", session_id=long))["session_id"] == long
    assert (await call(door.client, "ask_agent", prompt="Hi", session_id=long))["status"] == "completed"
    agent = await call(door.client, "create_agent", name="Long", agent_id="y" * 64)
    assert (await call(door.client, "ask_agent", prompt="Hi", agent_id=agent["agent_id"]))["status"] == "completed"


async def test_an_own_id_in_use_is_refused_and_the_session_left_as_it_is(door: Door) -> None:
    first = await call(door.client, "start_session", session_id="in-use", title="First", actor_id="alice")
    text = await refused(door.client, "start_session", session_id="in-use", title="Second")
    assert_teaches(text, "session_exists")
    assert "ask_agent" in text
    [found] = await walk(door.client, actor_id="alice")
    assert found == first | {"snippet": None}


async def test_a_session_changes_neither_its_agent_nor_its_actor(door: Door) -> None:
    await call(door.client, "create_agent", name="Other one")
    session = await call(door.client, "start_session", actor_id="bob")
    before = made(door.data)
    text = await refused(door.client, "ask_agent", prompt="Hi", session_id=session["session_id"], agent_id="other-one")
    assert_teaches(text, "agent_mismatch")
    assert "leave agent_id out" in text
    text = await refused(door.client, "ask_agent", prompt="Hi", session_id=session["session_id"], actor_id="Bob")
    assert_teaches(text, "actor_mismatch")
    assert "'bob'" not in text
    assert made(door.data) == before
    reply = await call(
        door.client,
        "ask_agent",
        prompt="Hi",
        session_id=session["session_id"],
        agent_id="assistant",
        actor_id="bob",
    )
    assert reply["actor_id"] == "bob"


ACTORS = ["a", "A", "..", "a/b", "a%2Fb", "jo@example.com", "名前", "Jürgen", "🙂", "'; DROP TABLE sessions--", "`x`"]


async def test_actors_are_kept_and_compared_exactly(door: Door) -> None:
    names = [name.replace(" ", "_") for name in ACTORS]
    assert all(unicodedata.is_normalized("NFC", name) for name in names)
    for name in [*names, "x" * 200]:
        session = await call(door.client, "start_session", actor_id=name)
        reply = await call(door.client, "ask_agent", prompt="Hi", session_id=session["session_id"], actor_id=name)
        assert reply["actor_id"] == name
        assert [found["session_id"] for found in await walk(door.client, actor_id=name)] == [session["session_id"]]


async def test_sessions_are_found_by_agent_and_by_what_was_said_with_a_snippet(door: Door) -> None:
    await call(door.client, "create_agent", name="Travel agent")
    said = await call(door.client, "ask_agent", prompt="I live in Ouagadougou", agent_id="travel-agent")
    await call(door.client, "ask_agent", prompt="I live in Reykjavík", agent_id="travel-agent")
    titled = await call(door.client, "start_session", title="Weekend in Timbuktu", agent_id="travel-agent")
    assert len(await walk(door.client, agent_id="travel-agent")) == 3
    for query in ("ouagadougou", "live Ouaga", '"in Ouagadougou"', "LIVING ouagadougou"):
        [found] = await walk(door.client, query=query)
        assert found["session_id"] == said["session_id"]
        assert "Ouagadougou" in found["snippet"]
    assert [found["title"] for found in await walk(door.client, query="reykjavik")] == ["I live in Reykjavík"]
    assert [s["session_id"] for s in await walk(door.client, query="timbuktu")] == [titled["session_id"]]
    assert await walk(door.client, query="ouagadougou", agent_id="assistant") == []
    assert await walk(door.client, query="zanzibar") == []
    assert len(await walk(door.client, query=" ")) == len(await walk(door.client, status="all"))


async def test_cursors_walk_all_sessions_once_though_new_ones_come(data_dir: Path) -> None:
    async with connect(data_dir) as client:
        there = [(await call(client, "start_session"))["session_id"] for _ in range(23)]
        seen: list[str] = []
        cursor = None
        while True:
            page = await call(client, "list_sessions", limit=5, cursor=cursor)
            seen += [session["session_id"] for session in page["sessions"]]
            cursor = page["next_cursor"]
            await call(client, "start_session")
            if cursor is None:
                break
        assert seen == there[::-1]
        assert len(await walk(client, limit=200)) == 23 + 5
        assert_teaches(await refused(client, "list_sessions", limit=201), "invalid_argument")


async def test_the_session_that_was_active_last_comes_first(door: Door) -> None:
    first = await call(door.client, "ask_agent", prompt="One", actor_id="orderly")
    second = await call(door.client, "ask_agent", prompt="Two", actor_id="orderly")
    await call(door.client, "ask_agent", prompt="Three", session_id=first["session_id"])
    listed = [session["session_id"] for session in await walk(door.client, actor_id="orderly")]
    assert listed == [first["session_id"], second["session_id"]]


async def test_a_sessions_life_is_its_own_or_the_operators(data_dir: Path) -> None:
    async with connect(data_dir, env={"AGENT_MCP_SESSION_TTL": "77"}) as client:
        default = await call(client, "start_session")
        own = await call(client, "start_session", ttl_seconds=1)
        endless = await call(client, "start_session", ttl_seconds=0)
        asked = await call(client, "ask_agent", prompt="Hi")
    assert seconds(default["expires_at"], default["last_active_at"]) == 77
    assert seconds(own["expires_at"], own["last_active_at"]) == 1
    assert endless["expires_at"] is None
    assert asked["expires_at"] is not None
    async with connect(data_dir, env={"AGENT_MCP_SESSION_TTL": "0"}) as client:
        assert (await call(client, "start_session"))["expires_at"] is None


async def test_an_expired_session_refuses_asks_and_stays_readable(data_dir: Path, era: str) -> None:
    async with connect(data_dir, mode=era) as client:
        told = await call(client, "ask_agent", prompt="My name is John")
        kept = await call(client, "start_session", ttl_seconds=0)
        long_ago = (datetime.now().astimezone() - timedelta(hours=2)).isoformat()
        for session_id in (told["session_id"], kept["session_id"]):
            edit_metadata(data_dir, session_id, last_active_at=long_ago)
        before = made(data_dir)
        text = await refused(client, "ask_agent", prompt="What's my name?", session_id=told["session_id"])
        assert_teaches(text, "session_expired")
        assert "read_transcript" in text
        assert made(data_dir) == before
        read = await call(client, "read_transcript", session_id=told["session_id"])
        assert read["messages"][0]["text"] == "My name is John"
        assert (await call(client, "get_reply", session_id=told["session_id"]))["turn_id"] == told["turn_id"]
        assert (await call(client, "ask_agent", prompt="Hi", session_id=kept["session_id"]))["status"] == "completed"
        everything = {session["session_id"]: session["status"] for session in await walk(client)}
        assert everything == {told["session_id"]: "expired", kept["session_id"]: "active"}
    async with connect(data_dir, mode=era) as client:
        assert [s["session_id"] for s in await walk(client, status="expired")] == [told["session_id"]]
        assert [s["session_id"] for s in await walk(client, status="active")] == [kept["session_id"]]
        assert [s["session_id"] for s in await walk(client, query="john")] == [told["session_id"]]


DAMAGE = {
    "empty metadata": ("metadata.json", b""),
    "cut metadata": ("metadata.json", b'{"session_id": "s-'),
    "metadata of another kind": ("metadata.json", b"[]"),
    "empty message": ("agents/agent_assistant/messages/message_0.json", b""),
    "message that is none": ("agents/agent_assistant/messages/message_1.json", b"{}"),
    "message that is no text": ("agents/agent_assistant/messages/message_0.json", b"\xff\xfe"),
    "empty agent": ("agents/agent_assistant/agent.json", b""),
    "missing message": ("agents/agent_assistant/messages/message_0.json", None),
    "missing agent": ("agents/agent_assistant/agent.json", None),
    "missing session": ("session.json", None),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def damaged_door(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[tuple[Door, dict[str, str], str]]:
    """A server over sessions that were damaged while none ran: each kind of damage with its session, and a good one."""
    data = tmp_path_factory.mktemp("damaged") / "data"
    sessions: dict[str, str] = {}
    async with held(connect(data)) as client:
        for kind in DAMAGE:
            sessions[kind] = (await call(client, "ask_agent", prompt="My name is John"))["session_id"]
        good = (await call(client, "ask_agent", prompt="My name is Jane"))["session_id"]
    for kind, (name, content) in DAMAGE.items():
        path = data / f"session_{sessions[kind]}" / name
        assert path.exists()
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
    async with held(connect(data)) as client:
        yield Door(client, data), sessions, good


@pytest.mark.parametrize("kind", DAMAGE)
async def test_a_damaged_session_refuses_asks_and_its_conversation_stays_as_it_is(
    damaged_door: tuple[Door, dict[str, str], str], kind: str
) -> None:
    (client, data), sessions, good = damaged_door
    directory = data / f"session_{sessions[kind]}"

    def conversation() -> dict[Path, bytes]:
        files = (path for path in directory.rglob("*.json") if path.name != "metadata.json" or "metadata" in kind)
        return {path: path.read_bytes() for path in files}

    before = conversation()
    text = await refused(client, "ask_agent", prompt="What's my name?", session_id=sessions[kind])
    assert_teaches(text, "session_damaged")
    assert DAMAGE[kind][0].rsplit("/", 1)[-1] in text
    assert conversation() == before
    asked = await call(client, "ask_agent", prompt="What's my name?", session_id=good)
    assert "Jane" in asked["response"]


async def test_damaged_sessions_are_listed_as_such_and_the_others_work(
    damaged_door: tuple[Door, dict[str, str], str],
) -> None:
    (client, _), sessions, good = damaged_door
    listed = {session["session_id"]: session["status"] for session in await walk(client)}
    assert set(listed) == {*sessions.values(), good}
    assert listed[good] == "active"
    unreadable = {sessions[kind] for kind in DAMAGE if "metadata" in kind}
    found = {session["session_id"] for session in await walk(client, status="damaged")}
    assert unreadable <= found
    assert all(listed[session_id] == "damaged" for session_id in found)
    assert good not in found
    assert good in {session["session_id"] for session in await walk(client, status="active")}


@pytest.mark.parametrize("kind", [kind for kind in DAMAGE if "agent" not in kind and "session" not in kind])
async def test_a_damaged_sessions_transcript_names_the_file(
    damaged_door: tuple[Door, dict[str, str], str], kind: str
) -> None:
    (client, _), sessions, _ = damaged_door
    text = await refused(client, "read_transcript", session_id=sessions[kind])
    assert_teaches(text, "session_damaged")
    assert DAMAGE[kind][0].rsplit("/", 1)[-1] in text
