"""Questions of an agent to its user, and an agent that stops by itself."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from engine import Served, serving
from life import order, shell, statuses

ASKING = order("handoff_to_user", message="Which colour?")


async def asking(server: Served, **arguments: Any) -> dict[str, Any]:
    if not (await server.call("list_agents", query="asker"))["agents"]:
        await server.call("create_agent", name="Asker", tools=["handoff_to_user", "stop"])
    reply = await server.ask(ASKING, agent_id="asker", **arguments)
    assert (reply["status"], reply["question"]) == ("input_required", "Which colour?")
    return reply


async def test_an_agents_question_is_answered_by_the_caller_and_its_turn_goes_on(data_dir: Path, era: str) -> None:
    async with serving(data_dir, mode=era) as server:
        asked = await asking(server, session_id="mine")
        assert await server.open_turn("mine") == {"turn_id": asked["turn_id"], "status": "input_required"}
        assert await server.call("get_reply", session_id="mine") == asked
        text = (await server.client.call_tool("get_reply", {"session_id": "mine"})).content[0]
        assert "Which colour?" in str(text)
        done = await server.call("get_reply", turn_id=asked["turn_id"], answer="Blue, please")
        assert (done["turn_id"], done["status"], done["question"]) == (asked["turn_id"], "completed", None)
        assert "Blue, please" in done["response"]
        assert statuses(done["tool_calls"]) == ["success"]
        assert await server.open_turn("mine") is None
        error = await server.refused("get_reply", turn_id=asked["turn_id"], answer="Green")
        assert error.endswith("[turn_conflict]")
        assert await server.call("get_reply", turn_id=asked["turn_id"]) == done
        # A session is as good as its turn.
        await server.ask(ASKING, session_id="mine")
        done = await server.call("get_reply", session_id="mine", answer="Green")
        assert "Green" in done["response"]
        error = await server.refused("get_reply", session_id="mine", answer=" ")
        assert error.endswith("[invalid_argument]")


async def test_a_question_survives_a_restart_and_keeps_its_session_open(data_dir: Path, era: str) -> None:
    env = {"AGENT_MCP_SESSION_TTL": "1"}
    async with serving(data_dir, env=env, mode=era) as server:
        asked = await asking(server, session_id="mine")
        assert asked["expires_at"] is None
    edit(data_dir / "session_mine" / "metadata.json", last_active_at="2020-01-01T00:00:00Z")
    async with serving(data_dir, env=env, mode=era) as server:
        session = (await server.call("list_sessions"))["sessions"][0]
        assert (session["status"], session["expires_at"]) == ("active", None)
        error = await server.refused("ask_agent", prompt="Hello", session_id="mine")
        assert error.endswith("[turn_pending]")
        assert "Which colour?" in error
        assert "answer" in error
        assert "cancel_turn" in error
        done = await server.call("get_reply", turn_id=asked["turn_id"], answer="Blue")
        assert "Blue" in done["response"]
        assert done["expires_at"] is not None


async def test_a_question_that_is_given_up_is_cancelled_and_the_session_goes_on(data_dir: Path, era: str) -> None:
    async with serving(data_dir, mode=era) as server:
        asked = await asking(server, session_id="mine")
        cancelled = await server.call("cancel_turn", turn_id=asked["turn_id"])
        assert (cancelled["status"], cancelled["stop_reason"]) == ("cancelled", "cancelled")
        assert cancelled["question"] is None
        assert cancelled["expires_at"] is not None
        assert await server.call("cancel_turn", session_id="mine") == cancelled
        error = await server.refused("get_reply", turn_id=asked["turn_id"], answer="Blue")
        assert error.endswith("[turn_conflict]")
        told = await server.ask("My name is John", session_id="mine")
        assert "John" in told["response"]
        transcript = await server.call("read_transcript", session_id="mine")
        roles = [message["role"] for message in transcript["messages"]]
        assert roles == ["user", "assistant", "tool", "assistant", "user", "assistant"]
        assert "interrupted" in transcript["messages"][3]["text"]


async def test_what_nobody_decides_within_seven_days_counts_as_refused(data_dir: Path) -> None:
    made = data_dir.parent / "made"
    env = {"AGENT_MCP_ALLOW_TOOLS": "shell", "AGENT_MCP_SESSION_TTL": "0"}
    async with serving(data_dir, env=env) as server:
        await server.call("create_agent", name="Operator", tools=["shell"])
        turns: dict[str, str] = {}
        for session in ("asked", "followed", "approved", "answered"):
            if session == "answered":
                reply = await asking(server, session_id=session)
            else:
                reply = await server.ask(
                    order("shell", command=f"touch {made}"), agent_id="operator", session_id=session
                )
            assert reply["status"] == "input_required"
            turns[session] = reply["turn_id"]
            late = (datetime.now(UTC) - timedelta(days=7, minutes=1)).isoformat().replace("+00:00", "Z")
            edit(data_dir / "turns" / f"{reply['turn_id']}.json", pending_since=late)
        assert await server.open_turn("asked") is None
        told = await server.ask("My name is John", session_id="asked")
        assert "John" in told["response"]
        assert (await server.call("get_reply", turn_id=turns["asked"]))["status"] == "cancelled"
        assert (await server.call("get_reply", turn_id=turns["followed"]))["status"] == "cancelled"
        done = await shell(data_dir, "turns", "approve", turns["approved"], env=env)
        assert done.code == 1
        assert done.err.rstrip().endswith("[turn_conflict]")
        assert (await server.call("get_reply", turn_id=turns["approved"]))["status"] == "cancelled"
        error = await server.refused("get_reply", turn_id=turns["answered"], answer="Blue")
        assert error.endswith("[turn_conflict]")
        for session in turns:
            assert (await server.ask("Hello", session_id=session))["status"] == "completed"
    assert not made.exists()


async def test_two_questions_in_one_message_are_answered_one_by_one(data_dir: Path) -> None:
    async with serving(data_dir) as server:
        await asking(server, session_id="other")
        both = f"{ASKING} and {order('handoff_to_user', message='Which size?')}"
        first = await server.ask(both, agent_id="asker", session_id="mine")
        assert first["question"] == "Which colour?"
        second = await server.call("get_reply", turn_id=first["turn_id"], answer="Blue")
        assert (second["status"], second["question"]) == ("input_required", "Which size?")
        done = await server.call("get_reply", turn_id=first["turn_id"], answer="Large")
        assert done["status"] == "completed"
        assert "Blue" in done["response"]
        assert "Large" in done["response"]


async def test_a_person_cant_approve_a_question(data_dir: Path) -> None:
    async with serving(data_dir) as server:
        asked = await asking(server)
        done = await shell(data_dir, "turns", "approve", asked["turn_id"])
        assert done.code == 1
        assert "Which colour?" in done.err
        assert done.err.rstrip().endswith("[turn_conflict]")


async def test_an_agent_that_stops_ends_its_turn_with_its_last_words(data_dir: Path, era: str) -> None:
    async with serving(data_dir, mode=era) as server:
        await server.call("create_agent", name="Stopper", tools=["stop"])
        reply = await server.ask(order("stop", message="All is done."), agent_id="stopper")
        assert (reply["status"], reply["response"]) == ("completed", "All is done.")
        assert statuses(reply["tool_calls"]) == ["success"]
        again = await server.ask("My name is John", session_id=reply["session_id"])
        assert "John" in again["response"]


def edit(path: Path, **fields: Any) -> None:
    """Changes a file of the data directory by hand."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
