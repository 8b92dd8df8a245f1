"""What a provider reads again and again is marked for its cache, and counts as read however little it costs."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent_mcp.domain import Usage
from agent_mcp.service import AgentDraft
from bedrock_server import Answer, BedrockServer, Received, Reply, Text, ToolUse, say
from engine import bedrock_env, serving
from in_process import CALLER, ask, running
from model_servers import PROVIDERS, ModelServer, Say

POINT = {"cachePoint": {"type": "default"}}
MARK = {"type": "ephemeral"}
CACHED = 100


async def test_tools_prompt_and_history_are_marked_for_bedrocks_cache_where_the_model_has_one(data_dir: Path) -> None:
    with BedrockServer(lambda received: say("Yes.")) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            made = {"system_prompt": "Be brief.", "tools": ["calculator"]}
            await server.call("create_agent", name="Own", **made)
            await server.call("create_agent", name="Nova", model="us.amazon.nova-pro-v1:0", **made)
            session = (await server.ask("One", agent_id="own"))["session_id"]
            await server.ask("Two", session_id=session)
            await server.ask("One", agent_id="nova")
        assert model.violations == []
    second, nova = model.requests[1].body, model.requests[2].body
    assert second["toolConfig"]["tools"][-1] == POINT
    assert second["system"][-1] == POINT
    assert second["messages"][-1]["content"][-1] == POINT
    assert "cachePoint" not in json.dumps(nova)


async def test_tools_prompt_and_history_are_marked_for_anthropics_cache(data_dir: Path) -> None:
    with ModelServer("anthropic", Say("Yes."), Say("Yes.")) as server:
        async with running(data_dir, model=server.model, environ=server.environ) as service:
            draft = AgentDraft(name="Own", system_prompt="Be brief.", tools=("calculator",))
            await service.agents.create(CALLER, draft)
            await ask(service, "One", "mine", agent="own")
            await ask(service, "Two", "mine")
    request = server.requests[-1]
    assert request["tools"][-1]["cache_control"] == MARK
    assert request["system"][-1]["cache_control"] == MARK
    assert request["messages"][-1]["content"][-1]["cache_control"] == MARK


@pytest.mark.parametrize("own_address", [True, False], ids=["another server", "OpenAI's"])
async def test_a_session_has_a_key_of_its_own_in_openais_cache_and_other_servers_are_told_none(
    data_dir: Path, own_address: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ModelServer("openai", Say("Yes.")) as server:
        environ = dict(server.environ)
        if not own_address:  # the package itself still finds the way here, where nothing is said of it to us
            monkeypatch.setenv("OPENAI_BASE_URL", environ.pop("OPENAI_BASE_URL"))
        async with running(data_dir, model=server.model, environ=environ) as service:
            await ask(service, "One", "mine", agent="assistant")
    assert server.requests[0].get("prompt_cache_key") == (None if own_address else "strands-mine")


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_was_in_the_cache_counts_as_read_whatever_the_provider(
    data_dir: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ModelServer(provider, Say("Yes.", cached=CACHED)) as server:
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        async with running(data_dir, model=server.model, environ=server.environ) as service:
            reply = await ask(service, "Hi")
    # Ollama leaves out what it need not read again.
    read = 0 if provider == "ollama" else 7 + CACHED
    assert reply.usage == Usage(input_tokens=read, output_tokens=3, total_tokens=read + 3)


async def test_what_was_in_the_cache_counts_in_a_budget_too(data_dir: Path) -> None:
    def script(received: Received) -> Reply:
        if received.last_text == "Count" or (not received.last_text and "calculator" in received.tools):
            return Answer([ToolUse("calculator", {"expression": "1 + 1"})], usage=(10, 10), cached=(60, 20))
        return Answer([Text("Yes.")], usage=(10, 10), cached=(60, 20))

    with BedrockServer(script) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            await server.call("create_agent", name="Counter", tools=["calculator"])
            session = await server.start_session("tight", agent_id="counter", token_budget=250)
            reply: dict[str, Any] = await server.ask("Count", session_id=session)
        assert len(model.requests) == 3
        assert model.violations == []
    assert reply["stop_reason"] == "limit_total_tokens"
    assert reply["usage"] == {"input_tokens": 270, "output_tokens": 30, "total_tokens": 300}
