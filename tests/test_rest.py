"""REST by its calls, over one server: what each gives, and how each refuses."""

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from web import Web, serving


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Generator[Web]:
    with serving(tmp_path_factory.mktemp("rest") / "data") as web:
        yield web


def assert_problem(answer: Any, status: int, code: str, *words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert all(word in problem["detail"] for word in words), problem["detail"]
    assert problem["detail"].endswith(".")


def test_an_agent_made_from_an_example_remembers_within_its_session_and_not_without(web: Web) -> None:
    agent = web.post("/agents/examples/customer_support")
    assert agent.status_code == 201
    agent_id = agent.json()["agent_id"]
    told = web.ask("My name is John", agent_id, actor_id="user-123", session_id=None)
    asked = web.ask("What's my name?", agent_id, actor_id="user-123", session_id=told["session_id"])
    assert "John" in asked["response"]
    assert (asked["actor_id"], asked["new_session"]) == ("user-123", False)
    assert "John" not in web.ask("What's my name?", agent_id, actor_id="user-123")["response"]
    again = web.post("/agents/examples/customer_support")
    assert (again.status_code, again.json()["agent_id"], again.json()["created"]) == (200, agent_id, False)


def test_a_model_is_named_as_model_or_as_model_config(web: Web) -> None:
    model = "us.anthropic.claude-sonnet-4-20250514-v1:0"
    made = web.post(
        "/agents", {"name": "Told", "system_prompt": "You tell.", "model_config": {"model_id": model}, "tools": []}
    )
    assert (made.status_code, made.json()["model"]) == (201, model)
    same = web.post("/agents", {"name": "Told", "system_prompt": "You tell.", "model": model, "tools": None})
    assert (same.status_code, same.json()["agent_id"]) == (200, "told")
    both = web.post("/agents", {"name": "Two", "model": "offline", "model_config": {"model_id": model}})
    assert_problem(both, 422, "invalid_argument", "model_config")
    warm = {"model_id": model, "temperature": 0.2, "max_tokens": None}
    refused = web.post("/agents", {"name": "Warm", "model_config": warm})
    assert_problem(refused, 422, "invalid_argument", "max_tokens")
    made = web.post("/agents", {"name": "Warm", "model_config": {"model_id": model, "temperature": 0.2}})
    assert (made.json()["model"], made.json()["model_params"]) == (model, {"temperature": 0.2})
    cold = web.post("/agents", {"name": "Cold", "model_config": {"model_id": model, "colour": "red"}})
    assert_problem(cold, 422, "invalid_argument", "colour")


def test_an_agent_is_shown_listed_changed_and_deleted(web: Web) -> None:
    web.post("/agents", {"name": "Short lived", "system_prompt": "One."})
    assert web.get("/agents/short-lived").json()["system_prompt"] == "One."
    changed = web.rest.patch("/api/v1/agents/short-lived", json={"system_prompt": "Two.", "name": None})
    assert (changed.json()["system_prompt"], changed.json()["name"]) == ("Two.", "Short lived")
    listed = web.get("/agents", query="lived", limit=10).json()
    assert [agent["agent_id"] for agent in listed["agents"]] == ["short-lived"]
    assert "customer_support" in listed["examples"]
    assert web.rest.delete("/api/v1/agents/short-lived").json() == {"agent_id": "short-lived", "deleted": True}
    assert_problem(web.get("/agents/short-lived"), 404, "agent_not_found", "GET /api/v1/agents")


@pytest.mark.parametrize("in_body", [False, True], ids=["query", "body"])
def test_a_session_is_begun_by_a_query_without_a_body_or_by_a_body(web: Web, in_body: bool) -> None:
    given = {"agent_id": "assistant", "actor_id": "user-7"}
    begun = web.post("/sessions", given) if in_body else web.rest.post("/api/v1/sessions", params=given)
    assert begun.status_code == 201
    session = begun.json()
    assert (session["agent_id"], session["actor_id"], session["status"]) == ("assistant", "user-7", "active")
    web.ask("My name is Ann", session_id=session["session_id"])
    found = web.get("/sessions", actor_id="user-7", query="Ann").json()["sessions"]
    assert session["session_id"] in [one["session_id"] for one in found]


def test_a_session_is_read_changed_and_deleted(web: Web) -> None:
    session_id = web.ask("My name is Eve")["session_id"]
    messages = web.get(f"/sessions/{session_id}/messages", limit=1).json()
    assert (messages["total"], messages["before"], len(messages["messages"])) == (2, 1, 1)
    before = web.get(f"/sessions/{session_id}/messages", before=1).json()
    assert before["messages"][0]["text"] == "My name is Eve"
    changed = web.rest.patch(f"/api/v1/sessions/{session_id}", json={"title": "Eve", "ttl_seconds": 0})
    assert (changed.json()["title"], changed.json()["expires_at"]) == ("Eve", None)
    assert web.get(f"/sessions/{session_id}").json() == changed.json()
    assert web.rest.delete(f"/api/v1/sessions/{session_id}").json()["deleted"]
    assert_problem(web.get(f"/sessions/{session_id}"), 404, "session_not_found", session_id)


def test_the_same_idempotency_key_is_the_same_turn(web: Web) -> None:
    key = {"Idempotency-Key": "order-66"}
    first = web.post("/agents/assistant/invoke", {"prompt": "My name is Kim"}, headers=key).json()
    again = web.post("/agents/assistant/invoke", {"prompt": "My name is Kim"}, headers=key).json()
    assert again == first
    other = web.post("/agents/assistant/invoke", {"prompt": "Something else"}, headers=key)
    assert_problem(other, 422, "turn_conflict", "new key")
    assert web.get(f"/turns/{first['turn_id']}").json() == first
    assert web.post(f"/turns/{first['turn_id']}/cancel").json()["status"] == "completed"


def test_what_is_not_known_is_refused_by_name(web: Web) -> None:
    assert_problem(
        web.post("/agents/assistant/invoke", {"promt": "Hello"}), 422, "invalid_argument", "'promt'", "'prompt'?"
    )
    assert_problem(web.rest.post("/api/v1/sessions?agent=x"), 422, "invalid_argument", "'agent'", "'agent_id'?")
    assert_problem(web.get("/agents/assistant", verbose=1), 422, "invalid_argument", "'verbose'")
    assert_problem(web.get("/sessions/S-UPPER"), 422, "invalid_argument", "'s-upper'")
    assert_problem(web.get("/agents", limit=0), 422, "invalid_argument", "'limit'")
    for wrong in ({"wait_seconds": "5"}, {"wait_seconds": True}, {"session_id": 5}):
        answer = web.post("/agents/assistant/invoke", {"prompt": "Hello", **wrong})
        assert_problem(answer, 422, "invalid_argument", f"{next(iter(wrong))!r}")
    assert_problem(web.get("/turns/t-1"), 422, "invalid_argument", "'t-1'")


def test_what_is_not_there_is_said_in_the_same_form(web: Web) -> None:
    assert_problem(web.get("/nothing"), 404, "not_found", "/api/v1/nothing", "/openapi.json")
    put = web.rest.put("/api/v1/agents")
    assert_problem(put, 405, "method_not_allowed", "PUT")
    assert put.headers["allow"] == "GET, POST"
    assert_problem(web.get(f"/turns/t-{'0' * 32}"), 404, "turn_not_found", "GET /api/v1/sessions/{session_id}")


@pytest.mark.parametrize(
    ("body", "headers", "word"),
    [
        (b"{", {"Content-Type": "application/json"}, "JSON"),
        (b'"\xff"', {"Content-Type": "application/json"}, "UTF-8"),
        (b"[]", {"Content-Type": "application/json"}, "JSON object"),
        (b'{"prompt": "Hello"}', {"Content-Type": "application/x-www-form-urlencoded"}, "Content-Type"),
    ],
    ids=["half", "not-utf8", "list", "form"],
)
def test_a_body_that_can_not_be_read_is_refused(web: Web, body: bytes, headers: dict[str, str], word: str) -> None:
    answer = web.rest.post("/api/v1/agents/assistant/invoke", content=body, headers=headers)
    assert_problem(answer, 422, "invalid_argument", word)


def test_a_prompt_over_a_mebibyte_and_a_body_over_four_are_too_large(web: Web) -> None:
    before = web.get("/sessions").json()

    def chunks() -> Iterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(5):
            yield b"x" * 1024 * 1024
        yield b'"}'

    for size in (1024 * 1024 + 1, 5 * 1024 * 1024):
        answer = web.post("/agents/assistant/invoke", {"prompt": "x" * size})
        assert_problem(answer, 413, "too_large", "shorten it")
    unsaid = web.rest.post(
        "/api/v1/agents/assistant/invoke", content=chunks(), headers={"Content-Type": "application/json"}
    )
    assert_problem(unsaid, 413, "too_large", "shorten it")
    assert web.get("/sessions").json() == before


def test_a_page_that_a_browser_has_open_reaches_nothing(web: Web) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        for path in ("/api/v1/agents", "/mcp", "/healthz"):
            assert_problem(web.rest.get(path, headers=headers), 403, "forbidden", "Host or an Origin")
    assert web.rest.get("/healthz", headers={"Origin": "http://localhost:3000"}).json() == {"status": "ok"}
