"""The start: the handshake waits for nothing that it doesn't need, and bad settings are one line."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from mcp_types import LATEST_PROTOCOL_VERSION

from conftest import server_environment

SPY = """
import os, sys, threading

class Spy:
    '''Holds the first import of Strands until a file says go, and says that it was begun.'''

    def find_spec(self, name, path=None, target=None):
        if name == "strands":
            with open(os.environ["SPY_BEGUN"], "a") as file:
                file.write(threading.current_thread().name + "\\n")
            with open(os.environ["SPY_GO"]) as file:
                file.read()
        return None

sys.meta_path.insert(0, Spy())
"""

HANDSHAKES: dict[str, list[dict[str, Any]]] = {
    "handshake": [
        {
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "test", "version": "1"},
            },
        },
    ],
    "2026-07-28": [
        {
            "id": 1,
            "method": "server/discover",
            "params": {
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": LATEST_PROTOCOL_VERSION,
                    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
                    "io.modelcontextprotocol/clientCapabilities": {},
                }
            },
        },
    ],
}


class Server:
    """A server on stdio, spoken to line by line."""

    def __init__(self, data: Path, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent_mcp"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=server_environment(data, env),
        )

    def send(self, **message: Any) -> None:
        self.send_line(json.dumps({"jsonrpc": "2.0", **message}))

    def send_line(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """The next answer, notices passed over; the test's own deadline ends a wait for one that does not come."""
        assert self.process.stdout is not None
        while "id" not in (message := json.loads(self.process.stdout.readline())):
            pass
        return message

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            assert self.process.wait(timeout=120) == 0
        finally:
            self.process.kill()
            self.process.stdout.close()


@pytest.mark.skipif(os.name == "nt", reason="named pipes of POSIX")
@pytest.mark.parametrize("messages", HANDSHAKES.values(), ids=HANDSHAKES.keys())
def test_the_handshake_and_the_list_of_tools_are_answered_without_strands(
    tmp_path: Path, data_dir: Path, messages: list[dict[str, Any]]
) -> None:
    """Whoever imports Strands is held at a pipe until the answers have come: so they did not wait for it."""
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy" / "sitecustomize.py").write_text(SPY)
    begun, go = tmp_path / "begun", tmp_path / "go"
    begun.touch()
    os.mkfifo(go)
    path = os.pathsep.join(filter(None, [str(tmp_path / "spy"), os.environ.get("PYTHONPATH")]))
    meta: dict[str, Any] = messages[0]["params"].get("_meta", {})
    params = {"_meta": meta} if meta else {}
    with Server(data_dir, {"PYTHONPATH": path, "SPY_BEGUN": str(begun), "SPY_GO": str(go)}) as server:
        for message in messages:
            server.send(**message)
        assert server.receive()["result"]["capabilities"]["tools"] is not None
        assert begun.read_text() == ""
        if not meta:
            server.send(method="notifications/initialized")
        for number, method in enumerate(("tools/list", "resources/templates/list", "resources/list"), start=2):
            server.send(id=number, method=method, params=params)
            assert "result" in server.receive()
        listed = {"name": "list_agents", "arguments": {}, **params}
        server.send(id=9, method="tools/call", params=listed)
        assert not server.receive()["result"]["isError"]
        release = threading.Thread(target=go.write_text, args=("go",))
        release.start()  # Waits until somebody reads, which is whoever imports Strands.
        release.join(timeout=180)
        assert not release.is_alive(), "Strands is imported by itself after the handshake"
        assert begun.read_text().split()[0] == "warm-up"


def run(*arguments: str, data: Path, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "agent_mcp", *arguments],
        env=server_environment(data, env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SESSION_TTL", "soon"),
        ("SESSION_TTL", "-1"),
        ("TURN_TIMEOUT", "0"),
        ("MAX_CALLS", "1.5"),
        ("WAIT_SECONDS", "a\nb"),
        ("FSYNC", "perhaps"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(data_dir: Path, name: str, value: str) -> None:
    done = run(data=data_dir, env={f"AGENT_MCP_{name}": value})
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert f"AGENT_MCP_{name}={value!r}" in line
    assert line.endswith("[invalid_argument]")
    assert not data_dir.exists()


def test_a_flag_is_a_setting_too_and_wins(data_dir: Path) -> None:
    done = run("serve", "--session-ttl", "never", data=data_dir, env={"AGENT_MCP_SESSION_TTL": "5"})
    assert done.returncode == 1
    assert "AGENT_MCP_SESSION_TTL='never'" in done.stderr


def test_an_empty_setting_is_an_absent_one(data_dir: Path) -> None:
    done = run(data=data_dir, env={"AGENT_MCP_SESSION_TTL": "", "AGENT_MCP_TOOLS": ""})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_request_with_half_of_a_surrogate_pair_is_answered_and_the_server_goes_on(data_dir: Path) -> None:
    """No Python client sends one, but a JavaScript one does that cut a text inside an emoji."""
    with Server(data_dir) as server:
        server.send(**HANDSHAKES["handshake"][0])
        server.receive()
        server.send(method="notifications/initialized")
        for number, arguments in enumerate(('{"prompt": "cut \\ud83d"}', '{"prompt": "x", "\\udfff": 1}'), start=2):
            line = (
                '{"jsonrpc": "2.0", "id": %d, "method": "tools/call", "params": {"name": "ask_agent", "arguments": %s}}'
            )
            server.send_line(line % (number, arguments))
            answer = server.receive()
            assert answer["id"] == number
            assert answer["error"]["code"] == -32602
            assert answer["error"]["message"].endswith("[invalid_argument]")
            assert "surrogate" in answer["error"]["message"]
        server.send_line("no json at all")
        server.send_line('{"jsonrpc": "2.0", "id": "\\ud800", "method": "tools/list"}')
        server.send_line('{"jsonrpc": "2.0", "method": "notifications/\\ud800"}')
        whole = {"prompt": "an emoji: \ud83d\ude42 and a NUL: \0"}
        server.send(id=5, method="tools/call", params={"name": "ask_agent", "arguments": whole})
        answer = server.receive()
        assert answer["id"] == 5
        assert answer["result"]["structuredContent"]["status"] == "completed"
