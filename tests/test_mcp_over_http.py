"""MCP over Streamable HTTP: both generations on one server, beside REST and over the same sessions."""

from collections.abc import Generator
from pathlib import Path

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from conftest import assert_teaches, call, refused
from web import DEADLINE, Web, serving


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Generator[Web]:
    with serving(tmp_path_factory.mktemp("mcp") / "data") as web:
        yield web


async def test_both_generations_and_rest_share_sessions(web: Web, era: str) -> None:
    async with web.mcp(era) as client:
        told = await call(client, "ask_agent", prompt="My name is John", actor_id="user-9")
        assert told["actor_id"] == "user-9"
        assert (await call(client, "read_transcript", session_id=told["session_id"]))["total"] == 2
        text = await refused(client, "ask_agent", prompt="Hello", session_id=told["session_id"], actor_id="else")
        assert_teaches(text, "actor_mismatch")
    asked = web.ask("What's my name?", session_id=told["session_id"])
    assert "John" in asked["response"]
    async with web.mcp(era) as another:
        page = await another.read_resource(asked["transcript"])
        assert "My name is John" in str(page.contents[0])


async def test_a_text_that_is_too_long_for_one_event_comes_in_pieces(web: Web, era: str) -> None:
    """Clients take 1 MiB in one event, and a result holds each text twice, escaped: the worst are read here."""
    prompt = ("\N{SLIGHTLY SMILING FACE}" * 63 + '"\\\x01' + "я" * 30) * 2500
    assert 512 * 1024 < len(prompt.encode()) <= 1024 * 1024
    session_id = web.ask(prompt)["session_id"]
    async with web.mcp(era) as client:
        newest = await call(client, "read_transcript", session_id=session_id)
        assert ([message["index"] for message in newest["messages"]], newest["before"]) == ([1], 1)
        pieces: list[str] = []
        page = await call(client, "read_transcript", session_id=session_id, before=1)
        while True:
            (message,) = page["messages"]
            pieces.append(message["text"])
            if message["cut_at"] is None:
                break
            page = await call(client, "read_transcript", session_id=session_id, before=1, offset=message["cut_at"])
        assert "".join(pieces) == prompt
        text = await refused(client, "read_transcript", session_id=session_id, offset=5)
        assert_teaches(text, "invalid_argument")
        for uri in (f"session://{session_id}/transcript", f"session://{session_id}/messages"):
            assert await client.read_resource(uri)
    rest = web.get(f"/sessions/{session_id}/messages", before=1, offset=page["messages"][0]["index"]).json()
    assert rest["messages"][0]["text"] == prompt[:40_000]


async def test_a_platform_may_add_a_session_header_of_its_own_where_no_connections_are_kept(
    tmp_path: Path, era: str
) -> None:
    with serving(tmp_path / "data", stateless=True) as web:
        headers = {"Mcp-Session-Id": "of-the-platform", "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id": "s" * 33}
        async with httpx2.AsyncClient(headers=headers, timeout=DEADLINE, trust_env=False) as http:
            async with Client(streamable_http_client(f"{web.url}/mcp", http_client=http), mode=era) as client:
                told = await call(client, "ask_agent", prompt="My name is John")
            async with Client(streamable_http_client(f"{web.url}/mcp", http_client=http), mode=era) as client:
                asked = await call(client, "ask_agent", prompt="What's my name?", session_id=told["session_id"])
        assert "John" in asked["response"]
