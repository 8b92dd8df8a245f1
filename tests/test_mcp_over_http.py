"""MCP over Streamable HTTP: both generations on one server, beside REST and over the same sessions."""

from collections.abc import Generator

import pytest

from conftest import assert_teaches, call, refused
from web import Web, serving


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
