"""schemathesis against the OpenAPI document: what it says is taken, is taken, and what it says is given, is given."""

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from web import Web, serving

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(600)]

CONFIG = Path(__file__).with_name("schemathesis.toml")
"""The bounds of a run, and the exceptions to the default checks with their reasons."""


@pytest.fixture
def web(tmp_path: Path) -> Generator[Web]:
    with serving(tmp_path / "data", turn_timeout=20) as web:
        web.ask("My name is John", session_id="first")
        yield web


def test_schemathesis_finds_nothing_but_what_is_listed(web: Web, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"),
            *("--wait-for-schema", "60", "--request-timeout", "60", "--no-color", f"{web.url}/openapi.json"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
