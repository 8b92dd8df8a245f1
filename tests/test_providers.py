"""Every provider over the wire, against a service on loopback that speaks its dialect: one behaviour for all."""

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_mcp.domain import Message
from agent_mcp.errors import ModelFailed, TurnTimeout
from agent_mcp.events import Retrying, TextWritten
from agent_mcp.models import Models, parse_model
from agent_mcp.service import AgentDraft, Prompt, Service
from in_process import CALLER, ask, running
from model_servers import PROVIDERS, SECRET, HangUp, ModelServer, Refuse, Say, Use

pytestmark = [pytest.mark.parametrize("provider", PROVIDERS), pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM and the packages' defaults look at the process's environment: nothing of the machine's is found."""
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@asynccontextmanager
async def served(
    data_dir: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncGenerator[Service]:
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    async with running(data_dir, model=server.model, environ=server.environ, **settings) as service:
        yield service


async def test_it_streams_and_uses_a_tool_and_goes_on(
    data_dir: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = (Use("calculator", {"expression": "6 * 7"}), Say("It is ", "42."), Say("Yes."))
    with ModelServer(provider, *replies) as server:
        async with served(data_dir, server, monkeypatch) as service:
            await service.agents.create(CALLER, AgentDraft(name="Own", tools=("calculator",)))
            first = await ask(service, "What is 6 times 7?", "mine", agent="own")
            second = await ask(service, "Sure?", "mine")
    assert first.response == "It is 42."
    assert [(call.name, call.status) for call in first.tool_calls] == [("calculator", "success")]
    assert first.usage.input_tokens >= 7
    assert second.response == "Yes."
    sent = json.dumps(server.requests[-1])
    assert all(text in sent for text in ("What is 6 times 7?", "42", "Sure?"))


async def test_text_is_told_as_it_is_written(data_dir: Path, provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ModelServer(provider, Say("Once ", "upon a time.")) as server:
        async with served(data_dir, server, monkeypatch) as service:
            followed = (await service.turns.ask(CALLER, Prompt(text="Tell me"))).followed
            told = [event.text async for event in followed.events(wait=60, pace=0) if isinstance(event, TextWritten)]
    assert "".join(told) == "Once upon a time."


@pytest.mark.parametrize("trouble", [Refuse(429), Refuse(503), HangUp()], ids=["429", "503", "hung up"])
async def test_a_throttled_or_dropped_call_is_made_again_once_and_told(
    data_dir: Path, provider: str, trouble: Refuse | HangUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ModelServer(provider, trouble, Say("Here.")) as server:
        async with served(data_dir, server, monkeypatch) as service:
            followed = (await service.turns.ask(CALLER, Prompt(text="Hi"))).followed
            told = [event async for event in followed.events(wait=60, pace=0)]
    assert followed.reply().response == "Here."
    assert [event for event in told if isinstance(event, Retrying)] == [Retrying(1.0)]
    assert len(server.requests) == 2


@pytest.mark.parametrize("trouble", [Refuse(429), HangUp()], ids=["429", "hung up"])
async def test_what_never_ends_is_tried_again_until_the_turns_clock_says_no(
    data_dir: Path, provider: str, trouble: Refuse | HangUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ModelServer(provider, always=trouble) as server:
        Models(default="auto", environ=server.environ).build(
            parse_model(server.model)
        )  # imported before the clock runs
        async with served(data_dir, server, monkeypatch, turn_timeout=3.0) as service:
            followed = (await service.turns.ask(CALLER, Prompt(text="Hi"))).followed
            told = [event async for event in followed.events(wait=60, pace=0) if isinstance(event, Retrying)]
            with pytest.raises(TurnTimeout):
                followed.reply()
    assert told[0] == Retrying(1.0)
    # One request for each time that was told, and perhaps one that the clock met: no package tries by itself too.
    assert len(server.requests) - len(told) in (0, 1)


async def test_where_nobody_listens_it_is_tried_twice_more_and_the_error_names_the_operators_part(
    data_dir: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ModelServer(provider) as server:
        environ = dict(server.environ)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    async with running(data_dir, model=server.model, environ=environ) as service:
        followed = (await service.turns.ask(CALLER, Prompt(text="Hi"))).followed
        told = [event async for event in followed.events(wait=60, pace=0) if isinstance(event, Retrying)]
        with pytest.raises(ModelFailed, match="can't be reached: the operator"):
            followed.reply()
    assert told == [Retrying(1.0), Retrying(2.0)]


@pytest.mark.parametrize("torn", [False, True], ids=["in good order", "torn"])
async def test_an_answer_that_breaks_off_is_a_model_error_and_what_was_written_is_kept(
    data_dir: Path, provider: str, torn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ModelServer(provider, Say("Half of", ends=False, torn=torn), Say("Here.")) as server:
        async with served(data_dir, server, monkeypatch) as service:
            with pytest.raises(ModelFailed, match="broke off"):
                await ask(service, "Fail", "mine", agent="assistant")
            again = await ask(service, "Again", "mine")
            page = await service.sessions.read(CALLER, again.session_id)
    assert again.response == "Here."
    kept: list[Message] = list(page.messages)
    assert kept[1].text.startswith("Half of")


async def test_a_refusal_says_what_to_do_and_tells_no_key_and_no_prompt(
    data_dir: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = Refuse(401, f"Bad key {SECRET} for: my private question")
    with ModelServer(provider, refusal) as server:
        async with served(data_dir, server, monkeypatch) as service:
            with pytest.raises(ModelFailed) as error:
                await ask(service, "my private question")
    assert "refused the server's credentials" in error.value.message
    assert "doctor" in error.value.message
    assert SECRET not in error.value.message
    assert "private question" not in error.value.message
    assert len(server.requests) == 1


async def test_turns_share_connections(data_dir: Path, provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ModelServer(provider, *(Say(f"{number}.") for number in range(4))) as server:
        async with served(data_dir, server, monkeypatch) as service:
            for number in range(4):
                assert (await ask(service, "Next")).response == f"{number}."
            clients = clients_of_litellm()
    if provider == "litellm":  # which closes a connection behind the end of an answer, and keeps its clients itself
        assert [type(client).__name__ for client in clients].count("AsyncOpenAI") == 1
        assert clients_of_litellm() == []
    else:
        assert server.connections == 1


def clients_of_litellm() -> list[Any]:
    library: Any = sys.modules.get("litellm")
    return list(library.in_memory_llm_clients_cache.cache_dict.values()) if library else []
