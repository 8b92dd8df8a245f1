"""The programs in examples/ do what they say."""

import asyncio
import re
import sys
from pathlib import Path

from bedrock_server import BedrockServer, Received, Reply, say, use_tool
from conftest import server_environment
from engine import bedrock_env

EXAMPLES = Path(__file__).parents[1] / "examples"


async def test_a_plain_strands_agent_delegates_to_an_agent_that_remembers(data_dir: Path) -> None:
    def script(received: Received) -> Reply:
        """Tells an agent a name, asks in the same session for it, and passes on what it said."""
        if received.last_text:
            return use_tool("ask_agent", {"prompt": "My name is John"})
        (result,) = received.tool_results
        if len(received.messages) > 3:
            return say(f"The agent says: {result}")
        session = re.search(r"s-[0-9a-f]{32}", result)
        assert session, result
        return use_tool("ask_agent", {"prompt": "What's my name?", "session_id": session[0]})

    with BedrockServer(script) as model:
        environment = server_environment(data_dir, {**bedrock_env(model), "AGENT_MCP_MODEL": "offline"})
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(EXAMPLES / "delegate.py"),
            "Have an agent remember my name, and ask it.",
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(90):
            out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert "The agent says: Your name is John." in out.decode()
    assert model.violations == []
    assert set(model.requests[0].tools) == {"ask_agent", "list_agents", "get_reply"}
