"""The continuity test as a user runs it in a shell, with curl and jq, against a fresh server."""

import re
import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from test_serve_http import process

pytestmark = pytest.mark.shell

PORT = 8080
"""Where the users' calls go, which are run as they are written."""

CONTINUITY = r"""
set -euo pipefail
AGENT=$(curl -s -X POST http://localhost:8080/api/v1/agents/examples/customer_support | jq -r .agent_id)
SESSION=$(curl -s -X POST http://localhost:8080/api/v1/agents/$AGENT/invoke -H 'Content-Type: application/json' \
  -d '{"prompt": "My name is John", "actor_id": "user-123"}' | jq -r .session_id)
curl -s -X POST http://localhost:8080/api/v1/agents/$AGENT/invoke -H 'Content-Type: application/json' \
  -d '{"prompt": "What'"'"'s my name?", "actor_id": "user-123", "session_id": "'$SESSION'"}' | jq -r .response
curl -s -X POST http://localhost:8080/api/v1/agents/$AGENT/invoke -H 'Content-Type: application/json' \
  -d '{"prompt": "What'"'"'s my name?", "actor_id": "user-123"}' | jq -r .response
curl -s -X POST http://localhost:8080/api/v1/agents/$AGENT/invoke -H 'Content-Type: application/json' \
  -d '{"prompt": "What'"'"'s my name?", "actor_id": "user-123", "session_id": null}' | jq -r .response
"""

AS_WRITTEN = r"""
set -euo pipefail
curl -s -X POST http://localhost:8080/api/v1/agents -H 'Content-Type: application/json' -d '{
  "name": "Research Assistant",
  "system_prompt": "You are a research assistant.",
  "model_config": {"model_id": "us.anthropic.claude-sonnet-4-20250514-v1:0"},
  "tools": ["web_search"]
}' | jq -r '.agent_id, .model, .tools[]'
curl -s -X POST "http://localhost:8080/api/v1/sessions?agent_id=research-assistant&actor_id=user-123" \
  | jq -r '.agent_id + " " + .actor_id'
"""


@contextmanager
def fresh_server(data_dir: Path) -> Generator[None]:
    """A server where the calls expect it. Who runs the same tests on this machine meanwhile waits."""
    with FileLock(Path(tempfile.gettempdir()) / f"agent-mcp-tests-{PORT}.lock"):
        try:
            socket.create_server(("127.0.0.1", PORT)).close()
        except OSError as error:
            pytest.fail(f"these tests need the port {PORT}, as users do, and it can't be had ({error}): free it")
        with process(data_dir, address=f"127.0.0.1:{PORT}"):
            yield


def shell(script: str) -> list[str]:
    done = subprocess.run(
        ["bash", "-c", script], env={"PATH": "/usr/local/bin:/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_name_is_remembered_within_the_session_and_not_without_it(data_dir: Path) -> None:
    with fresh_server(data_dir):
        within, without, null = shell(CONTINUITY)
    assert "John" in within
    assert "John" not in without
    assert "John" not in null


def test_agents_and_sessions_are_made_as_users_write_the_calls(data_dir: Path) -> None:
    with fresh_server(data_dir):
        made = shell(AS_WRITTEN)
    model = "us.anthropic.claude-sonnet-4-20250514-v1:0"
    assert made == ["research-assistant", model, "web_search", "research-assistant user-123"]


def test_every_example_of_the_documentation_runs(data_dir: Path) -> None:
    text = Path(__file__).parent.with_name("docs").joinpath("http.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    with fresh_server(data_dir):
        lines = shell("set -euo pipefail\n" + "\n".join(blocks))
    assert any("John" in line for line in lines)
    assert "event: reply" in lines
    assert [line for line in lines if line in ("null", "", "true")].count("null") == 0
    assert "true" in lines
