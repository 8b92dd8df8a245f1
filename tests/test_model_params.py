"""The parameters of a model over the wire: one name here, and each provider's own word for it in the request."""

from pathlib import Path
from typing import Any

import pytest

from agent_mcp.errors import InvalidArgument
from agent_mcp.model_params import ModelParams
from agent_mcp.service import AgentDraft
from bedrock_server import BedrockServer, say
from conftest import assert_teaches
from engine import bedrock_env, serving
from in_process import CALLER, ask, running
from model_servers import ModelServer, Say

PARAMS: ModelParams = {"temperature": 0.25, "top_p": 0.5, "max_tokens": 500, "stop": ["END"]}
OPENAI_WORDS = {"temperature": 0.25, "top_p": 0.5, "max_tokens": 500, "stop": ["END"]}
GEMINI_WORDS = {"temperature": 0.25, "topP": 0.5, "maxOutputTokens": 500, "stopSequences": ["END"]}

SENT: dict[str, dict[str, Any]] = {
    "anthropic:claude-opus-4-8": {
        "temperature": 0.25,
        "top_p": 0.5,
        "max_tokens": 500,
        "stop_sequences": ["END"],
        "output_config": {"effort": "low"},
    },
    "gemini:gemini-3.5-flash": {"generationConfig": {**GEMINI_WORDS, "thinkingConfig": {"thinking_level": "LOW"}}},
    "gemini:gemini-2.5-pro": {"generationConfig": {**GEMINI_WORDS, "thinkingConfig": {"thinking_budget": 1024}}},
    "openai:gpt-5.4": {**OPENAI_WORDS, "reasoning_effort": "low"},
    "ollama:gpt-oss:20b": {
        "options": {"temperature": 0.25, "top_p": 0.5, "num_predict": 500, "stop": ["END"]},
        "think": "low",
    },
}
"""What stands in a request with all parameters."""

SENT_WITHOUT_EFFORT: dict[str, dict[str, Any]] = {
    "llamacpp:default": OPENAI_WORDS,
    "litellm:openai/some-model": OPENAI_WORDS,
}

ON_BEDROCK: dict[str, dict[str, Any]] = {
    "us.anthropic.claude-opus-4-8-v1:0": {"output_config": {"effort": "high"}},
    "openai.gpt-oss-120b-1:0": {"reasoning_effort": "high"},
    "us.amazon.nova-2-lite-v1:0": {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}},
}


async def request_of(data: Path, model: str, params: ModelParams, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What one ask of an agent with this model and these parameters sends."""
    with ModelServer(model.partition(":")[0], Say("Yes.")) as server:
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        async with running(data, model="offline", environ=server.environ) as service:
            await service.agents.create(CALLER, AgentDraft(name="Own", model=model, model_params=params))
            await ask(service, "Hi", agent="own")
        (request,) = server.requests
        return request


@pytest.mark.parametrize("model", [*SENT, *SENT_WITHOUT_EFFORT])
async def test_parameters_reach_the_service_by_its_own_words(
    data_dir: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    params: ModelParams = {**PARAMS, "reasoning_effort": "low"} if model in SENT else PARAMS
    request = await request_of(data_dir, model, params, monkeypatch)
    expected = {**SENT, **SENT_WITHOUT_EFFORT}[model]
    assert {name: request.get(name) for name in expected} == expected


async def test_litellm_passes_an_effort_on_where_it_knows_that_the_model_has_one(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await request_of(data_dir, "litellm:openai/gpt-5-mini", {"reasoning_effort": "low"}, monkeypatch)
    assert request["reasoning_effort"] == "low"


async def test_openais_own_address_is_told_the_limit_by_its_newer_name(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ModelServer("openai", Say("Yes.")) as server:
        environ = dict(server.environ)
        monkeypatch.setenv("OPENAI_BASE_URL", environ.pop("OPENAI_BASE_URL"))  # found by the package, unseen by us
        async with running(data_dir, model="openai:gpt-5.4", environ=environ) as service:
            await service.agents.create(CALLER, AgentDraft(name="Own", model_params={"max_tokens": 500}))
            await ask(service, "Hi", agent="own")
    assert server.requests[0]["max_completion_tokens"] == 500
    assert "max_tokens" not in server.requests[0]


async def test_bedrock_is_told_an_effort_in_the_words_of_the_models_maker(data_dir: Path) -> None:
    with BedrockServer(lambda received: say("Yes.")) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            for number, name in enumerate(ON_BEDROCK):
                params = {**PARAMS, "reasoning_effort": "high"}
                await server.call("create_agent", name=f"Own {number}", model=name, model_params=params)
                await server.ask("Hi", agent_id=f"own-{number}")
            error = await server.refused(
                "create_agent", name="Other", model="us.amazon.nova-pro-v1:0", model_params={"reasoning_effort": "low"}
            )
        assert model.violations == []
    for request, (name, fields) in zip(model.requests, ON_BEDROCK.items(), strict=True):
        assert request.model_id == name
        assert request.body["additionalModelRequestFields"] == fields
        assert request.body["inferenceConfig"] == {
            **{"temperature": 0.25, "topP": 0.5, "maxTokens": 500, "stopSequences": ["END"]}
        }
    assert_teaches(error, "invalid_argument")
    assert "nova-pro" in error
    assert "leave it out" in error


async def test_an_effort_that_a_model_does_not_have_is_refused_when_the_agent_is_made_and_else_when_it_is_asked(
    data_dir: Path,
) -> None:
    effort: ModelParams = {"reasoning_effort": "low"}
    with ModelServer("llamacpp", Say("Yes.")) as server:
        async with running(data_dir, model="llamacpp", environ=server.environ) as service:
            with pytest.raises(InvalidArgument, match=r"llama\.cpp takes no reasoning_effort: leave it out"):
                await service.agents.create(CALLER, AgentDraft(name="Own", model="llamacpp", model_params=effort))
            made = await service.agents.create(CALLER, AgentDraft(name="Own", model_params=effort))
            with pytest.raises(InvalidArgument, match=r"llama\.cpp takes no reasoning_effort: leave it out"):
                await ask(service, "Hi", agent="own")
            with pytest.raises(InvalidArgument, match="leave it out"):
                await service.agents.update(CALLER, made.agent_id, AgentDraft(model="llamacpp"))
            await service.agents.update(CALLER, made.agent_id, AgentDraft(model="llamacpp", model_params={}))
            assert (await ask(service, "Hi", agent="own")).response == "Yes."
    assert len(server.requests) == 1
