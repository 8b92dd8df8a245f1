"""`agent-mcp agents`, `sessions` and `turns`: for people and, with --json, for programs."""

import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from conftest import call, connect
from life import Done, files_of, order, shell

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Place(NamedTuple):
    """A data directory with something in it, and the ids of that."""

    data: Path
    session: str
    turn: str
    waiting: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Place]:
    data = tmp_path_factory.mktemp("shell") / "data"
    async with connect(data) as client:
        await call(client, "create_agent", name="Asker", description="Asks back.", tools=["handoff_to_user"])
        told = await call(client, "ask_agent", prompt="My name is John", actor_id="ann")
        await call(client, "start_session", session_id="mine", agent_id="asker", title="A\tquestion")
        waiting = await call(
            client, "ask_agent", prompt=order("handoff_to_user", message="Which colour?"), session_id="mine"
        )
    yield Place(data, told["session_id"], told["turn_id"], waiting["turn_id"])


def assert_one_line(done: Done, code: str) -> None:
    """An error is one line on stderr, and exit code 1."""
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("Error: ")
    assert done.err.endswith(f" [{code}]\n")
    assert done.err.count("\n") == 1


def rows(done: Done) -> list[list[str]]:
    assert done.code == 0, done.err
    return [line.split("\t") for line in done.out.splitlines()]


async def test_agents_are_listed_shown_created_and_deleted(place: Place) -> None:
    listed = rows(await shell(place.data, "agents", "list"))
    assert ["asker", "own", "", "Asks back."] in listed
    assert [row[0] for row in listed] == ["asker", "assistant"]
    found = (await shell(place.data, "agents", "list", "--query", "asks", "--json")).json
    assert [(agent["agent_id"], agent["tools"]) for agent in found] == [("asker", ["handoff_to_user"])]
    text = (await shell(place.data, "agents", "show", "asker")).out
    assert text == (place.data / "agents" / "asker.md").read_text()
    assert (await shell(place.data, "agents", "show", "asker", "--json")).json["name"] == "Asker"

    words = ["agents", "create", "Poet", "--system-prompt", "-", "--description", "Rhymes.", "--tool", "calculator"]
    words += ["--tool", "current_time", "--agent-model", "offline:small", "--id", "rhymer", "--json"]
    made = (await shell(place.data, *words, stdin="You rhyme.")).json
    expected = {"agent_id": "rhymer", "created": True, "system_prompt": "You rhyme.", "model": "offline:small"}
    assert {key: made[key] for key in expected} == expected
    assert made["tools"] == ["calculator", "current_time"]
    again = await shell(place.data, *words[:-1], stdin="You rhyme.")
    assert again.out == "rhymer was there already\n"
    deleted = await shell(place.data, "agents", "delete", "rhymer")
    assert (deleted.code, deleted.out) == (0, "rhymer deleted\n")


async def test_errors_are_one_line_and_exit_with_one(place: Place) -> None:
    other = f"t-{'0' * 32}"
    for words, code in (
        (["agents", "show", "nobody"], "agent_not_found"),
        (["agents", "delete", "assistant"], "forbidden"),
        (["agents", "create", "asker", "--tool", "shell"], "agent_exists"),
        (["sessions", "show", "nobodys"], "session_not_found"),
        (["sessions", "prune", "--older-than", "soon"], "invalid_argument"),
        (["sessions", "prune", "--older-than", "999999w"], "invalid_argument"),
        (["turns", "show", other], "turn_not_found"),
        (["turns", "approve", place.turn], "turn_conflict"),
        (["turns", "deny", place.waiting], "turn_conflict"),
    ):
        assert_one_line(await shell(place.data, *words), code)
    usage = await shell(place.data, "sessions", "list", "--status", "sleepy")
    assert usage.code == 2


async def test_sessions_are_listed_found_and_shown(place: Place) -> None:
    listed = rows(await shell(place.data, "sessions", "list"))
    assert [row[0] for row in listed] == ["mine", place.session]
    assert listed[1][1] == "active"
    assert listed[1][3:] == ["assistant", "ann", "1", "My name is John"]
    assert listed[0][-1] == "A question"
    for words, found in (
        (["--agent", "asker"], ["mine"]),
        (["--actor", "ann"], [place.session]),
        (["--query", "John"], [place.session]),
        (["--status", "expired"], []),
        (["--limit", "1"], ["mine"]),
    ):
        done = await shell(place.data, "sessions", "list", "--json", *words)
        assert [session["session_id"] for session in done.json] == found, words
    text = (await shell(place.data, "sessions", "show", place.session)).out
    assert "My name is John" in text
    shown = (await shell(place.data, "sessions", "show", place.session, "--json")).json
    assert (shown["session_id"], shown["actor_id"]) == (place.session, "ann")
    assert [message["role"] for message in shown["messages"]] == ["user", "assistant"]


async def test_turns_are_listed_and_shown_and_one_that_waits_is_cancelled(place: Place) -> None:
    listed = rows(await shell(place.data, "turns", "list"))
    assert [row[:2] for row in listed] == [[place.waiting, "input_required"], [place.turn, "completed"]]
    assert listed[0][-1] == "Which colour?"
    found = (await shell(place.data, "turns", "list", "--session", place.session, "--json")).json
    assert [turn["turn_id"] for turn in found] == [place.turn]
    shown = await shell(place.data, "turns", "show", place.waiting)
    assert (shown.code, shown.out.splitlines()[-1]) == (0, "Which colour?")
    reply = (await shell(place.data, "turns", "show", place.turn, "--json")).json
    assert (reply["status"], "John" in reply["response"]) == ("completed", True)
    cancelled = (await shell(place.data, "turns", "cancel", place.waiting, "--json")).json
    assert cancelled["status"] == "cancelled"
    again = await shell(place.data, "turns", "cancel", place.waiting)
    assert (again.code, again.err) == (0, f"{place.waiting} cancelled\n")


async def test_an_expired_session_is_revived_in_the_shell_and_gets_a_title(tmp_path: Path) -> None:
    data = tmp_path / "data"
    told = (await shell(data, "ask", "My name is John", "--json")).json["session_id"]
    edit(data, told, last_active_at=ago(1))
    assert_one_line(await shell(data, "ask", "What's my name?", "--session", told), "session_expired")
    changed = await shell(data, "sessions", "update", told, "--ttl", "30d", "--title", "John", "--json")
    assert (changed.json["title"], changed.json["status"]) == ("John", "active")
    assert "John" in (await shell(data, "ask", "What's my name?", "--session", told)).out
    for_ever = await shell(data, "sessions", "update", told, "--ttl", "0")
    assert for_ever.out == f"{told} 'John' lives for ever\n"
    assert_one_line(await shell(data, "sessions", "update", told, "--ttl", "soon"), "invalid_argument")
    too_long = await shell(data, "sessions", "update", told, "--ttl", "3651d")
    assert_one_line(too_long, "invalid_argument")
    assert "give 3650d at most" in too_long.err
    assert (await shell(data, "sessions", "update", told, "--ttl", "3650d")).code == 0


async def test_the_flag_model_of_a_new_agent_is_its_own(tmp_path: Path) -> None:
    data = tmp_path / "data"
    words = ["agents", "create", "Poet", "--model", "offline:small", "--tools", "calculator", "--json"]
    made = (await shell(data, *words)).json
    assert (made["model"], made["tools"]) == ("offline:small", ["calculator"])


@pytest.mark.parametrize(
    ("name", "meant"),
    [("gpt-4o", "openai:gpt-4o"), ("claude-sonnet-4-6", "anthropic:claude-sonnet-4-6"), ("openia:gpt", "openai:gpt")],
)
async def test_what_is_no_model_is_told_with_what_was_meant(tmp_path: Path, name: str, meant: str) -> None:
    done = await shell(tmp_path / "data", "ask", "Hello", "--model", name)
    assert_one_line(done, "no_model")
    assert f"Did you mean {meant}?" in done.err


async def test_a_session_can_be_deleted_and_those_long_expired_are_pruned(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with connect(data) as client:
        for session, days in (("old-one", 40), ("newer-one", 10), ("fresh-one", 0), ("kept-one", 40)):
            await call(client, "ask_agent", prompt="Hello", session_id=session, agent_id="assistant")
            if session == "kept-one":
                await call(client, "update_session", session_id=session, ttl_seconds=0)
            edit(data, session, last_active_at=ago(days))
        await call(client, "list_sessions")
    async with connect(data) as client:  # reads what was edited
        assert len((await call(client, "list_sessions", status="expired"))["sessions"]) == 2
    dry = await shell(data, "sessions", "prune", "--dry-run")
    assert dry.out == "old-one would be deleted\n"
    assert (data / "session_old-one").exists()
    pruned = await shell(data, "sessions", "prune")
    assert pruned.out == "old-one deleted\n"
    assert not (data / "session_old-one").exists()
    assert (await shell(data, "sessions", "prune")).out == ""
    week = await shell(data, "sessions", "prune", "--older-than", "1w")
    assert week.out == "newer-one deleted\n"
    deleted = await shell(data, "sessions", "delete", "fresh-one", "kept-one")
    assert deleted.out == "fresh-one deleted\nkept-one deleted\n"
    assert (await shell(data, "sessions", "list", "--json")).json == []
    assert not [name for name in files_of(data, "Hello") if not name.startswith("catalog")]
    assert list((data / "turns").iterdir()) == []


def edit(data: Path, session: str, **fields: Any) -> None:
    file = data / f"session_{session}" / "metadata.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat().replace("+00:00", "Z")
