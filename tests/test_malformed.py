"""What models and tools write by mistake costs no turn, no session and no list: it is kept in a shape that all take."""

import asyncio
import json
from pathlib import Path
from typing import Any, cast

from bedrock_server import BedrockServer, Gate, Received, Reply, say, use_tool
from engine import Progress, bedrock_env, by_prompt, serving, tools_env

EMOJI = "\N{SLIGHTLY SMILING FACE}"
FIRST_HALF, SECOND_HALF = "\ud83d", "\ude42"
RESULTS = {
    "half of a character": {"text": "cut \ufffd"},
    "a name that is no UTF-8": {"text": "cut \ufffd"},
    "nothing": {"text": "[no text]"},
    "content of text": {"text": "as it is"},
    "content of nothing": {"text": "None"},
    "text that is none": {"text": "5"},
    "bytes": {"text": "b'raw'"},
    "a time": {"json": {"at": "2026-01-02 00:00:00"}},
    "a set": {"json": {"all": [1]}},
    "no number": {"json": {"n": "nan"}},
    "a list": {"text": "[1, 2]"},  # Bedrock takes no list as JSON
    "a kind of its own": {"text": "{'table': [1]}"},
    "a status of its own": {"text": "well"},
}


def results(received: Received) -> list[Any]:
    """What the tools' results of a request hold."""
    blocks = [block for message in received.messages for block in message["content"] if "toolResult" in block]
    return [block["toolResult"]["content"] for block in blocks]


async def test_whatever_a_tool_returns_the_turn_is_answered_and_the_session_goes_on(data_dir: Path) -> None:
    def script(received: Received) -> Reply:
        kind = received.last_text
        return use_tool("malformed", {"kind": kind}) if kind in RESULTS else say("Done.")

    with BedrockServer(script) as model:
        async with serving(data_dir, env=bedrock_env(model, **tools_env())) as server:
            await server.call("create_agent", name="User", tools=["py:malformed"])
            for kind in RESULTS:
                reply = await server.ask(kind, session_id="mine", agent_id="user")
                assert (reply["status"], reply["response"]) == ("completed", "Done."), kind
                status = "error" if kind == "a status of its own" else "success"
                assert [call["status"] for call in reply["tool_calls"]] == [status], kind
            (listed,) = (await server.call("list_sessions"))["sessions"]
        async with serving(data_dir, env=bedrock_env(model)) as again:
            assert (await again.ask("Go on", session_id="mine"))["response"] == "Done."
            shown = (await again.call("read_transcript", session_id="mine", limit=100))["messages"]
        assert model.violations == []
        assert results(model.requests[-1]) == [[result] for result in RESULTS.values()]
    assert (listed["status"], listed["turns"]) == ("active", len(RESULTS))
    told = [message["text"] for message in shown if message["role"] == "tool"]
    assert told == [one.get("text") or json.dumps(one["json"]) for one in RESULTS.values()]


async def test_a_character_that_a_model_cuts_in_two_is_put_together_and_half_of_one_costs_no_reply(
    data_dir: Path,
) -> None:
    gate = Gate()
    replies = {"Cut": say("An emoji: ", FIRST_HALF, SECOND_HALF, gate, "!"), "Half": say("Half: ", FIRST_HALF)}
    with BedrockServer(by_prompt(replies)) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            seen = Progress()
            given = {"prompt": "Cut", "session_id": "mine", "agent_id": "assistant"}
            asked = asyncio.create_task(server.client.call_tool("ask_agent", given, progress_callback=seen))
            await seen.until(EMOJI)
            gate.release()
            cut = await asked
            half = await server.ask("Half", session_id="mine")
            assert (await server.ask("Go on", session_id="mine"))["response"] == "You said: Go on"
            shown = (await server.call("read_transcript", session_id="mine"))["messages"]
        assert model.violations == []
    assert cut.structured_content is not None
    assert (cut.structured_content["response"], half["response"]) == (f"An emoji: {EMOJI}!", "Half: \ufffd")
    assert [message["text"] for message in shown][1:4:2] == [f"An emoji: {EMOJI}!", "Half: \ufffd"]


async def test_arguments_that_no_file_and_no_model_takes_are_kept_as_ones_that_both_do(data_dir: Path) -> None:
    uses = {
        "Half": use_tool("malformed", {"kind": FIRST_HALF}),
        "No number": use_tool("malformed", {"kind": float("nan")}),
        "No object": use_tool("malformed", cast("Any", [1, 2])),
    }
    with BedrockServer(by_prompt(uses)) as model:
        async with serving(data_dir, env=bedrock_env(model, **tools_env())) as server:
            await server.call("create_agent", name="User", tools=["py:malformed"])
            for prompt in uses:
                reply = await server.ask(prompt, session_id="mine", agent_id="user")
                assert reply["status"] == "completed"
            assert (await server.ask("Go on", session_id="mine"))["response"] == "You said: Go on"
        assert model.violations == []
        sent = [block for message in model.requests[-1].messages for block in message["content"]]
    assert [block["toolUse"]["input"] for block in sent if "toolUse" in block] == [
        {"kind": "\ufffd"},
        {"kind": "nan"},
        {"input": [1, 2]},
    ]
