"""Turns over REST: their events as they happen, questions, limits, and how each failure is answered."""

import json
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent_mcp.token_file import TokenFile
from bedrock_server import BedrockServer, Gate, Received, Reply, fail, say, use_tool
from engine import MODEL
from life import order
from test_rest import assert_problem
from test_who_calls import bearer
from web import DEADLINE, Web, serving

EVENTS = {"Accept": "text/event-stream"}


class Model:
    """What the model answers: by the prompt, and at the first attempt otherwise than at the next."""

    def __init__(self) -> None:
        self.attempts: dict[str, int] = {}
        self.gate = Gate()

    def __call__(self, received: Received) -> Reply:
        text = received.last_text
        attempt = self.attempts[text] = self.attempts.get(text, 0) + 1
        match text:
            case "Busy" if attempt == 1:
                return fail("ThrottlingException")
            case "Wrong":
                return fail("AccessDeniedException")
            case "Sum":
                return use_tool("calculator", {"expression": "6 * 7"})
            case "Sum it wrongly":
                return use_tool("calculator", {"expression": "6 *"})
            case "Slow":
                return say("Slowly ", self.gate, "now.")
            case _ if "Without end" in str(received.messages[0]):
                return use_tool("calculator", {"expression": "1 + 1"})
            case _:
                return say("It ", "is done.")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Generator[Web]:
    with ExitStack() as stack:
        bedrock = stack.enter_context(BedrockServer(model))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        environ = {**bedrock.env, "AWS_MAX_ATTEMPTS": "1"}
        for name, value in environ.items():
            patch.setenv(name, value)  # boto3 reads credentials and endpoints from the process's own
        data = tmp_path_factory.mktemp("turns") / "data"
        limits: dict[str, Any] = {"turn_timeout": 3, "max_calls": 3}
        web = stack.enter_context(serving(data, model=MODEL, environ=environ, **limits))
        web.post("/agents", {"name": "Counter", "tools": ["calculator"]})
        yield web
        assert bedrock.violations == []


def events(web: Web, prompt: str, agent: str = "counter") -> list[tuple[str, Any]]:
    """The events of a turn, as a client reads them: kinds with their data."""
    with web.rest.stream("POST", f"/api/v1/agents/{agent}/invoke", json={"prompt": prompt}, headers=EVENTS) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = answer.read().decode()
    found: list[tuple[str, Any]] = []
    for block in text.replace("\r\n", "\n").strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


@pytest.mark.parametrize(("prompt", "status"), [("Sum", "success"), ("Sum it wrongly", "error")])
def test_tools_and_text_are_told_as_they_happen_and_the_reply_last(web: Web, prompt: str, status: str) -> None:
    told = events(web, prompt)
    tools = [data for kind, data in told if kind == "tool"]
    assert tools == [{"name": "calculator", "status": "started"}, {"name": "calculator", "status": status}]
    kinds = [kind for kind, _ in told]
    assert kinds[:2] == ["tool", "tool"]
    assert kinds[-1] == "reply"
    assert set(kinds[2:-1]) == {"text"}
    assert "".join(data["text"] for kind, data in told if kind == "text") == "It is done."
    reply = told[-1][1]
    assert (reply["status"], reply["response"]) == ("completed", "It is done.")
    assert reply == web.get(f"/turns/{reply['turn_id']}").json()


def test_a_model_that_is_busy_is_told_and_tried_again(web: Web) -> None:
    told = events(web, "Busy")
    [waited] = [data["seconds"] for kind, data in told if kind == "retrying"]
    assert waited > 0
    assert (told[0][0], told[-1][0]) == ("retrying", "reply")


def test_a_turn_that_fails_ends_its_stream_with_the_error_that_its_answer_would_have_been(web: Web) -> None:
    kind, problem = events(web, "Wrong")[-1]
    assert (kind, problem["status"], problem["code"]) == ("error", 502, "model_error")
    answer = web.post("/agents/counter/invoke", {"prompt": "Wrong"})
    assert (answer.status_code, answer.headers["content-type"]) == (502, "application/problem+json")
    assert answer.json() == problem


def test_what_is_refused_is_refused_before_a_stream_begins(web: Web) -> None:
    refused = web.post("/agents/nobody/invoke", {"prompt": "Hello"}, headers=EVENTS)
    assert_problem(refused, 404, "agent_not_found")


def test_a_turn_over_its_time_is_a_timeout_and_one_over_its_calls_is_completed_and_says_so(
    web: Web, model: Model
) -> None:
    late = web.post("/agents/counter/invoke", {"prompt": "Slow", "session_id": "slow"})
    assert_problem(late, 504, "turn_timeout")
    model.gate.release()
    limited = web.post("/agents/counter/invoke", {"prompt": "Without end"})
    assert limited.status_code == 200, limited.text
    reply = limited.json()
    assert (reply["status"], reply["stop_reason"]) == ("completed", "limit_turns")
    assert "3 model calls" in reply["response"]
    again = web.post("/agents/counter/invoke", {"prompt": "Sum", "session_id": "slow"})
    assert again.json()["response"] == "It is done."
    turn = web.get("/sessions/slow").json()
    assert turn["open_turn"] is None


def test_a_question_is_answered_and_its_turn_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path / "data", allow_tools=("shell",)) as web:
        web.post("/agents", {"name": "Asker", "tools": ["handoff_to_user", "shell"]})
        asking = {"prompt": order("handoff_to_user", message="Which colour?"), "session_id": "mine"}
        asked = web.post("/agents/asker/invoke", asking)
        assert asked.status_code == 202
        reply = asked.json()
        assert (reply["status"], reply["question"]) == ("input_required", "Which colour?")
        turn = f"/turns/{reply['turn_id']}"
        assert web.get(turn).status_code == 202
        assert_problem(web.post(f"{turn}/answer", {}), 422, "invalid_argument", "'answer'")
        assert_problem(web.post(f"{turn}/answer", {"answer": " "}), 422, "invalid_argument")
        busy = web.post("/agents/asker/invoke", {"prompt": "Hello", "session_id": "mine"})
        assert_problem(busy, 409, "turn_pending", "Which colour?")
        answered = web.post(f"{turn}/answer", {"answer": "Blue"})
        assert answered.status_code == 200, answered.text
        assert (answered.json()["turn_id"], answered.json()["status"]) == (reply["turn_id"], "completed")
        assert "Blue" in answered.json()["response"]
        assert_problem(web.post(f"{turn}/answer", {"answer": "Green"}), 422, "turn_conflict")
        assert_problem(web.post(f"/turns/t-{'0' * 32}/answer", {"answer": "Blue"}), 404, "turn_not_found")

        made = tmp_path / "made"
        wanted = web.post("/agents/asker/invoke", {"prompt": order("shell", command=f"touch {made}")}).json()
        assert "agent-mcp turns approve" in wanted["question"]
        assert_problem(web.post(f"/turns/{wanted['turn_id']}/answer", {"answer": "yes"}), 403, "forbidden")
        assert not made.exists()


@pytest.mark.parametrize("allowed", [(), ("offline", "bedrock:*")], ids=["default", "named"])
def test_who_authenticates_may_name_only_the_models_that_the_operator_allows(
    tmp_path: Path, allowed: tuple[str, ...]
) -> None:
    file = TokenFile(tmp_path / "tokens.toml")
    headers = bearer(file.add(name="one", subject="one"))
    settings: dict[str, Any] = {"allow_models": allowed} if allowed else {}
    with serving(tmp_path / "data", tokens=file.path, **settings) as web:
        named = web.post("/agents", {"name": "Named", "model": MODEL}, headers=headers)
        if allowed:
            assert named.status_code == 201, named.text
        else:
            assert_problem(named, 422, "model_not_allowed", "offline")
        form = {"name": "Other", "model_config": {"model_id": "openai:gpt-5"}}
        assert_problem(web.post("/agents", form, headers=headers), 422, "model_not_allowed")
        assert web.post("/agents", {"name": "Own", "model": "offline"}, headers=headers).status_code == 201
        change = web.rest.patch("/api/v1/agents/own", json={"model": "openai:gpt-5"}, headers=headers)
        assert_problem(change, 422, "model_not_allowed")
        asked = web.post("/agents/own/invoke", {"prompt": "My name is John"}, headers=headers)
        assert "John" in asked.json()["response"]
        ids = [agent["agent_id"] for agent in web.rest.get("/api/v1/agents", headers=headers).json()["agents"]]
        assert "other" not in ids
        assert ("named" in ids) == bool(allowed)


def test_more_turns_at_once_than_a_subject_may_have_wait_for_nothing_and_are_told_when_to_come_back(
    tmp_path: Path,
) -> None:
    file = TokenFile(tmp_path / "tokens.toml")
    one, other = (bearer(file.add(name=name, subject=name)) for name in ("one", "other"))
    gate = Gate()
    with BedrockServer(lambda received: say("Half ", gate, "and whole.")) as bedrock, ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in bedrock.env.items():
            patch.setenv(name, value)
        limits: dict[str, Any] = {"tokens": file.path, "subject_turns": 1}
        with serving(tmp_path / "data", model=MODEL, environ=bedrock.env, **limits) as web:
            hello = {"prompt": "Hello", "wait_seconds": 0}
            first = web.post("/agents/assistant/invoke", hello, headers=one)
            assert first.status_code == 202
            late = web.post("/agents/assistant/invoke", hello, headers=one)
            assert_problem(late, 429, "rate_limited", "GET /api/v1/turns/")
            assert 1 <= int(late.headers["retry-after"]) <= 60
            assert web.post("/agents/assistant/invoke", hello, headers=other).status_code == 202
            gate.release()
            turn = f"/api/v1/turns/{first.json()['turn_id']}"
            assert web.rest.get(turn, params={"wait": DEADLINE}, headers=one).json()["status"] == "completed"
            assert web.post("/agents/assistant/invoke", {"prompt": "Hello"}, headers=one).status_code == 200
