"""What a turn can end with, and the statuses that it goes through, as a client sees them."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client

from bedrock_server import BedrockServer, Gate, Received, Reply, Script, fail, say, use_tool
from conftest import assert_teaches, call, connect, made, refused, text_of
from engine import Progress

NO_CREDENTIALS = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AGENT_MCP_MODEL": "auto"}


def on(bedrock: BedrockServer, **more: str) -> dict[str, str]:
    """The environment of a server whose model is this Bedrock."""
    return bedrock.env | {"AGENT_MCP_MODEL": "bedrock"} | more


def always(text: str) -> Script:
    """A model that says one thing."""
    return lambda _: say(text)


async def reached(gate: Gate) -> None:
    await asyncio.to_thread(gate.wait_until_reached)


async def test_a_turn_is_working_until_it_is_completed(data_dir: Path, era: str) -> None:
    gate = Gate()
    with BedrockServer(lambda _: say("Once upon a time, ", gate, "the end.")) as bedrock:
        async with connect(data_dir, env=on(bedrock), mode=era) as client:
            working = await call(client, "ask_agent", prompt="Tell me a story", wait_seconds=0)
            await reached(gate)
            listed = await call(client, "list_sessions")
            still = await call(client, "get_reply", turn_id=working["turn_id"], wait_seconds=0)
            gate.release()
            done = await call(client, "get_reply", session_id=working["session_id"], wait_seconds=60)
            again = await call(client, "get_reply", turn_id=working["turn_id"], wait_seconds=0)
            idle = await call(client, "list_sessions")
    assert [reply["status"] for reply in (working, still, done)] == ["working", "working", "completed"]
    assert listed["sessions"][0]["open_turn"] == {"turn_id": working["turn_id"], "status": "working"}
    assert listed["sessions"][0]["status"] == "active"
    assert "Once upon a time, ".startswith(still["response"])
    assert done["response"] == "Once upon a time, the end."
    assert done["stop_reason"] == "end_turn"
    assert again == done
    assert idle["sessions"][0]["open_turn"] is None


async def test_a_turn_that_is_cancelled_keeps_what_was_written(data_dir: Path, era: str) -> None:
    gate = Gate()
    with BedrockServer(lambda _: say("Once upon a time, ", gate, "the end.")) as bedrock:
        async with connect(data_dir, env=on(bedrock), mode=era) as client:
            working = await call(client, "ask_agent", prompt="Tell me a story", wait_seconds=0)
            await reached(gate)
            cancelled = await call(client, "cancel_turn", turn_id=working["turn_id"])
            again = await call(client, "cancel_turn", session_id=working["session_id"])
            bedrock.script = always("Very well.")
            asked = await call(client, "ask_agent", prompt="Go on", session_id=working["session_id"])
            ended = await call(client, "cancel_turn", turn_id=asked["turn_id"])
        assert not bedrock.violations
    assert cancelled["status"] == again["status"] == "cancelled"
    assert asked == ended


async def test_tools_are_told_with_how_they_ended(data_dir: Path) -> None:
    def script(received: Received) -> Reply:
        if len(received.messages) == 1:
            return use_tool("calculator", {"expression": "6 * 7"})
        if len(received.messages) == 3:
            return use_tool("calculator", {"expression": "6 *"})
        return say("It is 42.")

    with BedrockServer(script) as bedrock:
        async with connect(data_dir, env=on(bedrock)) as client:
            reply = await call(client, "ask_agent", prompt="What is 6 times 7?")
            whole = await call(client, "read_transcript", session_id=reply["session_id"])
            pages: list[dict[str, Any]] = []
            before = None
            while True:
                page = await call(client, "read_transcript", session_id=reply["session_id"], limit=2, before=before)
                pages = page["messages"] + pages
                before = page["before"]
                if before is None:
                    break
    calls = [
        {"name": "calculator", "arguments": {"expression": "6 * 7"}, "status": "success"},
        {"name": "calculator", "arguments": {"expression": "6 *"}, "status": "error"},
    ]
    assert reply["tool_calls"] == calls
    assert [message["role"] for message in whole["messages"]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]
    assert [used for message in whole["messages"] for used in message["tool_calls"]] == calls
    assert whole["messages"][2]["text"] == "42"
    assert [message["index"] for message in whole["messages"]] == list(range(6))
    assert pages == whole["messages"]
    assert (whole["total"], whole["before"]) == (6, None)
    assert reply["usage"] == reply["session_usage"]
    assert reply["usage"]["total_tokens"] > 0


async def test_a_failing_model_is_a_model_error_from_the_ask_and_from_get_reply(data_dir: Path) -> None:
    with BedrockServer(lambda _: fail("ValidationException", "Bad\nluck.")) as bedrock:
        async with connect(data_dir, env=on(bedrock)) as client:
            first = await refused(client, "ask_agent", prompt="Hi", session_id="own", agent_id="assistant")
            again = await refused(client, "get_reply", session_id="own")
            bedrock.script = always("Hello.")
            asked = await call(client, "ask_agent", prompt="Hi again", session_id="own")
    assert_teaches(first, "model_error")
    assert first == again
    assert asked["response"] == "Hello."


async def test_a_turn_over_its_time_is_a_turn_timeout_and_the_next_one_works(data_dir: Path) -> None:
    gate = Gate()
    with BedrockServer(lambda _: say("Well, ", gate, "no.")) as bedrock:
        async with connect(data_dir, env=on(bedrock, AGENT_MCP_TURN_TIMEOUT="0.5")) as client:
            text = await refused(client, "ask_agent", prompt="Hi", session_id="own", agent_id="assistant")
    assert_teaches(text, "turn_timeout")
    assert "0.5 s" in text
    with BedrockServer(lambda _: say("Yes.")) as bedrock:
        async with connect(data_dir, env=on(bedrock)) as client:
            asked = await call(client, "ask_agent", prompt="Again", session_id="own")
        assert not bedrock.violations
    assert asked["response"] == "Yes."


async def test_a_model_that_always_throttles_is_tried_again_in_sight_until_the_turns_time_is_over(
    data_dir: Path, era: str
) -> None:
    progress = Progress()
    with BedrockServer(lambda _: fail("ThrottlingException")) as bedrock:
        async with connect(data_dir, env=on(bedrock, AGENT_MCP_TURN_TIMEOUT="3"), mode=era) as client:
            result = await client.call_tool("ask_agent", {"prompt": "Hi"}, progress_callback=progress)
        tried = len(bedrock.requests)
    assert_teaches(text_of(result), "turn_timeout")
    waits = [message for message in progress.messages if message.startswith("The model is busy; tried again in ")]
    assert waits[0].endswith(" 1 s")
    assert tried - len(waits) in (0, 1), "boto tries again by itself too"


async def test_a_turn_whose_server_was_killed_is_turn_interrupted(data_dir: Path) -> None:
    gate = Gate()
    with BedrockServer(lambda _: say("Well, ", gate, "no.")) as bedrock:
        async with connect(data_dir, env=on(bedrock)) as client:
            working = await call(
                client, "ask_agent", prompt="Hi", session_id="own", agent_id="assistant", wait_seconds=0
            )
            await reached(gate)
            os.kill(server_of(data_dir), signal.SIGKILL)
        bedrock.script = always("Yes.")
        async with connect(data_dir, env=on(bedrock)) as client:
            text = await refused(client, "get_reply", turn_id=working["turn_id"])
            asked = await call(client, "ask_agent", prompt="Again", session_id="own")
        assert not bedrock.violations
    assert_teaches(text, "turn_interrupted")
    assert "ask again" in text
    assert asked["response"] == "Yes."


def server_of(data: Path) -> int:
    """The process that serves a data directory."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                environment = (process / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"AGENT_MCP_DATA_DIR={data}".encode() in environment:
                return int(process.name)
    raise LookupError(data)


async def test_an_ask_too_many_in_one_session_is_session_busy_and_another_session_is_not(data_dir: Path) -> None:
    gate = Gate()

    def script(received: Received) -> Reply:
        return say("Well, ", gate, "yes.") if received.last_text == "First" else say("Yes.")

    async def queue(client: Client) -> dict[str, Any]:
        return await call(client, "ask_agent", prompt="Next", session_id="own", wait_seconds=0)

    with BedrockServer(script) as bedrock:
        async with connect(data_dir, env=on(bedrock)) as client:
            await call(client, "ask_agent", prompt="First", session_id="own", agent_id="assistant", wait_seconds=0)
            await reached(gate)
            queued = [await queue(client) for _ in range(32)]
            text = await refused(client, "ask_agent", prompt="Too many", session_id="own", wait_seconds=0)
            other = await call(client, "ask_agent", prompt="Hi", session_id="other", agent_id="assistant")
            gate.release()
            last = await call(client, "get_reply", turn_id=queued[-1]["turn_id"], wait_seconds=60)
        assert not bedrock.violations
    assert_teaches(text, "session_busy")
    assert other["response"] == last["response"] == "Yes."


async def test_without_a_model_an_ask_says_what_to_set_and_makes_nothing(data_dir: Path) -> None:
    async with connect(data_dir, env=NO_CREDENTIALS) as client:
        session = await call(client, "start_session", session_id="waits")
        before = made(data_dir)
        text = await refused(client, "ask_agent", prompt="Hi")
        assert_teaches(text, "no_model")
        assert all(name in text for name in ("AWS_PROFILE", "AGENT_MCP_MODEL=offline"))
        assert_teaches(await refused(client, "ask_agent", prompt="Hi", session_id="waits"), "no_model")
        assert made(data_dir) == before
        assert session["model"] is None
        await call(client, "create_agent", name="Own", model="offline")
        assert (await call(client, "ask_agent", prompt="Hi", agent_id="own"))["model"] == "offline:basic"


async def test_a_model_setting_that_is_none_is_the_operators_error_not_the_callers(data_dir: Path) -> None:
    async with connect(data_dir, env={"AGENT_MCP_MODEL": "best"}) as client:
        text = await refused(client, "ask_agent", prompt="Hi")
    assert_teaches(text, "no_model")
    assert text.startswith("AGENT_MCP_MODEL can't be used: 'best' is no model")


@pytest.mark.parametrize("place", ["file/data", "/proc/agent-mcp", "file"])
async def test_a_data_directory_that_cant_be_written_is_one_line_and_the_server_goes_on(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("a file")
    async with connect(tmp_path / place) as client:
        for tool, given in (
            ("ask_agent", {"prompt": "Hi"}),
            ("create_agent", {"name": "Own"}),
            ("list_sessions", {}),
            ("list_agents", {}),
        ):
            text = await refused(client, tool, **given)
            assert_teaches(text, "storage_error")
            assert "AGENT_MCP_DATA_DIR" in text
        assert (await client.list_tools()).tools
    assert os.listdir(tmp_path) == ["file"]


def take_away(data: Path) -> None:
    """Puts a file in the place of a data directory."""
    data.rename(data.with_name("aside"))
    data.write_text("a file")


def give_back(data: Path) -> None:
    data.unlink()
    data.with_name("aside").rename(data)


async def test_a_data_directory_that_goes_bad_while_the_server_runs_is_one_line_too(data_dir: Path) -> None:
    async with connect(data_dir) as client:
        told = await call(client, "ask_agent", prompt="My name is John")
        take_away(data_dir)
        for tool, given in (
            ("ask_agent", {"prompt": "Hi"}),
            ("ask_agent", {"prompt": "Hi", "session_id": "own", "agent_id": "assistant"}),
            ("start_session", {}),
            ("create_agent", {"name": "Own"}),
        ):
            assert_teaches(await refused(client, tool, **given), "storage_error")
        give_back(data_dir)
        asked = await call(client, "ask_agent", prompt="What's my name?", session_id=told["session_id"])
    assert "John" in asked["response"]
