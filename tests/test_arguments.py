"""Bad input at the door: refused in one line that says what to do next, with nothing half-made, and the server goes on.

Most tests take the arguments from the published schemas, so that a new tool is held to the same.
"""

import base64
import json
import re
import unicodedata
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from mcp_types import Tool

from bedrock_server import BedrockServer, Received, say
from conftest import Door, assert_teaches, call, connect, made, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUIRED: dict[str, Any] = {
    "prompt": "Hello",
    "name": "Somebody",
    "session_id": "nobodys",
    "agent_id": "nobody",
    "turn_id": f"t-{'0' * 32}",
    "query": "anything",
    "memory_id": f"m-{'0' * 32}",
}
"""A value for each argument that some tool can't do without."""
DECIDED_TOGETHER = (
    ("get_reply", "turn_id", "session_id"),
    ("cancel_turn", "turn_id", "session_id"),
    ("remember", "text", "memory_id"),
)
"""Tools that need one of two arguments, which a schema can't say."""

WRONG: list[Any] = [{"a": 1}, [[]], [None]]
"""What no argument takes."""
BAD_IDS = [
    "..",
    ".",
    "a/b",
    "a\\b",
    "a%2Fb",
    "a\0b",
    "a" * 300,
    "a\nb",
    "a\n",
    "",
    " a",
    "a b",
    "ünï",
    "名前",
    "-a",
    "_a",
    "a.b",
]


@pytest_asyncio.fixture(loop_scope="module")
async def tools(door: Door) -> AsyncGenerator[list[Tool]]:
    yield (await door.client.list_tools()).tools


def arguments(tools: list[Tool]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each argument as (tool, name, schema)."""
    for tool in tools:
        for name, schema in tool.input_schema["properties"].items():
            yield tool.name, name, schema


def required(tools: list[Tool], name: str) -> dict[str, Any]:
    """What the tool can't do without, with values."""
    tool = next(tool for tool in tools if tool.name == name)
    return {argument: REQUIRED[argument] for argument in tool.input_schema.get("required", ())}


async def test_an_unknown_argument_is_refused_with_the_arguments_that_there_are(door: Door, tools: list[Tool]) -> None:
    for tool in tools:
        text = await refused(door.client, tool.name, **required(tools, tool.name), qqqq_zzzz=1)
        assert_teaches(text, "invalid_argument")
        assert text.startswith(f"{tool.name} has no argument 'qqqq_zzzz'. There are: ")
        assert all(name in text for name in tool.input_schema["properties"])


async def test_an_unknown_argument_that_resembles_a_known_one_gets_that_as_a_hint(door: Door) -> None:
    text = await refused(door.client, "ask_agent", prompt="Hello", sesion_id="s-1")
    assert_teaches(text, "invalid_argument")
    assert "Did you mean 'session_id'?" in text


async def test_an_unknown_tool_is_refused_with_the_tools_that_there_are(door: Door, tools: list[Tool]) -> None:
    near = await refused(door.client, "ask_agnet", prompt="Hello")
    far = await refused(door.client, "zzzz")
    for text in (near, far):
        assert_teaches(text, "invalid_argument")
        assert all(tool.name in text for tool in tools)
    assert "Did you mean 'ask_agent'?" in near


async def test_a_missing_argument_is_named(door: Door, tools: list[Tool]) -> None:
    for tool in tools:
        for name in tool.input_schema.get("required", ()):
            given = {key: value for key, value in required(tools, tool.name).items() if key != name}
            text = await refused(door.client, tool.name, **given)
            assert_teaches(text, "invalid_argument")
            assert f"{tool.name} needs the argument {name!r}" in text


async def test_a_null_is_an_argument_that_is_absent(door: Door, tools: list[Tool]) -> None:
    for tool in tools:
        given = required(tools, tool.name)
        absent = await door.client.call_tool(tool.name, given)
        nulls = dict.fromkeys(tool.input_schema["properties"]) | given
        null = await door.client.call_tool(tool.name, nulls)
        assert absent.is_error == null.is_error, (tool.name, null.content)
        if absent.is_error:
            assert absent.content == null.content, tool.name
    for name in REQUIRED:
        for tool in tools:
            if name in tool.input_schema.get("required", ()):
                text = await refused(door.client, tool.name, **required(tools, tool.name) | {name: None})
                assert f"needs the argument {name!r}" in text


async def test_a_value_of_the_wrong_type_is_refused_by_the_name_of_its_argument(door: Door, tools: list[Tool]) -> None:
    before = made(door.data)
    for tool, name, _ in arguments(tools):
        for wrong in WRONG:
            text = await refused(door.client, tool, **required(tools, tool) | {name: wrong})
            assert_teaches(text, "invalid_argument")
            assert f"'{name}" in text
    assert made(door.data) == before


async def test_a_number_out_of_its_bounds_is_refused(door: Door, tools: list[Tool]) -> None:
    bounded = [
        (tool, name, schema) for tool, name, schema in arguments(tools) if {"minimum", "maximum"} & schema.keys()
    ]
    assert len(bounded) > 5
    for tool, name, schema in bounded:
        outside = [schema[edge] + step for edge, step in (("minimum", -1), ("maximum", 1)) if edge in schema]
        for value in outside:
            text = await refused(door.client, tool, **required(tools, tool) | {name: value})
            assert_teaches(text, "invalid_argument")
            assert f"'{name}'" in text


async def test_a_choice_that_is_none_is_refused_with_the_choices(door: Door) -> None:
    text = await refused(door.client, "list_sessions", status="lost")
    assert_teaches(text, "invalid_argument")
    assert all(choice in text for choice in ("active", "expired", "damaged", "all"))


async def test_a_bad_id_is_refused_whatever_the_argument_and_makes_nothing(door: Door, tools: list[Tool]) -> None:
    before = made(door.data)
    ids = [(tool, name) for tool, name, _ in arguments(tools) if name.endswith("_id") and name != "actor_id"]
    assert len(ids) > 8
    for tool, name in ids:
        for bad in BAD_IDS:
            text = await refused(door.client, tool, **required(tools, tool) | {name: bad})
            assert_teaches(text, "invalid_argument")
            assert f"is no {name}" in text, (tool, bad)
    assert made(door.data) == before


async def test_an_id_in_capitals_is_refused_with_its_lower_case_form(door: Door, tools: list[Tool]) -> None:
    for tool, name, _ in arguments(tools):
        if name in ("agent_id", "session_id"):
            text = await refused(door.client, tool, **required(tools, tool) | {name: "My-Own"})
            assert_teaches(text, "invalid_argument")
            assert "use 'my-own' instead of 'My-Own'" in text


@pytest.mark.parametrize("device", ["con", "nul", "aux", "prn", "com1", "lpt9"])
async def test_a_device_name_of_windows_is_no_agent_id(door: Door, device: str) -> None:
    text = await refused(door.client, "create_agent", name="Somebody", agent_id=device)
    assert_teaches(text, "invalid_argument")
    assert "device name" in text


async def test_an_agents_name_that_is_a_device_name_gives_an_id_that_is_none(door: Door) -> None:
    assert (await call(door.client, "create_agent", name="Con"))["agent_id"] == "con-agent"


async def test_a_bad_actor_id_is_refused_and_makes_nothing(door: Door, tools: list[Tool]) -> None:
    before = made(door.data)
    decomposed = unicodedata.normalize("NFD", "Jürgen")
    for tool, name, _ in arguments(tools):
        if name == "actor_id":
            for bad in ("", " ", "a b", "a\tb", "a\0b", "a\n", "x" * 201, "\u200b", "\u00a0", decomposed):
                text = await refused(door.client, tool, **required(tools, tool) | {name: bad})
                assert_teaches(text, "invalid_argument")
                assert "actor_id" in text
    assert made(door.data) == before


async def test_what_is_not_there_is_refused_with_the_way_to_what_there_is(door: Door) -> None:
    client = door.client
    before = made(door.data)
    unknown_session = f"s-{'0' * 32}"
    for text, code, way in (
        (await refused(client, "ask_agent", prompt="Hi", agent_id="nobody"), "agent_not_found", "list_agents"),
        (await refused(client, "start_session", agent_id="nobody"), "agent_not_found", "list_agents"),
        (await refused(client, "ask_agent", prompt="Hi", session_id="nobodys"), "session_not_found", "list_sessions"),
        (await refused(client, "read_transcript", session_id="nobodys"), "session_not_found", "list_sessions"),
        (await refused(client, "get_reply", session_id="nobodys"), "session_not_found", "list_sessions"),
        (await refused(client, "cancel_turn", session_id="nobodys"), "session_not_found", "list_sessions"),
        (await refused(client, "get_reply", turn_id=f"t-{'0' * 32}"), "turn_not_found", "get_reply(session_id"),
        (await refused(client, "cancel_turn", turn_id=f"t-{'0' * 32}"), "turn_not_found", "get_reply(session_id"),
        (await refused(client, "create_agent", name="X", example="nobody"), "agent_not_found", "customer_support"),
        (await refused(client, "create_agent", name="X", tools=["shell"]), "tool_not_allowed", "calculator"),
        (await refused(client, "create_agent", name="X", model="best"), "invalid_argument", "provider:model_id"),
        (await refused(client, "create_agent", name="X", model="bedrock:"), "invalid_argument", "'bedrock'"),
        (await refused(client, "ask_agent", prompt="Hi", session_id=unknown_session), "session_not_found", "list"),
    ):
        assert_teaches(text, code)
        assert way in text
    assert made(door.data) == before


@pytest.mark.parametrize("mistyped", [f"s-{'0' * 32}", f"s-{'0' * 31}", f"s-{'g' * 32}", "s-3f2a", "s-"])
async def test_an_unknown_id_of_the_servers_shape_never_begins_a_session(door: Door, mistyped: str) -> None:
    before = made(door.data)
    text = await refused(door.client, "ask_agent", prompt="Hi", session_id=mistyped, agent_id="assistant")
    assert_teaches(text, "session_not_found")
    text = await refused(door.client, "start_session", session_id=mistyped)
    assert_teaches(text, "invalid_argument")
    assert "leave session_id out" in text
    assert made(door.data) == before


async def test_neither_or_both_of_two_arguments_is_refused(door: Door) -> None:
    for tool, one, other in DECIDED_TOGETHER:
        for given in ({}, {name: {**REQUIRED, "text": "A fact"}[name] for name in (one, other)}):
            text = await refused(door.client, tool, **given)
            assert_teaches(text, "invalid_argument")
            assert re.search(rf"either {one}( \(.*?\))? or {other}", text), text


@pytest.mark.parametrize("blank", ["", " ", "\n\t ", "\u3000"])
async def test_a_blank_prompt_is_refused(door: Door, blank: str) -> None:
    before = made(door.data)
    assert_teaches(await refused(door.client, "ask_agent", prompt=blank), "invalid_argument")
    assert made(door.data) == before


async def test_a_prompt_of_2_mb_is_refused_and_makes_nothing(door: Door) -> None:
    before = made(door.data)
    for prompt in ("x" * 2_000_000, "x" * (1024 * 1024 + 1), "é" * (512 * 1024 + 1)):
        text = await refused(door.client, "ask_agent", prompt=prompt)
        assert_teaches(text, "too_large")
        assert "1048576" in text
    assert made(door.data) == before


async def test_a_prompt_of_exactly_1_mib_reaches_the_model_whole(door: Door) -> None:
    def script(received: Received) -> Any:
        return say(f"{len(received.last_text)} characters")

    with BedrockServer(script) as bedrock:
        environment = bedrock.env | {"AGENT_MCP_MODEL": "bedrock"}
        async with connect(door.data, env=environment, mode=door.client.mode) as client:
            reply = await call(client, "ask_agent", prompt="x" * 1024 * 1024)
    assert reply["response"] == f"{1024 * 1024} characters"
    assert not bedrock.violations


async def test_texts_that_are_too_long_are_refused(door: Door) -> None:
    before = made(door.data)
    for tool, given in (
        ("create_agent", {"name": "x" * 101}),
        ("create_agent", {"name": "X", "description": "x" * 2_001}),
        ("create_agent", {"name": "X", "system_prompt": "x" * 100_001}),
        ("create_agent", {"name": "X", "tools": ["calculator"] * 65}),
        ("create_agent", {"name": " "}),
        ("create_agent", {"name": "!?"}),
        ("start_session", {"title": "x" * 201}),
        ("list_sessions", {"query": "x" * 1_001}),
    ):
        assert_teaches(await refused(door.client, tool, **given), "invalid_argument")
    assert made(door.data) == before


def forged(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


BAD_CURSORS = {
    "no base64": "not a cursor",
    "empty list": forged([]),
    "another list's": forged(["assistant", 1, 2]),
    "wrong types": forged([True, None]),
    "a huge number": forged([10**30, "x"]),
    "half of a pair": forged([1, "\ud800"]),
    "half of a pair alone": forged(["\ud800"]),
    "nested": base64.urlsafe_b64encode(b"[" * 100_000).decode(),
    "unicode": "é",
}


@pytest.mark.parametrize("cursor", BAD_CURSORS.values(), ids=BAD_CURSORS.keys())
async def test_a_forged_cursor_is_refused(door: Door, tools: list[Tool], cursor: str) -> None:
    for tool, name, _ in arguments(tools):
        if name == "cursor":
            text = await refused(door.client, tool, cursor=cursor)
            assert_teaches(text, "invalid_argument")
            assert "next_cursor" in text


@pytest.mark.parametrize("query", ['"', "*", "AND", "NEAR(", 'a"b', "\0", "-x", "col:", "^a", "!!!", "(", "x" * 1000])
async def test_a_query_with_signs_of_a_query_language_is_only_words(door: Door, query: str) -> None:
    await call(door.client, "list_sessions", query=query)
    await call(door.client, "list_agents", query=query)


async def test_lists_of_names_are_taken_as_hosts_send_them(door: Door) -> None:
    for number, tools in enumerate((["calculator"], "calculator", '["calculator"]', "['calculator', 'calculator']")):
        agent = await call(door.client, "create_agent", name=f"Reckoner {number}", tools=tools)
        assert agent["tools"] == ["calculator"]


async def test_after_all_that_the_server_answers(door: Door) -> None:
    told = await call(door.client, "ask_agent", prompt="My name is John")
    asked = await call(door.client, "ask_agent", prompt="What's my name?", session_id=told["session_id"])
    assert "John" in asked["response"]
