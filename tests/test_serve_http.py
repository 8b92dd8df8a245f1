"""`agent-mcp serve --http` as a process: its start, what it refuses to be, and its end on a signal."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from agent_mcp.http.access import listen
from bedrock_server import BedrockServer, Gate, say
from conftest import server_environment
from engine import bedrock_env, by_prompt
from web import process

DEADLINE = 60.0


def refused(data: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "agent_mcp", "serve", *options],
        env=server_environment(data),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.endswith("[invalid_argument]")
    assert not data.exists()
    return line


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "example.com:80"])
def test_an_address_that_others_reach_is_refused(data_dir: Path, address: str) -> None:
    assert "other machines" in refused(data_dir, "--http", address)


def test_what_is_no_address_is_refused(data_dir: Path) -> None:
    assert "HOST:PORT" in refused(data_dir, "--http", "127.0.0.1:http")


def test_a_port_in_use_is_one_line_that_names_it(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(data_dir, "--http", f"127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in line
    assert "--http HOST:PORT" in line


def test_no_part_of_an_answer_waits_for_the_client_to_acknowledge_the_part_before() -> None:
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()[:2]):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_server_that_is_told_to_stop_lets_turns_end_and_answers_those_who_wait(data_dir: Path) -> None:
    """One turn ends within the moment that it has, one doesn't and is cancelled: both streams end with their reply."""
    ending, hanging = Gate(), Gate()
    script = by_prompt({"End": say("Half ", ending, "and whole."), "Hang": say("Half ", hanging, "and whole.")})
    with BedrockServer(script) as model, process(data_dir, env=bedrock_env(model)) as (server, url):
        streams: list[Iterator[str]] = []
        with httpx.Client(base_url=url, timeout=DEADLINE, trust_env=False) as client:
            answers = [
                client.stream(
                    "POST",
                    "/api/v1/agents/assistant/invoke",
                    json={"prompt": prompt},
                    headers={"Accept": "text/event-stream"},
                )
                for prompt in ("End", "Hang")
            ]
            with answers[0] as first, answers[1] as second:
                for answer, gate in ((first, ending), (second, hanging)):
                    lines = answer.iter_lines()
                    assert next(lines) == "event: text"
                    gate.wait_until_reached()
                    streams.append(lines)
                server.send_signal(signal.SIGTERM)
                ending.release()
                texts = ["\n".join(stream) for stream in streams]
        assert server.wait(DEADLINE) == 0
        hanging.release()
    assert '"status":"completed"' in texts[0].rpartition("event: reply")[2]
    assert '"status":"cancelled"' in texts[1].rpartition("event: reply")[2]
    assert model.violations == []


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_server_that_is_told_to_stop_ends_although_a_client_listens(data_dir: Path) -> None:
    """The standing stream of an older revision has no end of its own."""
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    accept = {"Accept": "application/json, text/event-stream"}
    opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}
    with (
        process(data_dir) as (server, url),
        httpx.Client(base_url=url, timeout=DEADLINE, trust_env=False) as client,
    ):
        begun = client.post("/mcp", json=opening, headers=accept)
        headers = {**accept, "Mcp-Session-Id": begun.headers["mcp-session-id"]}
        with client.stream("GET", "/mcp", headers=headers) as listening:
            assert listening.status_code == 200
            server.send_signal(signal.SIGTERM)
            assert server.wait(DEADLINE) == 0
