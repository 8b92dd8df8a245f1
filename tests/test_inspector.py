"""The MCP Inspector's command line, a client that is not ours, in both generations of the protocol."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import server_environment
from test_serve_http import process

pytestmark = [pytest.mark.node, pytest.mark.timeout(600), pytest.mark.usefixtures("inspector")]

INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"
VERSIONS = {"legacy": "2025-11-25", "modern": "2026-07-28"}
"""The Inspector's names for the generations, and the revision that each comes to."""


@pytest.fixture(scope="module")
def inspector() -> None:
    """Fetches the Inspector, once: where that fails no test need try."""
    fetched = subprocess.run(
        ["npx", "-y", INSPECTOR, "--cli", "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert fetched.returncode == 0, fetched.stdout + fetched.stderr


@pytest.fixture(params=list(VERSIONS))
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def inspect(data_dir: Path, protocol: str, method: str, *options: str, fails: bool = False) -> dict[str, Any]:
    """Runs the Inspector once, as a shell would, against a server of its own; returns the result that it prints."""
    environment = server_environment(data_dir)
    server = [sys.executable, "-m", "agent_mcp", "serve"]
    # The Inspector hands its server next to nothing of its own environment.
    for name in ("AGENT_MCP_DATA_DIR", "AGENT_MCP_MODEL", "PYTHONPATH"):
        server += ["-e", f"{name}={environment[name]}"] if name in environment else []
    command = ["npx", "-y", INSPECTOR, "--cli", *server, "--protocol-era", protocol, "--connect-timeout", "60000"]
    done = subprocess.run(
        [*command, "--format", "json", "--quiet", "--method", method, *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return json.loads(done.stdout)["result"]


def ask(data_dir: Path, protocol: str, **arguments: str) -> dict[str, Any]:
    options = [part for name, value in arguments.items() for part in ("--tool-arg", f"{name}={value}")]
    result = inspect(data_dir, protocol, "tools/call", "--tool-name", "ask_agent", *options)
    assert not result.get("isError")
    return result["structuredContent"]


def test_the_inspector_speaks_both_generations(data_dir: Path, protocol: str) -> None:
    shaken = inspect(data_dir, protocol, "initialize")
    assert shaken["protocolVersion"] == VERSIONS[protocol]
    assert shaken["serverInfo"]["name"] == "agent-mcp"


def test_the_inspector_lists_the_tools_and_finds_no_error_in_their_schemas(data_dir: Path, protocol: str) -> None:
    tools = inspect(data_dir, protocol, "tools/list", "--strict")["tools"]  # --strict exits with 6 at an error
    assert "ask_agent" in [tool["name"] for tool in tools]
    assert all(tool["outputSchema"]["properties"] for tool in tools)


def test_the_inspector_asks_and_is_remembered_by_another_server(data_dir: Path, protocol: str) -> None:
    told = ask(data_dir, protocol, prompt="My name is John")
    asked = ask(data_dir, protocol, prompt="What's my name?", session_id=told["session_id"])
    assert told["status"] == asked["status"] == "completed"
    assert "John" in asked["response"]
    transcript = inspect(data_dir, protocol, "resources/read", "--uri", asked["transcript"])
    assert "My name is John" in transcript["contents"][0]["text"]


def test_the_inspector_shows_an_error_as_one(data_dir: Path, protocol: str) -> None:
    result = inspect(
        data_dir, protocol, "tools/call", "--tool-name", "ask_agent", "--tool-arg", "promt=Hello", fails=True
    )
    assert result["isError"]
    assert "'prompt'" in result["content"][0]["text"]
    assert result["content"][0]["text"].endswith("[invalid_argument]")


def test_the_inspector_gets_a_prompt_and_completes_its_arguments(data_dir: Path, protocol: str) -> None:
    told = ask(data_dir, protocol, prompt="The invoice of the plumber", session_id="plumber", agent_id="assistant")
    assert told["session_id"] == "plumber"
    prompts = {prompt["name"] for prompt in inspect(data_dir, protocol, "prompts/list")["prompts"]}
    assert prompts == {"delegate", "continue_session", "hand_over"}
    options = ("--prompt-name", "continue_session", "--prompt-args", "session_id=plumber")
    messages = inspect(data_dir, protocol, "prompts/get", *options)["messages"]
    assert "plumber" in messages[0]["content"]["text"]
    assert messages[1]["content"]["uri"] == told["transcript"]


@pytest.mark.parametrize("era", list(VERSIONS))
def test_the_inspector_asks_over_http(data_dir: Path, era: str) -> None:
    with process(data_dir) as (_, url):
        command = ["npx", "-y", INSPECTOR, "--cli", f"{url}/mcp", "--transport", "http", "--protocol-era", era]
        done = subprocess.run(
            [
                *(*command, "--connect-timeout", "60000", "--format", "json", "--quiet", "--method", "tools/call"),
                *("--tool-name", "ask_agent", "--tool-arg", "prompt=My name is John"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["result"]["structuredContent"]["status"] == "completed"
