"""Memory through the other doors: REST, and what `doctor` says of it."""

from collections.abc import Generator
from pathlib import Path

import pytest

from life import shell
from web import Web, serving


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Generator[Web]:
    with serving(tmp_path_factory.mktemp("rest") / "data") as running:
        yield running


def test_facts_are_remembered_recalled_and_forgotten(web: Web) -> None:
    kept = web.post("/memories", {"text": "Prefers Celsius", "actor_id": "anna"})
    assert kept.status_code == 201
    memory_id = kept.json()["memory_id"]
    assert kept.json() == {"memory_id": memory_id, "confirmed": True}
    found = web.get("/memories", query="celsius", actor_id="anna", limit=3).json()["memories"]
    assert [(fact["memory_id"], fact["text"]) for fact in found] == [(memory_id, "Prefers Celsius")]
    assert web.get("/memories", query="celsius").json()["memories"] == []
    other = web.rest.delete(f"/api/v1/memories/{memory_id}")
    assert (other.status_code, other.json()["code"]) == (404, "memory_not_found")
    gone = web.rest.delete(f"/api/v1/memories/{memory_id}", params={"actor_id": "anna"})
    assert gone.json() == {"memory_id": memory_id, "deleted": True}
    assert web.post("/memories", {}).json()["code"] == "invalid_argument"
    assert web.get("/memories").json()["code"] == "invalid_argument"


def test_an_agent_made_over_rest_remembers_across_sessions(web: Web) -> None:
    made = web.post("/agents", {"name": "Keen", "memory": "explicit"})
    assert made.json()["memory"] == "explicit"
    web.post("/memories", {"text": "I live in Lisbon"})
    assert "You live in Lisbon." in web.ask("Where do I live?", "keen")["response"]


async def test_doctor_says_which_memory_is_used_and_what_is_risky(data_dir: Path) -> None:
    await shell(data_dir, "agents", "create", "Mixed", "--memory", "explicit", "--tool", "web_fetch")
    plain = await shell(data_dir, "doctor")
    assert "memory: memory.db in the data directory" in plain.out
    assert "careful: the agent mixed has" in plain.out
    there = await shell(data_dir, "doctor", env={"AGENT_MCP_AGENTCORE_MEMORY_ID": "agents-0123456789"})
    assert "memory: Bedrock AgentCore agents-0123456789" in there.out
    wrong = await shell(data_dir, "doctor", env={"AGENT_MCP_AGENTCORE_MEMORY_ID": "no such"})
    assert wrong.code == 1
    assert "AGENT_MCP_AGENTCORE_MEMORY_ID='no such' can't be used" in wrong.err
