"""Agents over their life: changed, deleted, their ids given again or not, and where they come from."""

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bedrock_server import BedrockServer, say
from conftest import Door, assert_teaches, call, connect, refused
from engine import MODEL, bedrock_env
from life import shell

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def create(door: Door, name: str, **fields: Any) -> dict[str, Any]:
    return await call(door.client, "create_agent", name=name, **fields)


def unique(door: Door, stem: str) -> str:
    """A name that no other test of the module has used on this server."""
    taken = {path.stem for path in (door.data / "agents").glob("*.md")} if door.data.exists() else set[str]()
    return next(name for n in range(1000) if (name := f"{stem}-{n}") not in taken)


async def test_each_field_can_be_changed_and_the_rest_stays(door: Door) -> None:
    agent = await create(door, unique(door, "painter"), description="Paints.", tools=["calculator"])
    changes: dict[str, Any] = {
        "name": "Painter the second",
        "description": "Paints walls.",
        "system_prompt": "You paint walls.",
        "model": "offline:small",
        "tools": ["calculator", "current_time"],
    }
    expected = {key: value for key, value in agent.items() if key not in ("created", "updated_at")}
    changed = agent
    for field, value in changes.items():
        changed = await call(door.client, "update_agent", agent_id=agent["agent_id"], **{field: value})
        expected[field] = value
        assert {key: value for key, value in changed.items() if key != "updated_at"} == expected
        assert changed["updated_at"] > agent["updated_at"]
    listed = await call(door.client, "list_agents", query=agent["agent_id"])
    assert listed["agents"] == [changed]
    cleared = await call(door.client, "update_agent", agent_id=agent["agent_id"], tools=[], description="")
    assert (cleared["tools"], cleared["description"], cleared["system_prompt"]) == ([], "", "You paint walls.")


async def test_memory_and_effort_can_be_set_to_all_that_there_is(door: Door) -> None:
    agent_id = (await create(door, unique(door, "Chosen"), memory="off"))["agent_id"]
    for memory in ("explicit", "auto", "off"):
        changed = await call(door.client, "update_agent", agent_id=agent_id, memory=memory)
        assert changed["memory"] == memory
    for effort in ("low", "medium", "high"):
        changed = await call(door.client, "update_agent", agent_id=agent_id, model_params={"reasoning_effort": effort})
        assert changed["model_params"]["reasoning_effort"] == effort


async def test_a_change_that_is_refused_leaves_the_agent_as_it_is(door: Door) -> None:
    agent = await create(door, unique(door, "steady"), tools=["calculator"])
    file = door.data / "agents" / f"{agent['agent_id']}.md"
    before = file.read_bytes()
    for change, code in (
        ({"tools": ["calculater"]}, "tool_not_allowed"),
        ({"tools": ["shell"]}, "tool_not_allowed"),
        ({"model": "nobody:x"}, "invalid_argument"),
        ({"name": "  "}, "invalid_argument"),
        ({"name": "n" * 101}, "invalid_argument"),
        ({"system_prompt": "x" * 100_001}, "invalid_argument"),
    ):
        assert_teaches(await refused(door.client, "update_agent", agent_id=agent["agent_id"], **change), code)
    assert file.read_bytes() == before


async def test_an_unknown_agent_can_neither_be_changed_nor_deleted_nor_asked(door: Door) -> None:
    for tool, more in (("update_agent", {"name": "X"}), ("delete_agent", {}), ("start_session", {})):
        text = await refused(door.client, tool, agent_id="nobody-there", **more)
        assert_teaches(text, "agent_not_found")
        assert "list_agents" in text
    assert_teaches(await refused(door.client, "ask_agent", prompt="Hi", agent_id="nobody-there"), "agent_not_found")


async def test_the_built_in_agent_is_not_the_callers_to_change(door: Door) -> None:
    for tool, more in (("update_agent", {"name": "Mine"}), ("delete_agent", {})):
        text = await refused(door.client, tool, agent_id="assistant", **more)
        assert_teaches(text, "forbidden")
        assert "create_agent" in text
    text = await refused(door.client, "create_agent", name="assistant", system_prompt="Mine.")
    assert_teaches(text, "agent_exists")


async def test_the_same_definition_again_is_no_new_agent_and_another_one_is_refused_with_the_way_out(
    door: Door,
) -> None:
    name = unique(door, "twin")
    first = await create(door, name, system_prompt="Be one.")
    again = await create(door, name, system_prompt="Be one.")
    assert first["created"]
    assert not again["created"]
    assert {**again, "created": True} == first
    text = await refused(door.client, "create_agent", name=name, system_prompt="Be two.")
    assert_teaches(text, "agent_exists")
    assert "update_agent" in text
    assert "another name" in text
    example = await create(door, unique(door, "example"), example="customer_support")
    assert example["system_prompt"]
    assert not (await create(door, example["name"], example="customer_support"))["created"]


async def test_the_id_of_a_deleted_agent_without_sessions_is_free_again(door: Door) -> None:
    name = unique(door, "fleeting")
    agent = await create(door, name)
    assert await call(door.client, "delete_agent", agent_id=agent["agent_id"]) == {
        "agent_id": agent["agent_id"],
        "deleted": True,
    }
    assert_teaches(await refused(door.client, "delete_agent", agent_id=agent["agent_id"]), "agent_not_found")
    assert (await create(door, name, system_prompt="Another one."))["agent_id"] == agent["agent_id"]
    await call(door.client, "delete_agent", agent_id=agent["agent_id"])
    own = await create(door, "Somebody else", agent_id=agent["agent_id"])
    assert own["agent_id"] == agent["agent_id"]


async def test_the_id_of_a_deleted_agent_with_sessions_is_not_given_again(door: Door) -> None:
    name = unique(door, "lasting")
    agent = (await create(door, name))["agent_id"]
    told = await call(door.client, "ask_agent", prompt="My name is John", agent_id=agent)
    session = told["session_id"]
    await call(door.client, "delete_agent", agent_id=agent)

    # Its sessions stay readable and findable, and say how to go on.
    transcript = await call(door.client, "read_transcript", session_id=session)
    assert transcript["total"] == 2
    assert (await call(door.client, "list_sessions", agent_id=agent))["sessions"][0]["session_id"] == session
    assert (await call(door.client, "get_reply", session_id=session))["response"] == told["response"]
    text = await refused(door.client, "ask_agent", prompt="Still there?", session_id=session)
    assert_teaches(text, "agent_not_found")
    assert f"continue_from='{session}'" in text
    went_on = await call(door.client, "start_session", continue_from=session, agent_id="assistant")
    asked = await call(door.client, "ask_agent", prompt="What's my name?", session_id=went_on["session_id"])
    assert "John" in asked["response"]

    text = await refused(door.client, "create_agent", name="Impostor", agent_id=agent)
    assert_teaches(text, "agent_exists")
    assert "choose another" in text
    second = await create(door, name)
    assert second["created"]
    assert second["agent_id"] == f"{agent}-2"
    await call(door.client, "ask_agent", prompt="Hello", agent_id=second["agent_id"])
    await call(door.client, "delete_agent", agent_id=second["agent_id"])
    assert (await create(door, name))["agent_id"] == f"{agent}-3"
    # A derived id gets a suffix only then: another definition under a living agent's name is refused.
    assert_teaches(await refused(door.client, "create_agent", name=f"{agent}-3", tools=["stop"]), "agent_exists")


async def test_a_damaged_session_holds_its_deleted_agents_id_too(door: Door) -> None:
    name = unique(door, "hurt")
    agent = (await create(door, name))["agent_id"]
    session = (await call(door.client, "ask_agent", prompt="Hello", agent_id=agent))["session_id"]
    (door.data / f"session_{session}" / "metadata.json").write_text("{")
    await call(door.client, "delete_agent", agent_id=agent)
    assert (await create(door, name, system_prompt="New."))["agent_id"] == f"{agent}-2"
    await call(door.client, "delete_session", session_id=session)


async def test_a_session_without_a_turn_holds_the_id_too(door: Door) -> None:
    name = unique(door, "quiet")
    agent = (await create(door, name))["agent_id"]
    await call(door.client, "start_session", agent_id=agent)
    await call(door.client, "delete_agent", agent_id=agent)
    assert (await create(door, name))["agent_id"] == f"{agent}-2"


FOREIGN = """---
name: Reviewer
description: Reads code.
tools: calculator
color: purple
x-team:
  lead: ann
  size: 3
---
You review.
"""


async def test_a_hand_written_file_keeps_what_we_do_not_know_when_it_is_changed(door: Door) -> None:
    await call(door.client, "list_agents")
    file = door.data / "agents" / "reviewer.md"
    file.write_text(FOREIGN)
    changed = await call(door.client, "update_agent", agent_id="reviewer", system_prompt="You review well.")
    assert (changed["name"], changed["tools"]) == ("Reviewer", ["calculator"])
    text = file.read_text()
    assert "color: purple" in text
    assert "lead: ann" in text
    assert "size: 3" in text
    assert text.endswith("---\nYou review well.\n")
    await call(door.client, "update_agent", agent_id="reviewer", name="Critic")
    assert "color: purple" in file.read_text()
    file.unlink()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bedrock() -> AsyncGenerator[BedrockServer]:
    with BedrockServer(lambda received: say("Yes.")) as server:
        yield server


async def test_the_next_turn_uses_the_change(tmp_path: Path, bedrock: BedrockServer) -> None:
    async with connect(tmp_path / "data", env=bedrock_env(bedrock)) as client:
        await call(client, "create_agent", name="Guide", system_prompt="You guide.", tools=["calculator"])
        session = (await call(client, "ask_agent", prompt="One", agent_id="guide"))["session_id"]
        other = "bedrock:us.anthropic.claude-haiku-4-5-20251001-v1:0"
        await call(
            client, "update_agent", agent_id="guide", system_prompt="You lead.", tools=["current_time"], model=other
        )
        reply = await call(client, "ask_agent", prompt="Two", session_id=session)
        assert reply["model"] == other
    first, second = bedrock.requests[-2:]
    assert (first.system, second.system) == ("You guide.", "You lead.")
    assert (first.tools, second.tools) == (["calculator", "search_session"], ["current_time", "search_session"])
    assert (first.model_id, second.model_id) == (MODEL.partition(":")[2], other.partition(":")[2])
    assert len(second.messages) == 3
    assert bedrock.violations == []


async def test_own_agents_win_over_the_operators_directories_in_their_order_and_these_over_built_in_ones(
    tmp_path: Path,
) -> None:
    data, one, two = tmp_path / "data", tmp_path / "one", tmp_path / "two"
    files = {
        one / "shared.md": "From one",
        two / "shared.md": "From two",
        two / "second.md": "From two",
        two / "assistant.md": "The operator's assistant",
        two / "mine.md": "From two",
    }
    for file, prompt in files.items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"---\nname: {file.stem}\n---\n{prompt}\n")
    (one / "broken.md").write_text("no front matter")
    env = {"AGENT_MCP_AGENTS_PATH": os.pathsep.join([str(one), str(tmp_path / "not-there"), str(two)])}
    async with connect(data, env=env) as client:
        await call(client, "list_agents")
        (data / "agents" / "mine.md").write_text("---\nname: mine\n---\nMy own\n")
        listed = await call(client, "list_agents")
        found = {agent["agent_id"]: (agent["source"], agent["system_prompt"]) for agent in listed["agents"]}
        assert found == {
            "assistant": (str(two), "The operator's assistant"),
            "mine": ("own", "My own"),
            "second": (str(two), "From two"),
            "shared": (str(one), "From one"),
        }
        assert any("broken.md" in warning for warning in listed["warnings"])
        for agent in ("shared", "second", "assistant"):
            for tool, more in (("update_agent", {"name": "X"}), ("delete_agent", {})):
                text = await refused(client, tool, agent_id=agent, **more)
                assert_teaches(text, "forbidden")
        text = await refused(client, "create_agent", name="shared", system_prompt="Mine")
        assert_teaches(text, "agent_exists")
        assert not (await call(client, "create_agent", name="shared", system_prompt="From one"))["created"]
        # An own one that hid another is deleted: the other is back.
        await call(client, "delete_agent", agent_id="mine")
        listed = await call(client, "list_agents", query="mine")
        assert [agent["source"] for agent in listed["agents"]] == [str(two)]
        reply = await call(client, "ask_agent", prompt="Hello", agent_id="second")
        assert reply["agent_id"] == "second"
        resource = await client.read_resource("agent://second")
        assert "From two" in str(resource.contents[0])
    files_after = {file: file.read_text() for file in files}
    assert all(prompt in files_after[file] for file, prompt in files.items())
    done = await shell(data, "agents", "list", "--json", env=env)
    assert {agent["agent_id"]: agent["source"] for agent in done.json}["shared"] == str(one)
