"""Requests that nobody waits for any more: a host's time limit without a cancel leaves the turn alone."""

from pathlib import Path
from typing import Any

import pytest

from bedrock_server import BedrockServer, Gate, say
from engine import bedrock_env, by_prompt
from test_start import HANDSHAKES, Server


@pytest.mark.parametrize("messages", HANDSHAKES.values(), ids=HANDSHAKES.keys())
def test_a_host_that_gives_up_without_a_cancel_finds_its_turn_again_by_the_session(
    data_dir: Path, messages: list[dict[str, Any]]
) -> None:
    """The host sees no answer, forgets the request and asks what became of its session."""
    gate = Gate()
    meta = {"_meta": messages[0]["params"]["_meta"]} if "_meta" in messages[0]["params"] else {}
    with BedrockServer(by_prompt({"Work": say("Half ", gate, "and whole.")})) as model:
        with Server(data_dir, bedrock_env(model)) as server:

            def request(number: int, tool: str, **arguments: Any) -> None:
                server.send(id=number, method="tools/call", params={"name": tool, "arguments": arguments, **meta})

            def result(number: int) -> dict[str, Any]:
                while (message := server.receive()).get("id") != number:
                    pass
                return message["result"]["structuredContent"]

            for message in messages:
                server.send(**message)
            while server.receive().get("id") != messages[-1]["id"]:
                pass
            if not meta:
                server.send(method="notifications/initialized")
            request(10, "ask_agent", prompt="Work")
            gate.wait_until_reached()
            request(11, "list_sessions")
            (session,) = result(11)["sessions"]
            assert session["open_turn"]["status"] == "working"
            request(12, "get_reply", session_id=session["session_id"])
            gate.release()
            reply = result(12)
            assert (reply["status"], reply["response"]) == ("completed", "Half and whole.")
            assert reply["turn_id"] == session["open_turn"]["turn_id"]
        assert len(model.requests) == 1
        assert model.violations == []
