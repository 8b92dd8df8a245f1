"""Agents: definitions as files that people edit, what tools make of them, and what a broken one costs."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, strategies as st

from agent_mcp.domain import AgentId, AgentSpec
from agent_mcp.storage.agent_files import parse, render
from bedrock_server import BedrockServer, Received, say
from conftest import Door, assert_teaches, call, connect, held, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


def write(data: Path, name: str, text: str) -> None:
    """An agent file, as a person writes it."""
    (data / "agents").mkdir(parents=True, exist_ok=True)
    (data / "agents" / name).write_text(text, encoding="utf-8")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bedrock_door(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[tuple[Door, BedrockServer]]:
    """A server whose model is a Bedrock on loopback that says what it was asked."""
    data = tmp_path_factory.mktemp("bedrock") / "data"

    def script(received: Received) -> object:
        return say(f"You said {received.last_text}")

    with BedrockServer(script) as bedrock:  # pyright: ignore[reportArgumentType] every reply is one
        environment = bedrock.env | {"AGENT_MCP_MODEL": "bedrock"}
        async with held(connect(data, env=environment)) as client:
            yield Door(client, data), bedrock
        assert not bedrock.violations


async def test_a_file_that_was_written_by_hand_is_an_agent_at_once(bedrock_door: tuple[Door, BedrockServer]) -> None:
    (client, data), bedrock = bedrock_door
    write(data, "poet.md", "---\nname: Poet\ndescription: Writes verse\ntools: calculator\n---\nYou write in verse.\n")
    listed = await call(client, "list_agents", query="verse")
    assert [agent["agent_id"] for agent in listed["agents"]] == ["poet"]
    assert listed["agents"][0]["source"] == "own"
    await call(client, "ask_agent", prompt="Hello", agent_id="poet")
    request = bedrock.requests[-1]
    assert request.system == "You write in verse."
    assert "calculator" in request.tools


async def test_a_file_that_is_edited_between_two_turns_changes_the_next_turn(
    bedrock_door: tuple[Door, BedrockServer],
) -> None:
    (client, data), bedrock = bedrock_door
    write(data, "clerk.md", "---\nname: Clerk\n---\nAnswer in French.\n")
    first = await call(client, "ask_agent", prompt="Hello", agent_id="clerk")
    write(data, "clerk.md", "---\nname: Clerk\ntools: [current_time]\n---\nAnswer in Latin.\n")
    await call(client, "ask_agent", prompt="Again", session_id=first["session_id"])
    before, after = bedrock.requests[-2:]
    assert (before.system, after.system) == ("Answer in French.", "Answer in Latin.")
    assert "current_time" not in before.tools
    assert "current_time" in after.tools
    assert [message["role"] for message in after.messages] == ["user", "assistant", "user"]


async def test_an_agent_that_was_made_by_the_tool_is_a_file_that_can_be_edited(
    bedrock_door: tuple[Door, BedrockServer],
) -> None:
    (client, data), bedrock = bedrock_door
    made = await call(client, "create_agent", name="Guide", system_prompt="You know the way.\n\n---\nAlways.")
    path = data / "agents" / "guide.md"
    path.write_text(path.read_text(encoding="utf-8").replace("the way", "every way"), encoding="utf-8")
    await call(client, "ask_agent", prompt="Hello", agent_id=made["agent_id"])
    assert bedrock.requests[-1].system == "You know every way.\n\n---\nAlways."


@pytest.mark.parametrize("body", ["", "\n", "\n \n\t\n"])
async def test_an_agent_without_a_prompt_sends_none(bedrock_door: tuple[Door, BedrockServer], body: str) -> None:
    (client, data), bedrock = bedrock_door
    write(data, "mute.md", f"---\nname: Mute\n---\n{body}")
    reply = await call(client, "ask_agent", prompt="Hello", agent_id="mute")
    assert reply["status"] == "completed"
    assert bedrock.requests[-1].system == ""


async def test_an_agents_own_model_is_the_one_that_is_asked(bedrock_door: tuple[Door, BedrockServer]) -> None:
    (client, _), bedrock = bedrock_door
    name = "bedrock:eu.anthropic.claude-haiku-4-5-20251001-v1:0"
    made = await call(client, "create_agent", name="Quick", model=name)
    reply = await call(client, "ask_agent", prompt="Hello", agent_id="quick")
    assert made["model"] == reply["model"] == name
    assert bedrock.requests[-1].model_id == name.removeprefix("bedrock:")


async def test_what_a_foreign_file_asks_for_and_cant_have_is_left_out_with_a_warning(
    bedrock_door: tuple[Door, BedrockServer],
) -> None:
    (client, data), bedrock = bedrock_door
    foreign = (
        "---\nname: code-reviewer\ndescription: Reviews code\ntools: Read, Bash, calculator\n"
        "model: {}\ncolor: red\n---\nBe strict.\n"
    )
    write(data, "foreign-sonnet.md", foreign.format("sonnet"))
    write(data, "foreign-inherit.md", foreign.format("inherit"))
    listed = {agent["agent_id"]: agent for agent in (await call(client, "list_agents", query="foreign"))["agents"]}
    sonnet, inherit = listed["foreign-sonnet"]["warnings"], listed["foreign-inherit"]["warnings"]
    assert [w for w in sonnet if "'Read'" in w]
    assert [w for w in sonnet if "'Bash'" in w]
    assert [w for w in sonnet if "'sonnet'" in w]
    assert not [w for w in inherit if "model" in w]
    assert listed["foreign-sonnet"]["tools"] == ["calculator"]
    await call(client, "ask_agent", prompt="Hello", agent_id="foreign-sonnet")
    request = bedrock.requests[-1]
    assert request.system == "Be strict."
    assert set(request.tools) == {"calculator", "search_session"}


BROKEN = {
    "nothing.md": "",
    "no-fence.md": "You are a poet.\n",
    "open-fence.md": "---\nname: Poet\n",
    "no-yaml.md": "---\nname: [a\n---\n",
    "colon.md": "---\ndescription: Use this: always\n---\n",
    "no-mapping.md": "---\n- a\n- b\n---\n",
    "no-date.md": "---\ncreated_at: 2024-13-45\n---\n",
    "long-number.md": f"---\nmodel: {'9' * 5000}\n---\n",
    "tools-mapping.md": "---\ntools: {a: 1}\n---\n",
    "name-list.md": "---\nname: [1, 2]\n---\n",
    "nested.md": f"---\nname: {'[' * 500}\n---\n",
    "Capitals.md": "---\nname: Capitals\n---\n",
    "con.md": "---\nname: Con\n---\n",
    "two words.md": "---\nname: Two\n---\n",
}


async def test_files_that_cant_be_read_are_reported_by_name_and_the_others_work(data_dir: Path) -> None:
    for name, text in BROKEN.items():
        write(data_dir, name, text)
    write(data_dir, "good.md", "---\nname: Good\n---\nWork.\n")
    (data_dir / "agents" / "not-text.md").write_bytes(b"---\nname: \xff\xfe\n---\n")
    (data_dir / "agents" / "directory.md").mkdir()
    (data_dir / "agents" / "notes.txt").write_text("no agent", encoding="utf-8")
    (data_dir / "agents" / ".hidden.md").write_text("no agent", encoding="utf-8")
    names = [*BROKEN, "not-text.md", "directory.md"]
    async with connect(data_dir) as client:
        listed = await call(client, "list_agents")
        warnings: list[str] = listed["warnings"]
        for name in names:
            assert [w for w in warnings if f"The agent file {name} can't" in w], name
        assert len(warnings) == len(names)
        assert all("\n" not in warning and len(warning) < 400 for warning in warnings)
        assert [agent["agent_id"] for agent in listed["agents"]] == ["assistant", "good"]
        assert (await call(client, "ask_agent", prompt="Hello", agent_id="good"))["status"] == "completed"
        assert_teaches(await refused(client, "ask_agent", prompt="Hello", agent_id="no-yaml"), "invalid_argument")
        assert_teaches(await refused(client, "ask_agent", prompt="Hello", agent_id="directory"), "storage_error")
        made = await call(client, "create_agent", name="Another")
        assert made["created"]


async def test_the_built_in_assistant_and_the_examples_are_there(door: Door) -> None:
    listed = await call(door.client, "list_agents", query="assistant")
    assert [agent["source"] for agent in listed["agents"] if agent["agent_id"] == "assistant"] == ["built-in"]
    assert listed["examples"] == ["code_reviewer", "customer_support", "researcher"]
    assert not listed["warnings"]


async def test_an_agent_from_an_example_takes_what_is_not_given_from_it(door: Door) -> None:
    for example in (await call(door.client, "list_agents"))["examples"]:
        agent = await call(door.client, "create_agent", name=f"My {example}", example=example, description="Mine")
        assert agent["created"]
        assert agent["system_prompt"]
        assert agent["description"] == "Mine"
        again = await call(door.client, "create_agent", name=f"My {example}", example=example, description="Mine")
        assert not again["created"]
        assert again["system_prompt"] == agent["system_prompt"]


async def test_the_same_definition_again_is_the_agent_there_is(door: Door) -> None:
    definition = {
        "name": "Émile  Zola",
        "system_prompt": "You are\r\na writer.\r",
        "description": "Writes: novels # long ones",
        "model": "offline",
        "tools": ["current_time", "calculator"],
    }
    first = await call(door.client, "create_agent", **definition)
    again = await call(door.client, "create_agent", **definition)
    assert (first["agent_id"], first["name"], first["created"]) == ("emile-zola", "Émile Zola", True)
    assert again == first | {"created": False}


async def test_an_id_that_is_taken_is_refused_and_the_agent_left_as_it_is(door: Door) -> None:
    await call(door.client, "create_agent", name="Taken", agent_id="taken", system_prompt="First.")
    for other in ({"name": "Taken"}, {"name": "Other", "agent_id": "taken"}, {"name": "Assistant"}):
        text = await refused(door.client, "create_agent", system_prompt="Second.", **other)
        assert_teaches(text, "agent_exists")
        assert "another name" in text
    [agent] = (await call(door.client, "list_agents", query="taken"))["agents"]
    assert agent["system_prompt"] == "First."


async def test_the_list_of_agents_is_walked_by_cursor_and_narrowed_by_words(door: Door) -> None:
    for number in range(7):
        await call(door.client, "create_agent", name=f"Walker {number}", description="Goes ON foot")
    seen: list[str] = []
    cursor = None
    while True:
        page = await call(door.client, "list_agents", query="foot walker", limit=3, cursor=cursor)
        assert len(page["agents"]) <= 3
        seen += [agent["agent_id"] for agent in page["agents"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"walker-{number}" for number in range(7)]


TEXT = st.text(st.characters(codec="utf-8"), max_size=200)
LINE = TEXT.map(lambda text: " ".join(text.split()))
PROMPT = TEXT.map(lambda text: text.replace("\r\n", "\n").replace("\r", "\n"))


@given(
    name=LINE.filter(bool),
    description=LINE,
    prompt=PROMPT | st.lists(st.sampled_from(["---", "", " ", "name: x", "```", "..."])).map("\n".join),
    tools=st.lists(TEXT.filter(lambda text: bool(text.strip())), max_size=3),
    model=st.none() | LINE.filter(bool),
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_definition_that_is_written_and_read_is_the_same(
    name: str, description: str, prompt: str, tools: list[str], model: str | None
) -> None:
    spec = AgentSpec(
        agent_id=AgentId("some"),
        name=name,
        description=description,
        system_prompt=prompt,
        tools=tuple(tools),
        model=model,
    )
    again = parse(render(spec), agent_id=spec.agent_id, source=spec.source)
    assert again == spec
    assert render(again) == render(spec)
