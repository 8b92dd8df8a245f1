"""What the model sees: everything while it fits, then a summary of the oldest part, and never less than it needs.

On `offline:small` (2,000 tokens) the model itself refuses a history that a provider refuses, and one that is too long.
On Bedrock over loopback the usage numbers are made up, so that a conversation of a few words counts as a long one.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from strands import Agent
from strands.session.file_session_manager import FileSessionManager

from agent_mcp.context import UNKNOWN_WINDOW_BUDGET, budget_of
from agent_mcp.domain import SessionId
from agent_mcp.errors import ModelFailed
from agent_mcp.offline import SUMMARY_MARKER, OfflineModel, check_history
from agent_mcp.service import AgentDraft, Service
from bedrock_server import Answer, BedrockServer, Fault, Received, Reply, Script, ToolUse, fail, say
from conftest import call, connect
from in_process import CALLER, ask, running

MODEL = "vendor.unknown-model-v1"
"""Strands knows no window of this one, so the budget is 100,000 tokens."""
Serving = Callable[..., AbstractAsyncContextManager[Service]]
TOO_LONG = fail("ValidationException", "Input is too long for requested model.")


@pytest.fixture
def bedrock() -> Iterator[BedrockServer]:
    with BedrockServer(chatting()) as server:
        yield server
        assert server.violations == []


@pytest.fixture
def serving(bedrock: BedrockServer, monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> Serving:
    for name, value in bedrock.env.items():
        monkeypatch.setenv(name, value)
    return partial(running, data_dir, model=MODEL)


def is_summary(received: Received) -> bool:
    return SUMMARY_MARKER in received.system


def chatting(*, usage: Callable[[Received], tuple[int, int] | None] = lambda _: None) -> Script:
    """Answers with the number of messages it saw; the summary is `SUMMARY n` of n characters."""

    def script(received: Received) -> Reply:
        if is_summary(received):
            return say(f"SUMMARY of {len(received.last_text)} characters", usage=(300, 30))
        return say(f"I saw {len(received.messages)}.", usage=usage(received))

    return script


def texts(received: Received) -> list[str]:
    return [
        "".join(b.get("text", f"<{next(iter(b))}>") for b in m["content"] if "cachePoint" not in b)
        for m in received.messages
    ]


def conversation_state(data_dir: Path, session_id: str) -> dict[str, Any]:
    (path,) = (data_dir / f"session_{session_id}").glob("agents/*/agent.json")
    return json.loads(path.read_text())["conversation_manager_state"]


async def test_a_name_told_first_is_known_after_60_asks_with_tools_a_summary_and_a_restart(
    data_dir: Path,
) -> None:
    env = {"AGENT_MCP_MODEL": "offline:small", "AGENT_MCP_FSYNC": "off"}
    removed: list[int] = []
    async with connect(data_dir, env=env) as client:
        agent = await call(client, "create_agent", name="Sums", tools=["calculator", "current_time"])
        session = (await call(client, "ask_agent", prompt="My name is John", agent_id=agent["agent_id"]))["session_id"]
        for n in range(30):
            prompt = f"What is {n} * {n + 1}?" if n % 3 == 0 else f"Tell me about the number {n}, at length please."
            reply = await call(client, "ask_agent", prompt=prompt, session_id=session)
            removed.append(conversation_state(data_dir, session)["removed_message_count"])
            if n % 3 == 0:
                assert str(n * (n + 1)) in reply["response"]
    async with connect(data_dir, env=env) as client:
        for n in range(30, 60):
            prompt = f"What is {n} * {n + 1}?" if n % 3 == 0 else f"Tell me about the number {n}, at length please."
            await call(client, "ask_agent", prompt=prompt, session_id=session)
            removed.append(conversation_state(data_dir, session)["removed_message_count"])
        asked = await call(client, "ask_agent", prompt="What's my name?", session_id=session)
        oldest = await call(client, "read_transcript", session_id=session, before=2)
        sessions = await call(client, "list_sessions", query="John")
    assert "John" in asked["response"]
    assert removed == sorted(removed)
    assert len(set(removed)) >= 4, "summed up again and again, also after the restart"
    assert oldest["messages"][0]["text"] == "My name is John"  # the transcript is whole
    assert oldest["total"] == 2 * 62 + 2 * 20
    assert [found["session_id"] for found in sessions["sessions"]] == [session]


async def test_what_fits_is_sent_whole(bedrock: BedrockServer, serving: Serving, data_dir: Path) -> None:
    async with serving() as service:
        session = (await ask(service, "prompt 0")).session_id
        for n in range(1, 25):
            await ask(service, f"prompt {n}", session)
    assert texts(bedrock.requests[-1])[::2] == [f"prompt {n}" for n in range(25)]
    assert conversation_state(data_dir, session)["removed_message_count"] == 0


async def test_before_a_call_would_go_over_the_budget_the_oldest_part_is_summed_up(
    bedrock: BedrockServer, serving: Serving, data_dir: Path
) -> None:
    async with serving() as service:
        session = (await ask(service, "the first prompt")).session_id
        await ask(service, "the second prompt", session)
        bedrock.script = chatting(usage=lambda _: (UNKNOWN_WINDOW_BUDGET, 5))
        before = await ask(service, "the third prompt", session)
        bedrock.script = chatting()
        reply = await ask(service, "the fourth prompt", session)
    *_, third, summary, fourth = bedrock.requests
    assert len(third.messages) == 5
    assert is_summary(summary)
    assert "the first prompt" in summary.last_text
    assert not is_summary(fourth)
    kept = texts(fourth)
    assert "SUMMARY of" in kept[0]
    assert kept[-1] == "the fourth prompt"
    assert "the first prompt" not in " ".join(kept)
    assert reply.usage.input_tokens >= 300 + fourth.input_tokens  # what the summary took is counted
    assert reply.session_usage.total_tokens == before.session_usage.total_tokens + reply.usage.total_tokens
    assert conversation_state(data_dir, session)["removed_message_count"] > 0


async def test_one_token_below_the_budget_nothing_is_summed_up(bedrock: BedrockServer, serving: Serving) -> None:
    bedrock.script = chatting(usage=lambda _: (UNKNOWN_WINDOW_BUDGET - 10, 1))
    async with serving() as service:
        session = (await ask(service, "one")).session_id
        await ask(service, "two", session)  # 100,000 - 10 + 1 + 1
    assert not any(map(is_summary, bedrock.requests))


def test_the_budget_is_60_percent_of_the_window_and_100000_tokens_where_that_is_unknown() -> None:
    assert [budget_of(window) for window in (200_000, 2_000, None, 0)] == [120_000, 1_200, 100_000, 100_000]


async def test_after_a_restart_the_summary_is_sent_again_and_not_made_again(
    bedrock: BedrockServer, serving: Serving
) -> None:
    bedrock.script = chatting(usage=lambda received: (200_000, 5) if "long" in received.last_text else None)
    async with serving() as service:
        session = (await ask(service, "the first prompt")).session_id
        await ask(service, "a long prompt", session)
        await ask(service, "the third prompt", session)
    summaries = sum(map(is_summary, bedrock.requests))
    async with serving() as service:
        await ask(service, "after the restart", session)
    assert summaries == 1
    assert sum(map(is_summary, bedrock.requests)) == 1
    before, after = texts(bedrock.requests[-2]), texts(bedrock.requests[-1])
    assert after[: len(before)] == before
    assert after[-1] == "after the restart"


async def test_a_second_summary_takes_up_the_first(bedrock: BedrockServer, serving: Serving) -> None:
    bedrock.script = chatting(usage=lambda received: (200_000, 5) if "long" in received.last_text else None)
    async with serving() as service:
        session = (await ask(service, "a long prompt")).session_id
        await ask(service, "the second prompt", session)
        await ask(service, "another long prompt", session)
        await ask(service, "the fourth prompt", session)
    first, second = filter(is_summary, bedrock.requests)
    assert "a long prompt" in first.last_text
    assert "SUMMARY of" in second.last_text
    assert "the second prompt" in second.last_text
    assert "a long prompt" not in second.last_text


async def test_an_input_that_the_service_finds_too_long_is_summed_up_and_sent_again(
    bedrock: BedrockServer, serving: Serving
) -> None:
    refused: list[int] = []

    def script(received: Received) -> Reply:
        if not is_summary(received) and len(received.messages) > 5:
            refused.append(len(received.messages))
            return TOO_LONG
        return chatting()(received)

    bedrock.script = script
    async with serving() as service:
        session = (await ask(service, "prompt 0")).session_id
        replies = [await ask(service, f"prompt {n}", session) for n in range(1, 8)]
    assert refused
    assert all(reply.response.startswith("I saw") for reply in replies)
    assert texts(bedrock.requests[-1])[-1] == "prompt 7"


async def test_a_prompt_that_is_too_long_by_itself_gets_a_clear_error_and_is_withdrawn(
    bedrock: BedrockServer, serving: Serving, data_dir: Path
) -> None:
    def script(received: Received) -> Reply:
        return TOO_LONG if any("too much" in text for text in texts(received)) else chatting()(received)

    bedrock.script = script
    async with serving() as service:
        with pytest.raises(ModelFailed, match="too long for the model: ask something shorter"):
            await ask(service, "too much", (await ask(service, "hello")).session_id)
        (session,) = (s.session_id for s in (await service.sessions.list_sessions(CALLER)).sessions)
        again = await ask(service, "something shorter", session)
        transcript = await service.sessions.read(CALLER, session)
    assert again.response.startswith("I saw")
    assert [m.text for m in transcript.messages][::2] == ["hello", "something shorter"]
    assert conversation_state(data_dir, session)["removed_message_count"] in (0, 2)
    seen = texts(bedrock.requests[-1])
    assert "hello" in seen[0] or "SUMMARY of" in seen[0], "what was said before is still known"


@pytest.mark.parametrize(
    "fault",
    [
        fail("AccessDeniedException"),
        Fault(500, "InternalServerException"),
        say(" "),
    ],
    ids=["refused", "broken", "blank"],
)
async def test_a_summary_that_fails_does_not_fail_the_turn(
    bedrock: BedrockServer, serving: Serving, data_dir: Path, fault: Reply
) -> None:
    def script(received: Received) -> Reply:
        return fault if is_summary(received) else chatting(usage=lambda _: (200_000, 5))(received)

    bedrock.script = script
    async with serving() as service:
        session = (await ask(service, "My name is John")).session_id
        reply = await ask(service, "and more", session)
        assert reply.response == "I saw 3."  # whole: nothing was left out
        bedrock.script = chatting()
        await ask(service, "now it works", session)
    assert conversation_state(data_dir, session)["removed_message_count"] > 0
    assert "SUMMARY of" in texts(bedrock.requests[-1])[0]


async def test_in_a_long_loop_of_tools_the_present_turn_itself_is_summed_up(
    bedrock: BedrockServer, serving: Serving, data_dir: Path
) -> None:
    rounds = iter(range(12))

    def script(received: Received) -> Reply:
        if is_summary(received):
            return say("SUMMARY of sums", usage=(300, 30))
        n = next(rounds)
        usage = (200_000 if n in (4, 8) else 500, 5)
        use = ToolUse("calculator", {"expression": f"{n} + 1"})
        return Answer([use], usage=usage) if n < 10 else say("Done.", usage=usage)

    bedrock.script = script
    async with serving() as service:
        await service.agents.create(CALLER, AgentDraft(name="Sums", tools=("calculator",)))
        reply = await ask(service, "Add one to each number, please.", agent="sums")
        assert reply.response == "Done."
        assert len(reply.tool_calls) == 10
        assert sum(map(is_summary, bedrock.requests)) == 2
        after_summary = texts(bedrock.requests[-1])
        assert "Add one to each number, please." in after_summary[0], "the request is kept word for word"
        plain = Agent(
            model=OfflineModel(),
            agent_id="sums",
            session_manager=FileSessionManager(reply.session_id, storage_dir=str(data_dir)),
            callback_handler=None,
        )
        check_history([*plain.messages, {"role": "user", "content": [{"text": "valid for a plain program too"}]}])
        bedrock.script = chatting()
        await ask(service, "Thanks.", reply.session_id)
    async with serving() as service:
        again = await ask(service, "Still there?", reply.session_id)
        transcript = await service.sessions.read(CALLER, again.session_id)
    assert "SUMMARY of sums" in texts(bedrock.requests[-1])[0]
    assert transcript.total == 1 + 2 * 10 + 1 + 4


async def test_search_session_finds_what_the_model_no_longer_sees(data_dir: Path) -> None:
    async with running(data_dir, model="offline:small") as service:
        session = (await ask(service, "The parcel with the violet marmalade came on Tuesday")).session_id
        for n in range(30):
            await ask(service, f"Tell me something about the number {n}, at some length, please.", session)
        removed = conversation_state(data_dir, session)["removed_message_count"]
        reply = await ask(service, 'use the tool search_session with {"query": "marmalades"}', session)
        nothing = await ask(service, 'use the tool search_session with {"query": "zeppelin"}', session)
    assert removed > 2
    assert "[message 0, user]" in reply.response
    assert "violet marmalade came on Tuesday" in reply.response
    assert "Nothing in this session fits" in nothing.response


async def test_search_session_searches_no_other_session(data_dir: Path) -> None:
    async with running(data_dir) as service:
        await ask(service, "The secret is marmalade")
        reply = await ask(service, 'use the tool search_session with {"query": "secret"}')
    assert "The secret is marmalade" not in reply.response


async def test_a_turn_that_fails_after_its_summary_leaves_a_session_that_goes_on(
    bedrock: BedrockServer, serving: Serving
) -> None:
    bedrock.script = chatting(usage=lambda _: (200_000, 5))
    async with serving() as service:
        session = (await ask(service, "My name is John")).session_id
        await ask(service, "second", session)

        def script(received: Received) -> Reply:
            return chatting()(received) if is_summary(received) else fail("AccessDeniedException")

        bedrock.script = script
        for _ in range(2):
            with pytest.raises(ModelFailed):
                await ask(service, "third", session)
        bedrock.script = chatting()
        await ask(service, "fourth", session)
        transcript = await service.sessions.read(CALLER, SessionId(session))
    seen = texts(bedrock.requests[-1])
    assert "SUMMARY of" in seen[0]
    assert seen[-1] == "fourth"
    assert [m.text for m in transcript.messages][::2] == ["My name is John", "second", "fourth"]
