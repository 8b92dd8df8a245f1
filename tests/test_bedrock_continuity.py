"""The main job on Bedrock: what the model is sent is what was said in this session, exactly, also after a restart.

Real server processes with the real BedrockModel and boto3, against a loopback server that refuses what Bedrock refuses.
"""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent_mcp.domain import ToolCall
from agent_mcp.errors import ToolNotAllowed
from agent_mcp.service import AgentDraft, Service
from bedrock_server import Answer, BedrockServer, Received, Text, ToolUse, in_turn, say, use_tool
from conftest import call, connect, server_environment
from in_process import CALLER, ask, running

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


@pytest.fixture
def bedrock() -> Iterator[BedrockServer]:
    """A Bedrock that knows a name if it is in the messages of the request."""
    with BedrockServer(remembering) as server:
        yield server
        assert server.violations == []


def remembering(received: Received) -> Answer:
    said = " ".join(text for _, text in texts(received))
    name = re.search(r"My name is (\w+)", said)
    return say(f"Your name is {name[1]}." if name else "I don't know your name.")


def texts(received: Received) -> list[tuple[str, str]]:
    """The role and the text of each message; other content by the names of its kinds, without marks for a cache."""
    return [
        (m["role"], "".join(b.get("text", f"<{next(iter(b))}>") for b in m["content"] if "cachePoint" not in b))
        for m in received.messages
    ]


def replace_in(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def contents(directory: Path, pattern: str) -> list[str]:
    found = [path.read_text() for path in directory.glob(pattern)]
    assert found
    return found


def run_doctor(env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent_mcp", "doctor"], env=env, capture_output=True, text=True, timeout=180
    )


def on(server: BedrockServer, **env: str) -> dict[str, str]:
    return server.env | {"AGENT_MCP_MODEL": MODEL} | env


async def test_after_a_restart_bedrock_is_sent_exactly_user_assistant_user(
    bedrock: BedrockServer, data_dir: Path, era: str
) -> None:
    async with connect(data_dir, env=on(bedrock), mode=era) as client:
        told = await call(client, "ask_agent", prompt="My name is John")
    async with connect(data_dir, env=on(bedrock), mode=era) as client:
        asked = await call(client, "ask_agent", prompt="What's my name?", session_id=told["session_id"])
        other = await call(client, "ask_agent", prompt="What's my name?")
        transcript = await client.read_resource(asked["transcript"])

    first, second, third = bedrock.requests
    assert texts(first) == [("user", "My name is John")]
    assert texts(second) == [
        ("user", "My name is John"),
        ("assistant", "Your name is John."),
        ("user", "What's my name?"),
    ]
    assert texts(third) == [("user", "What's my name?")]
    assert "John" in asked["response"]
    assert other["response"] == "I don't know your name."
    assert asked["model"] == f"bedrock:{MODEL}"
    assert first.model_id == MODEL
    assert all(text in str(transcript.contents[0]) for _, text in texts(second))


@pytest.fixture
def serving(bedrock: BedrockServer, monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> "Serving":
    """Starts the service in this process on the loopback Bedrock, as often as it is called."""
    for name, value in bedrock.env.items():
        monkeypatch.setenv(name, value)
    return partial(running, data_dir, model=MODEL)


Serving = Callable[..., AbstractAsyncContextManager[Service]]


async def test_the_system_prompt_is_sent_and_never_kept_in_the_conversation(
    bedrock: BedrockServer, serving: Serving, data_dir: Path
) -> None:
    async with serving() as service:
        await service.agents.create(CALLER, AgentDraft(name="Pirate", system_prompt="You are a pirate called Ann."))
        told = await ask(service, "Ahoy", agent="pirate")
        replace_in(data_dir / "agents" / "pirate.md", "called Ann", "called Bob")  # by hand, between two turns
        await ask(service, "And now?", told.session_id)
    before, after = bedrock.requests
    assert before.system == "You are a pirate called Ann."
    assert after.system == "You are a pirate called Bob."
    assert not any("pirate called" in text for text in contents(data_dir, "session_*/**/*.json"))


async def test_a_calculation_goes_to_the_tool_and_its_result_back_to_bedrock(
    bedrock: BedrockServer, serving: Serving
) -> None:
    bedrock.script = in_turn(
        Answer([Text("Let me see. "), ToolUse("calculator", {"expression": "6 * 7"}, tool_use_id="tool-1")]),
        say("It is 42."),
        say("I used the calculator."),
    )
    async with serving() as service:
        await service.agents.create(CALLER, AgentDraft(name="Sums", tools=("calculator",)))
        reply = await ask(service, "What is 6 * 7?", agent="sums")
    async with serving() as service:
        await ask(service, "How did you do that?", reply.session_id)

    first, second, third = bedrock.requests
    assert first.tools == ["calculator", "search_session"]
    assert second.tool_results == ["42"]
    assert texts(third) == [
        ("user", "What is 6 * 7?"),
        ("assistant", "Let me see. <toolUse>"),
        ("user", "<toolResult>"),
        ("assistant", "It is 42."),
        ("user", "How did you do that?"),
    ]
    assert reply.tool_calls == (ToolCall(name="calculator", arguments={"expression": "6 * 7"}, status="success"),)
    assert reply.response == "It is 42."


async def test_a_tool_that_fails_tells_bedrock_so_and_the_turn_goes_on(
    bedrock: BedrockServer, serving: Serving
) -> None:
    bedrock.script = in_turn(use_tool("calculator", {"expression": "1 / 0"}), say("That can't be worked out."))
    async with serving() as service:
        await service.agents.create(CALLER, AgentDraft(name="Sums", tools=("calculator",)))
        reply = await ask(service, "What is 1 / 0?", agent="sums")
    assert "division by zero" in bedrock.requests[1].tool_results[0]
    assert [call.status for call in reply.tool_calls] == ["error"]
    assert reply.response == "That can't be worked out."


OPERATOR_TOOLS = '''
from strands import tool

@tool
def stock(item: str) -> str:
    """How many of an item are in store.

    Args:
        item: The item.
    """
    return f"17 {item} in store"
'''


def with_modules(tmp_path: Path, tools: str, **modules: str) -> dict[str, str]:
    """The environment in which these modules can be imported, and AGENT_MCP_TOOLS names `tools`."""
    code = tmp_path / "code"
    code.mkdir()
    for name, text in modules.items():
        (code / f"{name}.py").write_text(text)
    path = os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH", "")]))
    return {"PYTHONPATH": path, "AGENT_MCP_TOOLS": tools}


async def test_a_tool_of_the_operators_module_is_run_with_what_bedrock_gave(
    bedrock: BedrockServer, serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bedrock.script = in_turn(use_tool("stock", {"item": "bolts"}), say("There are 17."), say("I can't look."))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "shop_tools.py").write_text(OPERATOR_TOOLS)
    async with serving(tools="shop_tools") as service:
        with pytest.raises(ToolNotAllowed, match="py:stock"):
            await service.agents.create(CALLER, AgentDraft(name="Shop", tools=("py:stok",)))
        await service.agents.create(CALLER, AgentDraft(name="Shop", tools=("py:stock",)))
        reply = await ask(service, "How many bolts?", agent="shop")
    async with serving() as service:  # the operator takes the module away
        listed = await service.agents.list_agents(CALLER, query="shop")
        again = await ask(service, "And nuts?", reply.session_id)
    assert bedrock.requests[0].tools == ["stock", "search_session"]
    assert bedrock.requests[1].tool_results == ["17 bolts in store"]
    assert reply.response == "There are 17."
    assert "py:stock" in listed.agents[0].warnings[0]
    assert bedrock.requests[2].tools == ["search_session"]  # and the earlier use of it was still accepted
    assert again.response == "I can't look."


UNUSABLE = {
    "no_licence": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "no_syntax": ("def (", "SyntaxError"),
    "no_tools": ("x = 1", "no function with Strands' @tool"),
    "no_patience": ("import sys; sys.exit(3)", "SystemExit: 3"),
}


async def test_modules_that_cannot_be_used_are_named_and_everything_else_works(data_dir: Path, tmp_path: Path) -> None:
    modules = {name: code for name, (code, _) in UNUSABLE.items()} | {"good_tools": OPERATOR_TOOLS}
    env = with_modules(tmp_path, ",".join(["not_there", *modules]), **modules)
    async with connect(data_dir, env=env) as client:
        listed: dict[str, Any] = await call(client, "list_agents")
        agent = await call(client, "create_agent", name="Shop", tools=["py:stock"])
        reply = await call(
            client, "ask_agent", prompt='Use the tool stock with {"item": "nuts"}', agent_id=agent["agent_id"]
        )
    doctor = await asyncio.to_thread(run_doctor, server_environment(data_dir, env))
    reasons = {"not_there": "No module named 'not_there'"} | {name: why for name, (_, why) in UNUSABLE.items()}
    assert len(listed["warnings"]) == len(reasons)
    assert doctor.returncode == 1
    for warning, (name, reason) in zip(listed["warnings"], reasons.items(), strict=True):
        assert name in warning
        assert reason in warning
        assert f"FAIL  tools: {warning}" in doctor.stdout
    assert "py:stock" in doctor.stdout
    assert "17 nuts in store" in reply["response"]
