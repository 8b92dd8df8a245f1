"""The cancelling table over HTTP: who cancels a request, who only goes away, and what becomes of the turn."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from mcp_types import LATEST_PROTOCOL_VERSION

from bedrock_server import Answer, BedrockServer, Gate, Text, say
from engine import MODEL, NOTE, by_prompt
from web import DEADLINE, Web, serving

HELD = 16
"""Prompts whose answer is held, each at a gate of its own: one for each test."""


@pytest.fixture(scope="module")
def gates() -> list[Gate]:
    return [Gate() for _ in range(HELD)]


@pytest.fixture(scope="module")
def model(gates: list[Gate]) -> Generator[BedrockServer]:
    working = {f"Work {n}": say("Half ", gate, "and whole.") for n, gate in enumerate(gates)}
    thinking = {f"Think {n}": Answer([Text("Thought.")], before=[gate]) for n, gate in enumerate(gates)}
    with BedrockServer(by_prompt({**working, **thinking})) as model:
        yield model


@contextmanager
def working(tmp_path_factory: pytest.TempPathFactory, model: BedrockServer, **options: Any) -> Generator[Web]:
    data = tmp_path_factory.mktemp("cancel") / "data"
    environ = {**model.env, "AWS_MAX_ATTEMPTS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)  # boto3 reads credentials and endpoints from the process's own
        with serving(data, model=MODEL, environ=environ, **options) as web:
            yield web


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, model: BedrockServer) -> Generator[Web]:
    with working(tmp_path_factory, model) as web:
        yield web


@pytest.fixture(scope="module")
def stateless(tmp_path_factory: pytest.TempPathFactory, model: BedrockServer) -> Generator[Web]:
    with working(tmp_path_factory, model, stateless=True) as web:
        yield web


def begun(web: Web) -> str:
    return web.post("/sessions", {}).json()["session_id"]


def tool_call(number: int, tool: str, arguments: Mapping[str, Any], *, modern: bool) -> dict[str, Any]:
    meta = {
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": LATEST_PROTOCOL_VERSION,
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    }
    params: dict[str, Any] = {"name": tool, "arguments": dict(arguments), **(meta if modern else {})}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


ACCEPT = {"Accept": "application/json, text/event-stream"}
MODERN = {
    **ACCEPT,
    "MCP-Protocol-Version": LATEST_PROTOCOL_VERSION,
    "Mcp-Method": "tools/call",
}
OLDER = "2025-11-25"


def connected(web: Web) -> dict[str, str]:
    """The headers of a connection of an older revision."""
    hello = {"protocolVersion": OLDER, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    answer = web.rest.post(
        "/mcp", json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}, headers=ACCEPT
    )
    assert answer.status_code == 200, answer.text
    session = answer.headers.get("mcp-session-id")
    headers = {**ACCEPT, "MCP-Protocol-Version": OLDER, **({"Mcp-Session-Id": session} if session else {})}
    if session:
        told = web.rest.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=headers)
        assert told.status_code == 202
    return headers


def cancel(web: Web, headers: Mapping[str, str], number: int) -> None:
    told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}
    assert web.rest.post("/mcp", json=told, headers=headers).status_code == 202


def assert_goes_on(web: Web, session_id: str, gate: Gate) -> None:
    """The turn works although nobody waits for it, and comes to its end."""
    open_turn = web.get(f"/sessions/{session_id}").json()["open_turn"]
    assert open_turn["status"] == "working"
    gate.release()
    reply = web.get(f"/turns/{open_turn['turn_id']}", wait=DEADLINE).json()
    assert (reply["status"], reply["response"]) == ("completed", "Half and whole.")


def assert_cancelled(web: Web, session_id: str, gate: Gate, turn_id: str) -> None:
    reply = web.get(f"/turns/{turn_id}", wait=DEADLINE).json()
    assert reply["status"] == "cancelled"
    gate.release()
    assert web.get(f"/sessions/{session_id}").json()["open_turn"] is None
    assert web.ask("And now?", session_id=session_id)["response"] == "You said: And now?"


def open_turn(web: Web, session_id: str) -> str:
    return web.get(f"/sessions/{session_id}").json()["open_turn"]["turn_id"]


def test_a_closed_stream_on_2026_07_28_cancels_the_turn_that_its_request_started(web: Web, gates: list[Gate]) -> None:
    session_id = begun(web)
    call = tool_call(1, "ask_agent", {"prompt": "Work 0", "session_id": session_id}, modern=True)
    with web.dropped("/mcp", call, {**MODERN, "Mcp-Name": "ask_agent"}):
        gates[0].wait_until_reached()
        turn_id = open_turn(web, session_id)
    assert_cancelled(web, session_id, gates[0], turn_id)


def test_a_closed_stream_of_get_reply_or_of_a_repeated_request_leaves_the_turn_alone(
    web: Web, gates: list[Gate]
) -> None:
    session_id = begun(web)
    ask = {"prompt": "Work 1", "session_id": session_id}
    key = {"Idempotency-Key": "work-1"}
    with web.dropped("/api/v1/agents/assistant/invoke", ask, key):
        gates[1].wait_until_reached()
    turn_id = open_turn(web, session_id)
    waiting = tool_call(1, "get_reply", {"turn_id": turn_id}, modern=True)
    with web.dropped("/mcp", waiting, {**MODERN, "Mcp-Name": "get_reply"}):
        assert open_turn(web, session_id) == turn_id
    repeated = tool_call(2, "ask_agent", {**ask, "agent_id": "assistant"}, modern=True)
    repeated["params"]["_meta"]["agent-mcp/idempotency-key"] = "work-1"
    with web.dropped("/mcp", repeated, {**MODERN, "Mcp-Name": "ask_agent"}):
        assert open_turn(web, session_id) == turn_id
    assert_goes_on(web, session_id, gates[1])


def test_a_dropped_connection_of_an_older_revision_leaves_the_turn_alone(web: Web, gates: list[Gate]) -> None:
    session_id = begun(web)
    headers = connected(web)
    call = tool_call(1, "ask_agent", {"prompt": "Work 2", "session_id": session_id}, modern=False)
    with web.dropped("/mcp", call, headers):
        gates[2].wait_until_reached()
    assert_goes_on(web, session_id, gates[2])
    found = web.rest.post(
        "/mcp", json=tool_call(2, "get_reply", {"session_id": session_id}, modern=False), headers=headers
    )
    assert "Half and whole." in found.text


def test_a_cancel_notification_of_an_older_revision_cancels_the_turn_of_its_request_only(
    web: Web, gates: list[Gate]
) -> None:
    session_id, other = begun(web), begun(web)
    headers = connected(web)
    call = tool_call(1, "ask_agent", {"prompt": "Work 3", "session_id": session_id}, modern=False)
    another = tool_call(2, "ask_agent", {"prompt": "Work 4", "session_id": other}, modern=False)
    with web.dropped("/mcp", call, headers), web.dropped("/mcp", another, headers):
        for gate in gates[3:5]:
            gate.wait_until_reached()
        turn_id = open_turn(web, session_id)
        cancel(web, headers, 1)
        assert_cancelled(web, session_id, gates[3], turn_id)
    assert_goes_on(web, other, gates[4])


def test_a_cancel_that_comes_when_the_request_is_dropped_already_cancels_its_turn(web: Web, gates: list[Gate]) -> None:
    """A host that closes its stream first and then says why."""
    session_id = begun(web)
    headers = connected(web)
    call = tool_call(7, "ask_agent", {"prompt": "Work 5", "session_id": session_id}, modern=False)
    with web.dropped("/mcp", call, headers):
        gates[5].wait_until_reached()
    turn_id = open_turn(web, session_id)
    cancel(web, headers, 7)
    assert_cancelled(web, session_id, gates[5], turn_id)


def test_the_cancel_of_a_get_reply_of_an_older_revision_leaves_the_turn_alone(web: Web, gates: list[Gate]) -> None:
    session_id = begun(web)
    headers = connected(web)
    with web.dropped("/api/v1/agents/assistant/invoke", {"prompt": "Work 6", "session_id": session_id}):
        gates[6].wait_until_reached()
    with web.dropped("/mcp", tool_call(3, "get_reply", {"session_id": session_id}, modern=False), headers):
        cancel(web, headers, 3)
        assert web.get(f"/sessions/{session_id}").json()["open_turn"]["status"] == "working"
    assert_goes_on(web, session_id, gates[6])


def test_the_end_of_a_connection_of_an_older_revision_leaves_its_turns_alone(web: Web, gates: list[Gate]) -> None:
    session_id = begun(web)
    headers = connected(web)
    call = tool_call(1, "ask_agent", {"prompt": "Work 7", "session_id": session_id}, modern=False)
    with web.dropped("/mcp", call, headers):
        gates[7].wait_until_reached()
        assert web.rest.delete("/mcp", headers=headers).status_code == 200
    assert_goes_on(web, session_id, gates[7])


def test_a_dropped_connection_leaves_the_turn_alone_also_where_no_connections_are_kept(
    stateless: Web, gates: list[Gate]
) -> None:
    """The session header is one that a platform added: it is not refused."""
    session_id = begun(stateless)
    headers = {**connected(stateless), "Mcp-Session-Id": "of-the-platform"}
    call = tool_call(1, "ask_agent", {"prompt": "Work 8", "session_id": session_id}, modern=False)
    with stateless.dropped("/mcp", call, headers):
        gates[8].wait_until_reached()
    assert_goes_on(stateless, session_id, gates[8])


@pytest.mark.parametrize(
    ("number", "accept"), [(9, "application/json"), (10, "text/event-stream")], ids=["json", "events"]
)
def test_a_dropped_connection_of_rest_leaves_the_turn_alone(
    web: Web, gates: list[Gate], number: int, accept: str
) -> None:
    session_id = begun(web)
    ask = {"prompt": f"Work {number}", "session_id": session_id}
    with web.dropped("/api/v1/agents/assistant/invoke", ask, {"Accept": accept}):
        gates[number].wait_until_reached()
    assert_goes_on(web, session_id, gates[number])


def test_rest_hands_a_turn_back_that_works_on_and_cancels_it_when_told_to(web: Web, gates: list[Gate]) -> None:
    session_id = begun(web)
    answer = web.post("/agents/assistant/invoke", {"prompt": "Work 11", "session_id": session_id, "wait_seconds": 0})
    assert (answer.status_code, answer.json()["status"]) == (202, "working")
    gates[11].wait_until_reached()
    turn_id = answer.json()["turn_id"]
    assert web.get(f"/turns/{turn_id}").status_code == 202
    assert web.post(f"/turns/{turn_id}/cancel").json()["status"] == "cancelled"
    assert_cancelled(web, session_id, gates[11], turn_id)


def test_a_dropped_request_of_rest_that_only_follows_or_repeats_leaves_the_turn_alone(
    web: Web, gates: list[Gate]
) -> None:
    session_id = begun(web)
    ask, key = {"prompt": "Work 12", "session_id": session_id}, {"Idempotency-Key": "work-12"}
    with web.dropped("/api/v1/agents/assistant/invoke", ask, key):
        gates[12].wait_until_reached()
    turn_id = open_turn(web, session_id)
    with web.dropped(f"/api/v1/turns/{turn_id}?wait=60", method="GET"):
        assert open_turn(web, session_id) == turn_id
    with web.dropped("/api/v1/agents/assistant/invoke", ask, key):
        assert open_turn(web, session_id) == turn_id
    assert_goes_on(web, session_id, gates[12])


def test_the_cancel_of_a_repeated_request_of_an_older_revision_leaves_the_turn_alone(
    web: Web, gates: list[Gate]
) -> None:
    session_id = begun(web)
    headers = connected(web)
    ask = {"prompt": "Work 13", "session_id": session_id}
    with web.dropped("/api/v1/agents/assistant/invoke", ask, {"Idempotency-Key": "work-13"}):
        gates[13].wait_until_reached()
    repeated = tool_call(3, "ask_agent", {**ask, "agent_id": "assistant"}, modern=False)
    repeated["params"]["_meta"] = {"agent-mcp/idempotency-key": "work-13"}
    with web.dropped("/mcp", repeated, headers):
        cancel(web, headers, 3)
        assert web.get(f"/sessions/{session_id}").json()["open_turn"]["status"] == "working"
    assert_goes_on(web, session_id, gates[13])


def said_in(web: Web, session_id: str) -> list[str]:
    return [message["text"] for message in web.get(f"/sessions/{session_id}/messages").json()["messages"]]


def test_a_turn_that_is_cancelled_while_queued_or_before_any_text_leaves_nothing_in_its_session(
    web: Web, gates: list[Gate], model: BedrockServer
) -> None:
    session_id = begun(web)
    now = {"wait_seconds": 0, "session_id": session_id}
    thinking = web.post("/agents/assistant/invoke", {"prompt": "Think 14", **now}).json()["turn_id"]
    gates[14].wait_until_reached()
    queued = web.post("/agents/assistant/invoke", {"prompt": "Never asked", **now}).json()["turn_id"]
    for turn_id in (queued, thinking):
        assert web.post(f"/turns/{turn_id}/cancel").json()["status"] == "cancelled"
        assert web.get(f"/turns/{turn_id}").json()["status"] == "cancelled"
    gates[14].release()
    assert web.ask("And now?", session_id=session_id)["response"] == "You said: And now?"
    assert said_in(web, session_id) == ["And now?", "You said: And now?"]
    assert "Never asked" not in str([received.messages for received in model.requests])


def test_a_turn_that_is_cancelled_in_its_text_is_kept_and_closed_with_a_note(web: Web, gates: list[Gate]) -> None:
    session_id = begun(web)
    asked = {"prompt": "Work 15", "session_id": session_id, "wait_seconds": 0}
    turn_id = web.post("/agents/assistant/invoke", asked).json()["turn_id"]
    gates[15].wait_until_reached()
    assert web.post(f"/turns/{turn_id}/cancel").json()["status"] == "cancelled"
    gates[15].release()
    prompt, kept = said_in(web, session_id)
    assert prompt == "Work 15"
    assert kept.startswith("Half")
    assert NOTE in kept
