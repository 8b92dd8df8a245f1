"""The continuity test as a user runs it in a shell, with curl and jq, against a fresh server."""

import re
import subprocess
from pathlib import Path

import pytest

from test_serve_http import process

pytestmark = pytest.mark.shell

CONTINUITY = r"""
set -euo pipefail
AGENT=$(curl -s -X POST $URL/api/v1/agents/examples/customer_support | jq -r .agent_id)
SESSION=$(curl -s -X POST $URL/api/v1/agents/$AGENT/invoke -H 'Content-Type: application/json' \
  -d '{"prompt": "My name is John", "actor_id": "user-123"}' | jq -r .session_id)
curl -s -X POST $URL/api/v1/agents/$AGENT/invoke -H 'Content-Type: application/json' \
  -d '{"prompt": "What'"'"'s my name?", "actor_id": "user-123", "session_id": "'$SESSION'"}' | jq -r .response
curl -s -X POST $URL/api/v1/agents/$AGENT/invoke -H 'Content-Type: application/json' \
  -d '{"prompt": "What'"'"'s my name?", "actor_id": "user-123", "session_id": null}' | jq -r .response
"""

AS_WRITTEN = r"""
set -euo pipefail
curl -s -X POST $URL/api/v1/agents -H 'Content-Type: application/json' -d '{
  "name": "Research Assistant",
  "system_prompt": "You are a research assistant.",
  "model_config": {"model_id": "us.anthropic.claude-sonnet-4-20250514-v1:0"},
  "tools": ["calculator"]
}' | jq -r .agent_id
curl -s -X POST "$URL/api/v1/sessions?agent_id=research-assistant&actor_id=user-123" \
  | jq -r '.agent_id + " " + .actor_id'
"""


def shell(script: str, url: str) -> list[str]:
    done = subprocess.run(
        ["bash", "-c", script], env={"URL": url, "PATH": "/usr/local/bin:/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_name_is_remembered_within_the_session_and_not_without_it(data_dir: Path) -> None:
    with process(data_dir) as (_, url):
        within, without = shell(CONTINUITY, url)
    assert "John" in within
    assert "John" not in without


def test_agents_and_sessions_are_made_as_users_write_the_calls(data_dir: Path) -> None:
    with process(data_dir) as (_, url):
        assert shell(AS_WRITTEN, url) == ["research-assistant", "research-assistant user-123"]


def test_every_example_of_the_documentation_runs(data_dir: Path) -> None:
    text = Path(__file__).parent.with_name("docs").joinpath("http.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    with process(data_dir) as (_, url):
        lines = shell("set -euo pipefail\n" + "\n".join(blocks).replace("http://localhost:8080", url), url)
    assert any("John" in line for line in lines)
    assert "event: reply" in lines
    assert [line for line in lines if line in ("null", "", "true")].count("null") == 0
    assert "true" in lines
