"""The Containerfile against the contract of Bedrock AgentCore Runtime: what it says is run, and driven as there.

No image is built here: the command, the environment and the port are read from the file and started as a process.
"""

import json
import re
import uuid
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from conftest import ERAS, call
from web import DEADLINE, process

ROOT = Path(__file__).parent.parent
LOCAL = {"Host": "runtime.internal"}


def instructions() -> list[tuple[str, str]]:
    """The lines of the last stage, joined where they go on, by instruction."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Containerfile").read_text("utf-8"))
    lines = [line.partition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    found = [(name, rest.strip()) for name, _, rest in lines]
    return found[max(i for i, (name, _) in enumerate(found) if name == "FROM") :]


def given(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def environment() -> dict[str, str]:
    return dict(line.split("=", 1) for line in given("ENV"))  # pyright: ignore[reportArgumentType, reportUnknownVariableType] pairs


def platform_headers() -> dict[str, str]:
    """What the platform adds to each request, by its own ids."""
    session = str(uuid.uuid4())
    return {"Mcp-Session-Id": session, "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id": session}


def started(data: Path) -> Any:
    """The server as the file starts it, with another data directory and model, and on a port that is free."""
    [command] = given("CMD")
    program, serve, http, address, *options = json.loads(command)
    assert (program, serve, http, address) == ("agent-mcp", "serve", "--http", "0.0.0.0:8000")
    there = ("PATH", "AGENT_MCP_DATA_DIR", "AGENT_MCP_MODEL")  # of that machine
    kept = {name: value for name, value in environment().items() if name not in there}
    return process(data, *options, env=kept, address=address.replace("8000", "0"))


def reached(url: str) -> str:
    return url.replace("0.0.0.0", "127.0.0.1")


def test_it_serves_on_the_platforms_port_as_a_user_without_rights_and_keeps_its_data_in_a_volume() -> None:
    assert given("EXPOSE") == ["8000"]
    [user] = given("USER")
    assert int(user) > 0
    assert given("VOLUME") == [environment()["AGENT_MCP_DATA_DIR"]]


def test_all_that_is_copied_into_it_is_there_and_not_ignored() -> None:
    text = (ROOT / "Containerfile").read_text("utf-8")
    copied = {name for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE) for name in line.split()}
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignored
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)
    assert "--require-hashes" in text


@pytest.mark.parametrize("mode", ERAS)
async def test_a_client_of_either_generation_is_served_through_the_platform(data_dir: Path, mode: str) -> None:
    """Each client comes with a session of the platform's, which the server never gave and may not refuse."""
    with started(data_dir) as (_, url):

        async def connected(prompt: str, **more: str) -> dict[str, Any]:
            headers = {**LOCAL, **platform_headers()}
            async with (
                httpx2.AsyncClient(headers=headers, timeout=DEADLINE, trust_env=False) as http,
                Client(
                    streamable_http_client(f"{reached(url)}/mcp", http_client=http),
                    mode=mode,
                    read_timeout_seconds=DEADLINE,
                ) as client,
            ):
                assert (await client.list_tools()).tools
                return await call(client, "ask_agent", prompt=prompt, **more)

        told = await connected("My name is John")
        asked = await connected("What's my name?", session_id=told["session_id"])
    assert "John" in asked["response"]


def test_a_bare_request_of_an_older_client_needs_no_handshake_with_this_very_server(data_dir: Path) -> None:
    """The platform may hand any request to any copy of the server: one that never saw the handshake."""
    headers = {**LOCAL, **platform_headers(), "Accept": "application/json, text/event-stream"}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    with (
        started(data_dir) as (_, url),
        httpx.Client(base_url=reached(url), headers=headers, timeout=DEADLINE, trust_env=False) as client,
    ):
        answer = client.post("/mcp", json=body, headers={"MCP-Protocol-Version": "2025-11-25"})
        assert answer.status_code == 200, answer.text
        assert "ask_agent" in answer.text
        assert "mcp-session-id" not in answer.headers
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/metrics").status_code == 401
