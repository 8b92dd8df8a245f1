"""Two subjects on one server: through every door there is, neither sees, changes or ends what is the other's.

A third one is the local subject, without authentication: a door that forgets to ask who calls shows what is its.
"""

import re
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import ResourceTemplateReference

from agent_mcp.storage.subjects import subject_root
from agent_mcp.token_file import TokenFile
from conftest import ERAS, text_of
from doors import CALLS, CAPABILITIES, RESOURCES, TOOLS, Owned, documented, unknown, walk
from web import DEADLINE, Web, serving


class Member(httpx.Client):
    """Somebody who uses the server with a token, or without."""

    def __init__(self, web: Web, token: str | None) -> None:
        self.bearer = {"Authorization": f"Bearer {token}"} if token else {}
        super().__init__(base_url=web.url, headers=self.bearer, timeout=DEADLINE, trust_env=False)
        self._url = web.url

    @asynccontextmanager
    async def mcp(self, mode: str = "auto") -> AsyncGenerator[Client]:
        async with (
            httpx2.AsyncClient(headers=self.bearer, timeout=DEADLINE, trust_env=False) as http,
            Client(
                streamable_http_client(f"{self._url}/mcp", http_client=http), mode=mode, read_timeout_seconds=DEADLINE
            ) as client,
        ):
            yield client

    def made(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.post(f"/api/v1{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()


@dataclass(frozen=True)
class Team:
    web: Web
    alice: Member
    bob: Member
    owned: tuple[Owned, ...]
    home: Path

    def state(self) -> dict[str, bytes]:
        """What is kept for Alice and the local subject, byte for byte; indexes and locks left out."""
        bobs = subject_root(self.home / "data", "bob")
        return {
            str(path): path.read_bytes()
            for path in sorted((self.home / "data").rglob("*"))
            if path.is_file() and bobs not in path.parents and path.suffix in (".json", ".md")
        }


def settle_in(web: Web, member: Member, word: str) -> Owned:
    """Makes an agent, a session with a turn, and a memory, all with a word that nobody else may see."""
    member.made("/agents", {"name": f"Helper {word[0]}", "system_prompt": f"You work for {word}."})
    agent_id = f"helper-{word[0].lower()}"
    session_id = f"notes-{word[0].lower()}"
    reply = member.made(f"/agents/{agent_id}/invoke", {"prompt": f"My name is {word}", "session_id": session_id})
    assert word in reply["response"]
    return Owned(
        session_id=session_id, turn_id=reply["turn_id"], agent_id=agent_id, memory_id="m-" + "0" * 32, secret=word
    )


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Generator[Team]:
    """A server for two subjects with a token each, where a third, the local one, has something too."""
    home = tmp_path_factory.mktemp("team")
    file = TokenFile(home / "tokens.toml")
    # With their scope, so that the metrics are walked too: what they say must be of nobody.
    tokens = [file.add(name=subject, subject=subject, scopes=["metrics"]) for subject in ("alice", "bob")]
    with serving(home / "data") as web, Member(web, None) as nobody:
        local = settle_in(web, nobody, "Localia")
    with serving(home / "data", tokens=home / "tokens.toml") as web, ExitStack() as stack:
        alice, bob = (stack.enter_context(Member(web, token)) for token in tokens)
        yield Team(web=web, alice=alice, bob=bob, owned=(settle_in(web, alice, "Quintessa"), local), home=home)


def test_no_rest_call_shows_or_changes_what_is_anothers(team: Team) -> None:
    document = team.bob.get("/openapi.json").json()
    assert not unknown(documented(document), CALLS, "CALLS")
    before = team.state()
    for owned in team.owned:
        for method, path in documented(document):
            answer = walk(team.bob, method, path, owned)
            assert answer.status_code not in (401, 403, 422, 429, 500), f"{method} {path}: {answer.text}"
            assert not owned.seen_in(answer.text), f"{method} {path} shows what is another's"
    assert team.state() == before


@pytest.mark.parametrize("mode", ERAS)
async def test_no_tool_shows_or_changes_what_is_anothers(team: Team, mode: str) -> None:
    before = team.state()
    async with team.bob.mcp(mode) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        assert not unknown(tools, TOOLS, "TOOLS")
        for owned in team.owned:
            for tool in tools:
                result = await client.call_tool(tool, owned.filled(TOOLS[tool]))
                assert "[invalid_argument]" not in text_of(result), f"{tool}: {text_of(result)}"
                assert not owned.seen_in(result.model_dump_json()), f"{tool} shows what is another's"
    assert team.state() == before


@pytest.mark.parametrize("mode", ERAS)
async def test_no_resource_shows_what_is_anothers(team: Team, mode: str) -> None:
    async with team.bob.mcp(mode) as client:
        templates = [one.uri_template for one in (await client.list_resource_templates()).resource_templates]
        assert not unknown(templates, RESOURCES, "RESOURCES")
        listed = (await client.list_resources()).model_dump_json()
        for owned in team.owned:
            assert not owned.seen_in(listed, ids=True)
            for template in templates:
                uri = template.format_map({**vars(owned), **RESOURCES[template]})
                with pytest.raises(MCPError) as refusal:
                    await client.read_resource(uri)
                assert not owned.seen_in(str(refusal.value))


@pytest.mark.parametrize("mode", ERAS)
async def test_no_completion_shows_an_id_that_is_anothers(team: Team, mode: str) -> None:
    async with team.bob.mcp(mode) as client:
        if client.server_capabilities.completions is None:
            return
        for template in RESOURCES:
            for name in re.findall(r"{(\w+)}", template):
                found = await client.complete(ResourceTemplateReference(uri=template), {"name": name, "value": ""})
                for owned in team.owned:
                    assert not owned.seen_in(found.model_dump_json(), ids=True), f"{template}: {name}"


async def test_there_is_no_kind_of_door_that_is_not_walked(team: Team) -> None:
    async with team.bob.mcp() as client:
        given = client.server_capabilities.model_dump(exclude_none=True)
        assert not unknown(given, CAPABILITIES, "CAPABILITIES, and walk it in test_isolation.py")


async def test_a_connection_belongs_to_whoever_began_it(team: Team) -> None:
    """An older client's connection has an id: another's token can't speak through it."""
    start = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    accept = {"Accept": "application/json, text/event-stream"}
    begun = team.alice.post("/mcp", json=start, headers=accept)
    connection = {**accept, "Mcp-Session-Id": begun.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}
    listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    assert team.alice.post("/mcp", json=listing, headers=connection).status_code == 200
    assert team.bob.post("/mcp", json=listing, headers=connection).status_code == 404
