"""/metrics: what it counts of real turns, what it never says, and who may read it."""

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import HTTPConnection

from agent_mcp.errors import Unauthorized
from agent_mcp.http.metrics import Readers
from agent_mcp.tally import MOST_MODELS, Tally
from agent_mcp.token_file import TokenFile
from bedrock_server import BedrockServer, Gate, fail, say, use_tool
from engine import MODEL, bedrock_env, by_prompt
from web import DEADLINE, Web, process, serving

STATUSES = ("cancelled", "completed", "failed", "input_required")


class Metrics(dict[str, float]):
    """What /metrics says, by the name and the labels of each sample as they are written."""

    def __init__(self, text: str) -> None:
        self.text = text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                self[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value

    def turns(self) -> dict[str, float]:
        """How many turns came to a stop, by how, those that are none left out."""
        found = {status: self[f"agent_mcp_turns_total{{status={status}}}"] for status in STATUSES}
        return {status: count for status, count in found.items() if count}


def read(client: httpx.Client, headers: Mapping[str, str] | None = None) -> Metrics:
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Metrics(answer.text)


def test_turns_are_counted_by_how_they_ended_with_their_tokens_and_their_time(data_dir: Path) -> None:
    gate = Gate()
    replies = {
        "Say it": say("Yes.", usage=(7, 3)),
        "Fail": fail("ValidationException"),
        "Hold": say("Half ", gate, "and whole."),
    }
    with (
        BedrockServer(by_prompt(replies)) as model,
        process(data_dir, env=bedrock_env(model)) as (_, url),
        httpx.Client(base_url=url, timeout=DEADLINE, trust_env=False) as client,
    ):

        def ask(prompt: str, agent: str = "assistant", **more: object) -> httpx.Response:
            return client.post(f"/api/v1/agents/{agent}/invoke", json={"prompt": prompt, **more})

        before = read(client)
        assert before.turns() == {}
        assert ask("Say it").status_code == 200
        assert ask("Fail").status_code == 502
        assert ask("Say it", agent="nobody").status_code == 404
        held = ask("Hold", session_id="held-session", actor_id="user-xanthippe", wait_seconds=0).json()
        gate.wait_until_reached()
        waits = ask("Say it", session_id="held-session", wait_seconds=0).json()
        during = read(client)
        for turn in (waits, held):
            assert client.post(f"/api/v1/turns/{turn['turn_id']}/cancel").json()["status"] == "cancelled"
        gate.release()
        after = read(client)

    def load(metrics: Metrics) -> list[float]:
        return [metrics[f"agent_mcp_{name}"] for name in ("turns_waiting", "turns_running", "agents", "stores_open")]

    assert [load(metrics) for metrics in (before, during, after)] == [[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]]
    assert during.turns() == {"completed": 1, "failed": 1}
    assert after.turns() == {"completed": 1, "failed": 1, "cancelled": 2}
    assert after["agent_mcp_turn_failures_total{code=model_error}"] == 1
    assert after["agent_mcp_asks_refused_total{code=agent_not_found}"] == 1
    assert {name: value for name, value in after.items() if name.startswith("agent_mcp_tokens")} == {
        f"agent_mcp_tokens_total{{kind=input,model={MODEL}}}": 7,
        f"agent_mcp_tokens_total{{kind=output,model={MODEL}}}": 3,
    }
    assert after["agent_mcp_turn_seconds_bucket{le=+Inf,status=completed}"] == 1
    assert after["agent_mcp_turn_seconds_count{status=cancelled}"] == 2
    assert after["agent_mcp_turn_seconds_sum{status=completed}"] > 0
    assert after["process_resident_memory_bytes"] > 0
    for secret in ("held-session", "xanthippe", "Say it", "nobody", "assistant", held["turn_id"], str(data_dir)):
        assert secret not in after.text


def test_tokens_of_a_turn_that_goes_on_count_once(data_dir: Path) -> None:
    """A question stops the turn and its answer goes on with it: each call of the model counts, and none twice."""
    asking = use_tool("handoff_to_user", {"message": "Which?", "breakout_of_loop": False})
    with (
        BedrockServer(lambda received: say("Fine.") if received.tool_results else asking) as model,
        process(data_dir, env=bedrock_env(model)) as (_, url),
        httpx.Client(base_url=url, timeout=DEADLINE, trust_env=False) as client,
    ):

        def post(path: str, **body: object) -> dict[str, Any]:
            return client.post(f"/api/v1{path}", json=body).json()

        post("/agents", name="Asking", tools=["handoff_to_user"])
        waits = post("/agents/asking/invoke", prompt="Choose")
        assert waits["status"] == "input_required", waits
        assert read(client).turns() == {"input_required": 1}
        done = post(f"/turns/{waits['turn_id']}/answer", answer="This one")
        assert done["status"] == "completed", done
        metrics = read(client)
    assert metrics.turns() == {"input_required": 1, "completed": 1}
    for kind in ("input", "output"):
        assert metrics[f"agent_mcp_tokens_total{{kind={kind},model={MODEL}}}"] == done["usage"][f"{kind}_tokens"]


def test_however_many_models_callers_name_there_are_only_so_many_labels() -> None:
    tally = Tally()
    for number in range(MOST_MODELS + 5):
        tally.spent(f"ollama:model-{number}", read=1, written=2)
    tally.spent("ollama:model-0", read=1, written=2)
    assert len(tally.tokens()) == 2 * (MOST_MODELS + 1)
    assert tally.tokens()["other", "input"] == 5
    assert tally.tokens()["ollama:model-0", "output"] == 4


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


ELSEWHERE = [{"X-Forwarded-For": "203.0.113.9"}, {"Forwarded": "for=203.0.113.9"}, {"Via": "1.1 proxy"}]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> TokenFile:
    return TokenFile(tmp_path_factory.mktemp("tokens") / "tokens.toml")


@pytest.fixture(scope="module")
def with_tokens(file: TokenFile, tmp_path_factory: pytest.TempPathFactory) -> Generator[Web]:
    with serving(tmp_path_factory.mktemp("metrics") / "data", tokens=file.path, allowed_hosts=("in.example",)) as web:
        yield web


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert "agent_mcp_" not in answer.text


def test_with_tokens_this_machine_reads_and_others_need_the_scope(with_tokens: Web, file: TokenFile) -> None:
    reader = bearer(file.add(name="reader", subject="reader", scopes=["metrics"]))
    other = bearer(file.add(name="other", subject="other"))
    client = with_tokens.rest
    assert read(client).turns() == {}
    for elsewhere in (*ELSEWHERE, {"Host": "in.example"}):
        read(client, {**elsewhere, **reader})
        refused = client.get("/metrics", headers=elsewhere)
        assert_refused(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert_refused(client.get("/metrics", headers={**elsewhere, **other}), 403, "forbidden")
    # Who says who it is, is judged by that, wherever it is.
    assert_refused(client.get("/metrics", headers=other), 403, "forbidden")
    assert_refused(client.get("/metrics", headers=bearer("amt_wrong")), 401, "unauthorized")


def test_pages_and_other_hosts_read_no_metrics(with_tokens: Web) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        assert_refused(with_tokens.rest.get("/metrics", headers=headers), 403, "forbidden")


def test_behind_a_proxy_that_adds_no_header_only_a_token_tells(file: TokenFile, tmp_path: Path) -> None:
    reader = bearer(file.add(name="behind", subject="behind", scopes=["metrics"]))
    with serving(tmp_path / "data", tokens=file.path, public_url="https://agents.example") as web:
        assert_refused(web.rest.get("/metrics"), 401, "unauthorized")
        read(web.rest, reader)


def test_where_nobody_authenticates_only_this_machine_reads(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as web:
        read(web.rest)
        for elsewhere in ELSEWHERE:
            assert_refused(web.rest.get("/metrics", headers=elsewhere), 401, "unauthorized")


@pytest.mark.parametrize("peer", ["192.0.2.7", "2001:db8::7", None])
async def test_a_peer_on_another_machine_is_not_this_one_whatever_it_names(peer: str | None) -> None:
    scope = {"type": "http", "headers": [(b"host", b"localhost:8080")], "client": (peer, 40000) if peer else None}
    readers = Readers(identify=None, behind_proxy=False)
    with pytest.raises(Unauthorized):
        await readers.check(HTTPConnection(scope))
    await readers.check(HTTPConnection({**scope, "client": ("127.0.0.1", 40000)}))


def test_a_query_is_refused_by_name(with_tokens: Web) -> None:
    refused = with_tokens.rest.get("/metrics?name=up")
    assert_refused(refused, 422, "invalid_argument")
