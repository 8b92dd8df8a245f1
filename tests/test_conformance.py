"""The official conformance suite against the server over HTTP, for both generations of the protocol.

`python -m pytest -m node tests/test_conformance.py`; what is known to fail stands with its reason in conformance.yml.
"""

import re
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import yaml
from mcp_types import LATEST_PROTOCOL_VERSION

from test_serve_http import process

pytestmark = [pytest.mark.node, pytest.mark.timeout(900)]

SUITE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
BASELINE: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("conformance.yml").read_text(encoding="utf-8"))
_RESULT = re.compile(r"^([✓✗]) ([a-z0-9-]+): (\d+) passed, (\d+) failed", re.MULTILINE)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    with process(tmp_path_factory.mktemp("conformance") / "data") as (_, url):
        yield url


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
def test_what_a_revision_requires_is_met_but_for_the_known(url: str, revision: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["npx", "-y", SUITE, "server", "--url", f"{url}/mcp", "--requirements", revision, "--timeout", "120000"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=880,
        cwd=tmp_path,
    )
    results = {name: mark == "✓" for mark, name, *_ in _RESULT.findall(done.stdout)}
    assert len(results) > 30, done.stdout[-2000:] + done.stderr[-2000:]
    known, may_fail = expected(declared(url))
    counted = {name: passed for name, passed in results.items() if not name.startswith(tuple(BASELINE["extensions"]))}
    failed = {name for name, passed in counted.items() if not passed}
    assert failed <= known | may_fail, f"not known to fail: {sorted(failed - known - may_fail)}"
    stale = {name for name in known if counted.get(name)}
    assert not stale, f"conformance.yml says that these fail: {sorted(stale)}"


def expected(capabilities: set[str]) -> tuple[set[str], set[str]]:
    """The scenarios that fail with these capabilities, and those that may."""
    missing = {name for name, needed in BASELINE["capabilities"].items() if needed not in capabilities}
    return set(BASELINE["fixtures"]) | missing, set(BASELINE["either"])


def declared(url: str) -> set[str]:
    """The capabilities that the server declares."""
    prefix = "io.modelcontextprotocol/"
    meta = {
        f"{prefix}protocolVersion": LATEST_PROTOCOL_VERSION,
        f"{prefix}clientInfo": {"name": "test", "version": "1"},
        f"{prefix}clientCapabilities": {},
    }
    answer = httpx.post(
        f"{url}/mcp",
        json={"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": meta}},
        headers={
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": LATEST_PROTOCOL_VERSION,
            "Mcp-Method": "server/discover",
        },
        timeout=60,
        trust_env=False,
    )
    return set(cast("dict[str, Any]", answer.json()["result"]["capabilities"]))
