"""Strands is imported by a thread of its own after the handshake, while the first request may need it already."""

import subprocess
import sys
from pathlib import Path

import pytest

RACE = """
import pathlib, sys, threading
from agent_mcp.compose import warm_up
from agent_mcp.domain import *
from agent_mcp.models import ModelRef, Models
from agent_mcp.storage.store import Store
from agent_mcp.storage.subjects import process_lock
from agent_mcp.toolbox import Toolbox

root = pathlib.Path(sys.argv[1])
warming = threading.Thread(target=warm_up)
warming.start()
while "strands" not in sys.modules:
    pass
# Here the other thread is in the middle of Strands' half second of imports.
{entry}
warming.join()
"""
ENTRIES = {
    "the operator's tools": 'box = Toolbox(modules=["math"]); box.names(); assert "no function" in box.warnings[0]',
    "the first session": (
        "store = Store(root, LOCAL_SUBJECT, process=process_lock(root), sync=False, default_ttl=0); store.open(); "
        "at = now(); store.create_session(SessionMeta("
        "session_id='a', agent_id='b', actor_id='c', created_at=at, last_active_at=at, ttl_seconds=0)); store.close()"
    ),
    "the offline model": 'Models(default="auto", environ={}).build(ModelRef("offline", "basic"))',
    "the bedrock model": 'import os; os.environ["AWS_REGION"] = "us-east-1"; '
    'Models(default="auto", environ={}).build(ModelRef("bedrock", "vendor.model-v1"))',
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_a_first_request_that_meets_the_warm_up_gets_whole_modules(entry: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RACE.format(entry=entry), str(tmp_path / "data")],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert (done.returncode, done.stderr) == (0, "")
