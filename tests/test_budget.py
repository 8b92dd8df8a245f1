"""Tokens: what a session and a turn may use, and how they are counted."""

import asyncio
import json
from pathlib import Path
from typing import Any

from bedrock_server import Answer, BedrockServer, Gate, Received, Reply, Text, ToolUse, say
from engine import bedrock_env, reached, serving


def script(received: Received) -> Reply:
    """Every answer costs 100 tokens. Asked to count it uses tools without end; asked to delegate it asks `helper`."""
    prompt = received.last_text
    if prompt.startswith("Count") or (not prompt and "calculator" in received.tools):
        return Answer([ToolUse("calculator", {"expression": "1 + 1"})], usage=(90, 10))
    if prompt.startswith("Delegate"):
        return Answer([ToolUse("agent_helper", {"prompt": prompt.removeprefix("Delegate ")})], usage=(90, 10))
    return say(f"You said: {prompt or received.tool_results}", usage=(90, 10))


async def test_a_session_over_its_budget_is_stopped_in_the_turn_and_refuses_the_next_ask(
    data_dir: Path, era: str
) -> None:
    with BedrockServer(script) as model:
        async with serving(data_dir, env=bedrock_env(model), mode=era) as server:
            await server.call("create_agent", name="Counter", tools=["calculator"])
            session = await server.start_session("tight", agent_id="counter", token_budget=250)
            reply = await server.ask("Count", session_id=session)
            assert (reply["status"], reply["stop_reason"]) == ("completed", "limit_total_tokens")
            assert "250 tokens" in reply["response"]
            assert reply["usage"] == reply["session_usage"]
            assert reply["usage"]["total_tokens"] == 300
            assert len(model.requests) == 3
            error = await server.refused("ask_agent", prompt="More", session_id=session)
            assert error.endswith("[budget_exhausted]")
            assert "update_session" in error
            assert len(model.requests) == 3
            # The history is closed: with a larger budget the session goes on.
            raised = await server.call("update_session", session_id=session, token_budget=1000)
            assert raised["token_budget"] == 1000
            again = await server.ask("Hello", session_id=session)
            assert again["response"] == "You said: Hello"
            assert again["session_usage"]["total_tokens"] == 400
            free = await server.call("update_session", session_id=session, token_budget=0)
            assert free["token_budget"] == 0
            assert (await server.ask("Hello", session_id=session))["status"] == "completed"
        assert model.violations == []


async def test_the_operators_ceilings_hold_whatever_the_budget(data_dir: Path) -> None:
    with BedrockServer(script) as model:
        env = bedrock_env(model, AGENT_MCP_SESSION_TOKENS="450", AGENT_MCP_TURN_TOKENS="150")
        async with serving(data_dir, env=env) as server:
            await server.call("create_agent", name="Counter", tools=["calculator"])
            for tool in ("start_session", "update_session"):
                await server.start_session(f"for-{tool}".replace("_", "-"))
                name = {"session_id": f"for-{tool}".replace("_", "-")} if tool == "update_session" else {}
                error = await server.refused(tool, token_budget=451, **name)
                assert error.endswith("[invalid_argument]")
                assert "450" in error
            session = await server.start_session("mine", agent_id="counter", token_budget=450)
            reply = await server.ask("Count", session_id=session)
            assert (reply["stop_reason"], reply["usage"]["total_tokens"]) == ("limit_total_tokens", 200)
            assert "150 tokens" in reply["response"]
            # Without a budget of its own, and with none asked for, a session has the operator's.
            await server.call("update_session", session_id=session, token_budget=0)
            await server.ask("Count", session_id=session)
            last = await server.ask("Count", session_id=session)
            assert last["session_usage"]["total_tokens"] == 500
            error = await server.refused("ask_agent", prompt="More", session_id=session)
            assert error.endswith("[budget_exhausted]")
            assert "450" in error
        assert model.violations == []


async def test_the_tokens_of_an_agent_called_as_a_tool_count(data_dir: Path) -> None:
    with BedrockServer(script) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            await server.call("create_agent", name="Helper", tools=["calculator"])
            await server.call("create_agent", name="Boss", tools=["agent:helper"])
            session = await server.start_session("boss", agent_id="boss", token_budget=1000)
            reply = await server.ask("Delegate Hello", session_id=session)
            assert reply["usage"]["total_tokens"] == 300  # two of its own, one of the helper's
            # What is left is all that the helper can use, and it comes back to the one that asked.
            limited = await server.ask("Delegate Count", session_id=session)
            assert (limited["status"], limited["stop_reason"]) == ("completed", "limit_total_tokens")
            assert limited["session_usage"]["total_tokens"] == 1000
            error = await server.refused("ask_agent", prompt="More", session_id=session)
            assert error.endswith("[budget_exhausted]")
        assert model.violations == []


async def test_asks_that_wait_in_a_session_share_what_is_left_of_its_budget(data_dir: Path) -> None:
    gate = Gate()
    replies: dict[str, Reply] = {"First": Answer([Text("One.")], before=[gate], usage=(90, 10))}

    def slow(received: Received) -> Reply:
        return replies.get(received.last_text) or script(received)

    with BedrockServer(slow) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            await server.call("create_agent", name="Counter", tools=["calculator"])
            session = await server.start_session("tight", agent_id="counter", token_budget=250)
            first = asyncio.create_task(server.ask("First", session_id=session))
            await reached(gate)
            second = await server.ask("Count", session_id=session, wait_seconds=0)
            third = await server.ask("Count more", session_id=session, wait_seconds=0)
            gate.release()
            assert (await first)["usage"]["total_tokens"] == 100
            limited = await server.call("get_reply", turn_id=second["turn_id"])
            assert (limited["stop_reason"], limited["usage"]["total_tokens"]) == ("limit_total_tokens", 200)
            assert "150 tokens" in limited["response"]
            error = await server.refused("get_reply", turn_id=third["turn_id"])
            assert error.endswith("[budget_exhausted]")
        assert len(model.requests) == 3
        assert model.violations == []


async def test_usage_adds_up_in_every_reply_and_in_the_session(data_dir: Path, era: str) -> None:
    with BedrockServer(lambda received: say("Yes.", usage=(len(received.messages), 3))) as model:
        async with serving(data_dir, env=bedrock_env(model), mode=era) as server:
            session = await server.start_session("counted")
            spent = 0
            reply: dict[str, Any] = {}
            for n in range(3):
                reply = await server.ask(f"Prompt {n}", session_id=session)
                assert reply["usage"] == {
                    "input_tokens": 2 * n + 1,
                    "output_tokens": 3,
                    "total_tokens": 2 * n + 4,
                }
                spent += reply["usage"]["total_tokens"]
                assert reply["session_usage"]["total_tokens"] == spent
                assert await server.call("get_reply", turn_id=reply["turn_id"]) == reply
            listed = (await server.call("list_sessions"))["sessions"][0]
            assert listed["usage"] == reply["session_usage"]
            assert listed["turns"] == 3
            assert listed["expires_at"] == reply["expires_at"]
        kept = json.loads((data_dir / "session_counted" / "metadata.json").read_text())
        assert kept["usage"]["total_tokens"] == spent


async def test_a_cancelled_turn_counts_what_it_used(data_dir: Path) -> None:
    gate = Gate()

    def halting(received: Received) -> Reply:
        return script(received) if received.last_text == "Count" else say("Half ", gate, "whole", usage=(90, 10))

    with BedrockServer(halting) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            await server.call("create_agent", name="Counter", tools=["calculator"])
            reply = await server.ask("Count", agent_id="counter", wait_seconds=0)
            await reached(gate)
            cancelled = await server.call("cancel_turn", turn_id=reply["turn_id"])
            assert cancelled["usage"]["total_tokens"] == 100
            assert cancelled["session_usage"]["total_tokens"] == 100
            gate.release()
