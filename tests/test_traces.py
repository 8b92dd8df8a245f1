"""Traces: what an OpenTelemetry collector gets of a turn, what it never gets, and what it can't hold up."""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from bedrock_server import BedrockServer, Received, Reply, fail, say, use_tool
from collector import Collector, attributes
from conftest import server_environment
from engine import MODEL, bedrock_env, serving
from web import DEADLINE, process

CANARY = "Kanarienvogel"
LATEST = "gen_ai_latest_experimental,gen_ai_tool_definitions,gen_ai_span_attributes_only"
"""What has Strands write contents into attributes too."""
AGENT = {
    "name": f"{CANARY} helper",
    "system_prompt": f"You keep a {CANARY}.",
    "description": f"Knows {CANARY}",
    "memory": "explicit",
    "tools": ["calculator"],
    "agent_id": "keeper",
}


def script(received: Received) -> Reply:
    """Uses a tool that succeeds and one that fails, then answers; or fails, with the prompt in its reason."""
    if "Fail" in received.last_text:
        return fail("ValidationException", f"can't read {CANARY}")
    match len(received.tool_results):
        case 0 if len(received.messages) == 1:
            return use_tool("search_session", {"query": f"{CANARY} seeds"})
        case _ if len(received.messages) == 3:
            return use_tool("calculator", {"expression": f"{CANARY} +"})
        case _ if len(received.messages) == 5:
            return use_tool("recall", {"query": f"the {CANARY}"})
        case _:
            return say(f"The {CANARY} sings.", usage=(11, 5))


def sending(collector: Collector, model: BedrockServer, opt_in: str = "") -> dict[str, str]:
    """The environment of a server with traces. Only its end has it send them."""
    return bedrock_env(model) | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "600000",
        "OTEL_SEMCONV_STABILITY_OPT_IN": opt_in,
        "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
    }


def by_name(collector: Collector) -> dict[str, Any]:
    return {span.name: span for span in collector.spans()}


def assert_no_contents(collector: Collector, *more: str) -> None:
    everything = b"".join(collector.bodies)
    for word in (CANARY, *more):
        assert word.encode() not in everything, word
    for span in collector.spans():
        assert (len(span.events), len(span.links), span.status.message, span.trace_state) == (0, 0, "", "")
    assert set(collector.paths) == {"/v1/traces"}


@pytest.mark.parametrize("opt_in", ["", LATEST], ids=["as it is", "latest"])
async def test_a_turn_over_stdio_is_traced_without_what_was_said(data_dir: Path, opt_in: str) -> None:
    with Collector() as collector, BedrockServer(script) as model:
        async with serving(data_dir, env=sending(collector, model, opt_in)) as server:
            await server.call("create_agent", **AGENT)
            await server.call("remember", text=f"The {CANARY} eats seeds", actor_id="the-actor")
            reply = await server.ask(
                f"Feed the {CANARY}", agent_id="keeper", session_id="the-session", actor_id="the-actor"
            )
            failed = await server.refused("ask_agent", prompt=f"Fail {CANARY}", agent_id="keeper")
    assert CANARY in failed
    assert [call["status"] for call in reply["tool_calls"]] == ["success", "error", "success"]
    assert_no_contents(collector, "the-session", "the-actor", "keeper")
    spans = by_name(collector)
    assert {"tools/call ask_agent", "invoke_agent", "chat", "memory.search"} <= set(spans)
    assert {f"execute_tool {call['name']}" for call in reply["tool_calls"]} <= set(spans)
    turn = next(span for span in collector.spans() if attributes(span).get("agent_mcp.turn_id") == reply["turn_id"])
    agent = next(
        span
        for span in collector.spans()
        if span.name == "invoke_agent" and attributes(span)["agent_mcp.turn_id"] == reply["turn_id"]
    )
    assert agent.trace_id == turn.trace_id
    calls = {span.span_id: span for span in collector.spans() if span.name == "tools/call ask_agent"}
    assert agent.parent_span_id in calls
    seen = attributes(agent)
    assert seen["gen_ai.usage.output_tokens"] == reply["usage"]["output_tokens"]
    assert seen["gen_ai.request.model"] == MODEL.removeprefix("bedrock:")
    tool = attributes(spans["execute_tool calculator"])
    assert (tool["gen_ai.tool.name"], tool["gen_ai.tool.status"]) == ("calculator", "error")
    assert spans["execute_tool calculator"].status.code == 2
    assert collector.resource()["service.name"] == "agent-mcp"


def test_a_turn_over_http_is_traced_without_what_was_said_or_searched(data_dir: Path) -> None:
    with (
        Collector() as collector,
        BedrockServer(script) as model,
        process(data_dir, env=sending(collector, model, LATEST)) as (server, url),
        httpx.Client(base_url=f"{url}/api/v1", timeout=DEADLINE, trust_env=False) as client,
    ):
        assert client.post("/agents", json=AGENT).status_code == 201
        reply = client.post("/agents/keeper/invoke", json={"prompt": f"Feed the {CANARY}"}).json()
        assert reply["status"] == "completed"
        assert client.get("/sessions", params={"query": CANARY}).status_code == 200
        assert client.post("/agents/keeper/invoke", json={"prompt": f"Fail {CANARY}"}).status_code == 502
        server.send_signal(signal.SIGTERM)
        assert server.wait(DEADLINE) == 0
        assert server.stderr is not None
        log = server.stderr.read()
    assert_no_contents(collector, "keeper", reply["session_id"])
    # Nor does it stand in the log, whoever writes there.
    assert reply["turn_id"] in log
    assert CANARY not in log
    [turn] = [
        span
        for span in collector.spans()
        if span.name == "invoke_agent" and attributes(span)["agent_mcp.turn_id"] == reply["turn_id"]
    ]
    assert turn.parent_span_id == b""


async def test_names_that_a_caller_or_a_model_makes_up_are_left_out(data_dir: Path) -> None:
    made_up = f"{CANARY} is my name"

    def script(received: Received) -> Reply:
        return say("Fine.") if received.tool_results else use_tool("no_such_tool", {"name": CANARY})

    with Collector() as collector, BedrockServer(script) as model:
        async with serving(data_dir, env=sending(collector, model)) as server:
            assert (await server.client.call_tool(made_up, {})).is_error
            await server.ask("Hello")
    assert_no_contents(collector)
    assert "tools/call" in by_name(collector)


@pytest.mark.parametrize("state", ["down", "hanging"])
def test_a_collector_that_does_not_answer_holds_nothing_up(data_dir: Path, state: str) -> None:
    """The exporter's own end would wait for half a minute: the server does not."""
    with (
        Collector(hangs=True) as collector,
        BedrockServer(script) as model,
        socket.create_server(("127.0.0.1", 0)) as free,
    ):
        env = sending(collector, model) | {"OTEL_BSP_SCHEDULE_DELAY": "1", "OTEL_EXPORTER_OTLP_TIMEOUT": "600"}
        if state == "down":
            env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free.getsockname()[1]}"
            free.close()
        with (
            process(data_dir, env=env) as (server, url),
            httpx.Client(base_url=f"{url}/api/v1", timeout=DEADLINE, trust_env=False) as client,
        ):

            def ask() -> str:
                return str(client.post("/agents/assistant/invoke", json={"prompt": "Hello"}).json()["status"])

            assert ask() == "completed"
            if state == "hanging":
                collector.wait_until_asked()
            assert ask() == "completed"
            server.send_signal(signal.SIGTERM)
            assert server.wait(25) == 0


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("opentelemetry.exporter"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
"""


def logged(data_dir: Path, env: dict[str, str]) -> list[str]:
    """What a server says of traces that begins and ends at once."""
    done = subprocess.run(
        [sys.executable, "-m", "agent_mcp", "serve"],
        env=server_environment(data_dir, env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stdout) == (0, "")
    return [line for line in done.stderr.splitlines() if "traces" in line]


def test_what_keeps_traces_from_being_sent_is_one_line_that_says_what_to_do(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text(WITHOUT, "utf-8")
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    [line] = logged(data_dir, {**endpoint, "PYTHONPATH": str(tmp_path / "without")})
    assert line.endswith("pip install 'strands-agents[otel]'")
    [line] = logged(data_dir, {**endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert line.endswith("OTEL_EXPORTER_OTLP_PROTOCOL=grpc is not spoken here: set http/protobuf")
    assert logged(data_dir, {"PYTHONPATH": str(tmp_path / "without")}) == []
    for off in ({"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}):
        assert logged(data_dir, {**endpoint, **off, "PYTHONPATH": str(tmp_path / "without")}) == []
