"""The last word of a whole run: what of the contract no front-door test has shown."""

from pathlib import Path

from agent_mcp.errors import BY_CODE
from conftest import connect
from contract_record import uncovered, undeclared


async def test_every_argument_field_status_and_error_of_the_tools_was_shown_by_a_front_door_test(
    data_dir: Path,
) -> None:
    async with connect(data_dir) as client:
        tools = (await client.list_tools()).tools
    lines = uncovered(tools, BY_CODE)
    assert not lines, "No front-door test shows this; write one:\n" + "\n".join(lines)


async def test_no_tool_shows_a_field_that_its_output_schema_lacks(data_dir: Path) -> None:
    async with connect(data_dir) as client:
        tools = (await client.list_tools()).tools
    lines = undeclared(tools)
    assert not lines, "\n".join(lines)
