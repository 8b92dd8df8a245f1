"""Agents as tools of agents: sessions of their own, depth, circles, failures, cancelling."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bedrock_server import BedrockServer, Gate, Received, Reply, fail, say, use_tool
from conftest import call, connect, refused
from engine import Served, bedrock_env, reached, serving
from life import order, statuses


async def team(server: Served) -> None:
    await server.call("create_agent", name="Helper", description="Knows a lot.", tools=["calculator"])
    await server.call("create_agent", name="Boss", tools=["agent:helper"])


def tool_answer(transcript: dict[str, Any]) -> str:
    return [m["text"] for m in transcript["messages"] if m["role"] == "tool"][-1]


async def test_a_called_agent_remembers_within_the_calling_session_and_no_other_one(data_dir: Path) -> None:
    async with serving(data_dir) as server:
        await team(server)
        told = await server.ask(order("agent_helper", prompt="My name is John"), agent_id="boss", actor_id="ann")
        assert statuses(told["tool_calls"]) == ["success"]
        session = told["session_id"]
        asked = await server.ask(order("agent_helper", prompt="What's my name?"), session_id=session)
        assert "John" in asked["response"]
        other = await server.ask(order("agent_helper", prompt="What's my name?"), agent_id="boss")
        assert "John" not in other["response"]
        # The helper has one session for each session that calls it, of the same actor, named after it.
        helpers = (await server.call("list_sessions", agent_id="helper"))["sessions"]
        assert len(helpers) == 2
        own = next(s for s in helpers if s["turns"] == 2)
        assert own["actor_id"] == "ann"
        assert "boss" in own["title"]
        # The caller's transcript links to it.
        answer = tool_answer(await server.call("read_transcript", session_id=session))
        assert own["transcript"] in answer
        linked = await server.client.read_resource(own["transcript"])
        assert "My name is John" in str(linked.contents[0])
    async with serving(data_dir) as server:
        again = await server.ask(order("agent_helper", prompt="What's my name?"), session_id=session)
        assert "John" in again["response"]


async def test_a_deleted_session_of_a_called_agent_is_begun_anew(data_dir: Path) -> None:
    async with serving(data_dir) as server:
        await team(server)
        told = await server.ask(order("agent_helper", prompt="My name is John"), agent_id="boss")
        helper = (await server.call("list_sessions", agent_id="helper"))["sessions"][0]["session_id"]
        await server.call("delete_session", session_id=helper)
        asked = await server.ask(order("agent_helper", prompt="What's my name?"), session_id=told["session_id"])
        assert "John" not in asked["response"]
        assert statuses(asked["tool_calls"]) == ["success"]


async def test_a_circle_is_refused_when_it_would_be_made(data_dir: Path) -> None:
    async with connect(data_dir) as client:
        error = await refused(client, "create_agent", name="Ego", tools=["agent:ego"])
        assert error.endswith("[invalid_argument]")
        assert "circle" in error
        for name, tools in {"A": [], "B": ["agent:a"], "C": ["agent:b", "calculator"]}.items():
            await call(client, "create_agent", name=name, tools=tools)
        for tools in (["agent:a"], ["agent:b"], ["calculator", "agent:c"]):
            error = await refused(client, "update_agent", agent_id="a", tools=tools)
            assert error.endswith("[invalid_argument]")
            assert "a > " in error
        listed = await call(client, "list_agents", query="a")
        assert next(agent for agent in listed["agents"] if agent["agent_id"] == "a")["tools"] == []
        # What only looks like one is none: two ways to one agent.
        diamond = await call(client, "create_agent", name="D", tools=["agent:a", "agent:b", "agent:c"])
        assert diamond["created"]
        error = await refused(client, "create_agent", name="E", tools=["agent:nobody"])
        assert error.endswith("[tool_not_allowed]")
        assert {"agent:a", "agent:d"} <= set(allowed_by(error))
        assert "agent:e" not in allowed_by(error)
        error = await refused(client, "update_agent", agent_id="b", tools=["nothing"])
        assert {f"agent:{name}" for name in "abcd"} & set(allowed_by(error)) == {"agent:a"}  # c and d would ask b


def allowed_by(error: str) -> list[str]:
    """The tools that an error says there are."""
    return error.partition("Allowed: ")[2].partition(". ")[0].split(", ")


CIRCLE = "---\nname: {name}\ntools: agent:{other}\n---\nAsk on.\n"


async def test_a_circle_made_by_hand_does_not_go_on_for_ever(data_dir: Path) -> None:
    def script(received: Received) -> Reply:
        other = next(tool for tool in received.tools if tool.startswith("agent_"))
        return use_tool(other, {"prompt": "And you?"}) if received.last_text else say(f"So: {received.tool_results}")

    with BedrockServer(script) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            await server.call("list_agents")
            for name, other in (("one", "two"), ("two", "one")):
                (data_dir / "agents" / f"{name}.md").write_text(CIRCLE.format(name=name, other=other))
            reply = await server.ask("Begin", agent_id="one")
            assert reply["status"] == "completed"
            assert "wait for each other already" in reply["response"]
            sessions = (await server.call("list_sessions"))["sessions"]
            assert len(sessions) == 4  # the one that was asked, and three that it led to
        assert len(model.requests) == 8
        assert model.violations == []


async def test_a_called_agents_failure_is_its_callers_tool_error(data_dir: Path) -> None:
    def script(received: Received) -> Reply:
        if "agent_helper" not in received.tools:
            return fail("AccessDeniedException", "Helpers have no access.")
        return use_tool("agent_helper", {"prompt": "Help"}) if received.last_text else say("It could not help.")

    with BedrockServer(script) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            await team(server)
            reply = await server.ask("Go", agent_id="boss")
            assert (reply["status"], reply["response"]) == ("completed", "It could not help.")
            assert statuses(reply["tool_calls"]) == ["error"]
            assert "Helpers have no access" in model.requests[-1].tool_results[0]
        assert model.violations == []


async def test_a_called_agent_that_was_deleted_is_left_out(data_dir: Path) -> None:
    async with serving(data_dir) as server:
        await team(server)
        told = await server.ask(order("agent_helper", prompt="My name is John"), agent_id="boss")
        await server.call("delete_agent", agent_id="helper")
        after = await server.ask(order("agent_helper", prompt="What's my name?"), session_id=told["session_id"])
        assert "no tool agent_helper" in after["response"]
        assert "agent:helper" in (await server.call("list_agents", query="boss"))["warnings"][0]


async def test_cancelling_a_turn_cancels_the_turns_of_the_agents_it_called(data_dir: Path, era: str) -> None:
    gate = Gate()

    def script(received: Received) -> Reply:
        if "agent_helper" not in received.tools:
            return say("Thinking ", gate, "about it.") if received.last_text == "Help" else say("I am here.")
        return use_tool("agent_helper", {"prompt": "Help"}) if received.last_text == "Go" else say("Going on.")

    with BedrockServer(script) as model:
        async with serving(data_dir, env=bedrock_env(model), mode=era) as server:
            await team(server)
            asked = await server.ask("Go", agent_id="boss", wait_seconds=0)
            await reached(gate)
            helper = (await server.call("list_sessions", agent_id="helper"))["sessions"][0]
            assert helper["open_turn"]["status"] == "working"
            reply = await server.call("cancel_turn", turn_id=asked["turn_id"])
            assert reply["status"] == "cancelled"
            child = await server.call("get_reply", turn_id=helper["open_turn"]["turn_id"])
            assert child["status"] == "cancelled"
            assert child["response"].startswith("Thinking")
            gate.release()
            assert (await server.ask("Well?", session_id=asked["session_id"]))["response"] == "Going on."
            assert (await server.ask("Well?", session_id=helper["session_id"]))["response"] == "I am here."
        assert model.violations == []


async def test_in_a_called_agent_nobody_can_be_asked_or_approve(data_dir: Path) -> None:
    made = data_dir.parent / "made"
    async with serving(data_dir, env={"AGENT_MCP_ALLOW_TOOLS": "shell"}) as server:
        await server.call("create_agent", name="Helper", tools=["shell", "handoff_to_user"])
        await server.call("create_agent", name="Boss", tools=["agent:helper"])
        reply = await server.ask(order("agent_helper", prompt=order("shell", command=f"touch {made}")), agent_id="boss")
        assert reply["status"] == "completed"
        assert "nobody to ask" in reply["response"]
        asking = await server.ask(
            order("agent_helper", prompt=order("handoff_to_user", message="May I?")), session_id=reply["session_id"]
        )
        assert asking["status"] == "completed"
        assert "no tool handoff_to_user" in asking["response"]
        # Asked by itself it may ask.
        itself = await server.ask(order("handoff_to_user", message="May I?"), agent_id="helper")
        assert (itself["status"], itself["question"]) == ("input_required", "May I?")
    assert not made.exists()


async def test_two_calls_of_one_agent_in_one_message_take_turns(data_dir: Path) -> None:
    async with serving(data_dir) as server:
        await team(server)
        both = f"{order('agent_helper', prompt='My name is John')} and {order('agent_helper', prompt='I live in Rome')}"
        async with asyncio.timeout(120):
            reply = await server.ask(both, agent_id="boss")
        assert statuses(reply["tool_calls"]) == ["success", "success"]
        helpers = (await server.call("list_sessions", agent_id="helper"))["sessions"]
        assert [session["turns"] for session in helpers] == [2]


@pytest.mark.parametrize("length", [64, 50])
async def test_agents_with_long_ids_can_be_called_too(data_dir: Path, length: int) -> None:
    name = "a" * length
    async with serving(data_dir) as server:
        await server.call("create_agent", name="Long", agent_id=name)
        await server.call("create_agent", name="Boss", tools=[f"agent:{name}"])
        listed = await server.ask("Use the tool nothing with {}", agent_id="boss")
        tool = next(word for word in listed["response"].replace(",", " ").split() if word.startswith("agent_a"))
        assert len(tool) <= 64
        reply = await server.ask(order(tool, prompt="My name is John"), session_id=listed["session_id"])
        assert "John" in reply["response"]
