"""The main job: an agent that remembers, over MCP, across a restart."""

from pathlib import Path

from conftest import call, connect


async def test_a_session_is_remembered_after_a_restart_and_another_one_is_not(data_dir: Path, era: str) -> None:
    async with connect(data_dir, mode=era) as client:
        told = await call(client, "ask_agent", prompt="My name is John")
    async with connect(data_dir, mode=era) as client:
        asked = await call(client, "ask_agent", prompt="What's my name?", session_id=told["session_id"])
        other = await call(client, "ask_agent", prompt="What's my name?")
        transcript = await client.read_resource(asked["transcript"])
    assert told["new_session"]
    assert not asked["new_session"]
    assert "John" in asked["response"]
    assert "John" not in other["response"]
    assert "My name is John" in str(transcript.contents[0])
