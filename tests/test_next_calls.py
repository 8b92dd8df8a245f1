"""What an error says to do next is a call of the door at which it was met."""

import re
from pathlib import Path

import click
import pytest

from agent_mcp.cli import cli
from agent_mcp.next_calls import REST, SHELL, in_rest, in_shell
from conftest import connect
from life import shell
from web import serving

TEXT = (
    "It expired. update_session(session_id='s-1', ttl_seconds=60) revives it, read_transcript shows it; see "
    "get_reply(answer=...)."
)


def test_calls_are_said_in_the_words_of_each_door() -> None:
    assert in_rest(TEXT) == (
        'It expired. `PATCH /api/v1/sessions/s-1` with {"ttl_seconds": 60} revives it, '
        "`GET /api/v1/sessions/{session_id}/messages` shows it; see `GET /api/v1/turns/{turn_id}`."
    )
    assert in_shell(TEXT) == (
        "It expired. `agent-mcp sessions update s-1 --ttl 60s` revives it, `agent-mcp sessions show {session_id}` "
        "shows it; see `agent-mcp turns show {turn_id}`."
    )
    latest = "get_reply(session_id=...) finds it"
    assert in_rest(latest) == "`GET /api/v1/sessions/{session_id}` finds it"
    assert in_shell(latest) == "`agent-mcp turns list --session {session_id}` finds it"
    assert in_shell("py:remember_me and forgetful stay, as does /get_reply") == (
        "py:remember_me and forgetful stay, as does /get_reply"
    )


async def test_every_tool_has_its_words_and_they_lead_somewhere(data_dir: Path) -> None:
    async with connect(data_dir) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
    assert tools == REST.keys() == SHELL.keys()
    with serving(data_dir) as web:
        paths = web.rest.get("/openapi.json").json()["paths"]
    for call in REST.values():
        method, _, path = call.partition(" ")
        assert method.lower() in paths[path]
    for command in SHELL.values():
        if command.startswith("agent-mcp "):
            found: click.Command = cli
            for word in re.sub(r" [{-].*", "", command).split()[1:]:
                assert isinstance(found, click.Group)
                found = found.commands[word]


@pytest.mark.parametrize("words", [["sessions", "show", "nope"], ["ask", "Hello", "--session", "nope"]])
async def test_the_shell_names_its_own_commands(data_dir: Path, words: list[str]) -> None:
    done = await shell(data_dir, *words)
    assert "`agent-mcp sessions list`" in done.err
    assert "list_sessions" not in done.err
    assert "ask_agent" not in done.err
