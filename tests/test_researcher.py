"""A researcher with tools of a real MCP server from a package, who delegates to another agent."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bedrock_server import Answer, BedrockServer, Gate, Received, Reply, ToolUse, say, use_tool
from engine import Served, bedrock_env, reached, serving
from life import statuses

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]

PACKAGE = "@modelcontextprotocol/server-filesystem@2026.8.31"
READ = "mcp__files__read_text_file"
WRITE = "mcp__files__write_file"


@pytest.fixture(scope="module")
def file_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference server for files, as its package brings it."""
    place = tmp_path_factory.mktemp("node")
    npm = shutil.which("npm")
    assert npm
    done = subprocess.run(
        [npm, "install", "--prefix", str(place), "--no-audit", "--no-fund", PACKAGE],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "node_modules" / "@modelcontextprotocol" / "server-filesystem" / "dist" / "index.js"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "honey.md").write_text("Honey found in tombs was still good after 3000 years.\n")
    return folder


def settings(file_server: Path, notes: Path) -> dict[str, str]:
    entry = {"command": shutil.which("node"), "args": [str(file_server), str(notes)]}
    path = notes.parent / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"files": entry}}))
    return {"AGENT_MCP_MCP_SERVERS": str(path)}


async def team(server: Served) -> None:
    await server.call("create_agent", name="Writer", description="Writes one good sentence.", tools=[])
    await server.call(
        "create_agent", example="researcher", name="Researcher", tools=["calculator", "mcp:files", "agent:writer"]
    )


def research(notes: Path) -> Any:
    """What the model does: the researcher reads the file and has the writer write about it."""

    def script(received: Received) -> Reply:
        if READ not in received.tools:
            return say(f"Written: {received.last_text}")
        if received.last_text:
            return use_tool(READ, {"path": str(notes / "honey.md")})
        (result,) = received.tool_results
        if "Written:" in result:
            return say(f"Here it is. {result}")
        return use_tool("agent_writer", {"prompt": f"One sentence about: {result}"})

    return script


async def test_a_researcher_reads_with_a_servers_tool_and_delegates_to_another_agent(
    data_dir: Path, file_server: Path, notes: Path
) -> None:
    with BedrockServer(research(notes)) as model:
        async with serving(data_dir, env={**bedrock_env(model), **settings(file_server, notes)}) as server:
            await team(server)
            reply = await server.ask("What is known about honey?", agent_id="researcher")
            assert reply["status"] == "completed"
            assert "still good after 3000 years" in reply["response"]
            assert [call["name"] for call in reply["tool_calls"]] == [READ, "agent_writer"]
            assert statuses(reply["tool_calls"]) == ["success", "success"]
            sessions = (await server.call("list_sessions", agent_id="writer"))["sessions"]
            assert len(sessions) == 1
            error = await server.refused("create_agent", name="X", tools=["mcp:files/format_disk"])
            assert "mcp:files/read_text_file" in error
        assert model.violations == []


async def test_what_writes_waits_for_a_person(data_dir: Path, file_server: Path, notes: Path) -> None:
    def script(received: Received) -> Reply:
        written = {"path": str(notes / "new.md"), "content": "new"}
        return use_tool(WRITE, written) if received.last_text else say("Done.")

    with BedrockServer(script) as model:
        async with serving(data_dir, env={**bedrock_env(model), **settings(file_server, notes)}) as server:
            await team(server)
            reply = await server.ask("Write it down", agent_id="researcher")
            assert reply["status"] == "input_required"
            assert WRITE in reply["question"]
    assert not (notes / "new.md").exists()


async def test_a_server_killed_in_the_middle_of_a_turn_leaves_the_session_usable(
    data_dir: Path, file_server: Path, notes: Path
) -> None:
    gate = Gate()

    def script(received: Received) -> Reply:
        read = ToolUse(READ, {"path": str(notes / "honey.md")})
        if received.last_text == "Begin":
            return Answer([read])
        if received.last_text == "Go on":
            return Answer([read], before=[gate])
        return say(f"Read: {received.tool_results or received.last_text}")

    with BedrockServer(script) as model:
        async with serving(data_dir, env={**bedrock_env(model), **settings(file_server, notes)}) as server:
            await team(server)
            first = await server.ask("Begin", agent_id="researcher")
            assert statuses(first["tool_calls"]) == ["success"]
            session = first["session_id"]
            working = await server.ask("Go on", session_id=session, wait_seconds=0)
            await reached(gate)
            (process,) = processes_with(str(notes))
            os.kill(process, signal.SIGKILL)
            gate.release()
            done = await server.call("get_reply", turn_id=working["turn_id"], wait_seconds=60)
            assert done["status"] == "completed"
            again = await server.ask("Begin", session_id=session)
            assert statuses(again["tool_calls"]) == ["success"]
            assert "3000 years" in again["response"]
        assert model.violations == []


def processes_with(argument: str) -> list[int]:
    """The processes that were started with this argument."""
    found: list[int] = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if argument in words:
            found.append(int(place.parent.name))
    return found
