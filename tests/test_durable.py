"""A reply is given only once its turn is on disk: seen in the order of the system's calls."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from mcp import StdioServerParameters

from conftest import call, server_environment
from contract_record import RecordingClient
from life import shell

_CALL = re.compile(r"(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
_QUOTED = re.compile(r'"([^"]*)"')
_FILE = re.compile(r"(?:^|, )\d+<(?P<path>[^>]*)>")


@pytest.mark.shell
async def test_files_and_directories_are_synced_before_the_reply_is_written(data_dir: Path, tmp_path: Path) -> None:
    tracer = shutil.which("strace")
    assert tracer is not None
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2,write,sendto,link,linkat"
    serve = [sys.executable, "-m", "agent_mcp", "serve"]
    server = StdioServerParameters(
        command=tracer,
        args=[*f"-f -qq -y -s 4096 -e {calls} -e signal=none -o".split(), str(trace), *serve],
        env=server_environment(data_dir),
    )
    async with RecordingClient(server, read_timeout_seconds=110) as client:
        reply = await call(client, "ask_agent", prompt="My name is Zebedee")
    made = events(trace.read_text(errors="replace"), reply["turn_id"])
    session = f"session_{reply['session_id']}"
    messages = f"{session}/agents/agent_assistant/messages"
    answered = made.index("reply")
    for name in ("message_0.json", "message_1.json"):
        # Strands puts the name first; the content is synced behind it, and then the name.
        renamed, synced = made.index(f"rename {messages}/{name}"), made.index(f"fsync {messages}/{name}")
        assert renamed < synced < made.index(f"fsync {messages}") < answered
    for directory in (f"{session}/agents/agent_assistant", f"{session}/agents", session):
        assert made.index(f"fsync {directory}") < answered
    record = f"turns/{reply['turn_id']}.json"
    assert last(made, "fsync turns/.write_") < last(made, f"rename {record}") < last(made, "fsync turns") < answered
    assert made.index(f"fsync {messages}") < last(made, f"rename {record}"), "the record says what is kept already"


def events(trace: str, turn_id: str) -> list[str]:
    """What was done to the data directory, in order, until the reply was written."""
    made: list[str] = []
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        process, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            begun[process] = text.removesuffix("<unfinished ...>").rstrip()
            continue
        if text.startswith("<..."):
            text = begun.pop(process, "") + text.partition("resumed>")[2]
        found = _CALL.match(text)
        if found is None or int(found["result"]) < 0:
            continue
        arguments = found["arguments"]
        if found["call"] in ("fsync", "fdatasync"):
            path = _FILE.search(arguments)
            made.append(f"fsync {_below(path['path'] if path else '')}")
        elif found["call"].startswith(("rename", "link")):
            made.append(f"rename {_below(_QUOTED.findall(arguments)[-1])}")
        elif "jsonrpc" in arguments and turn_id in arguments:
            made.append("reply")
    return made


def _below(path: str) -> str:
    return path.partition("/data/")[2] if "/data/" in path else path


def last(made: list[str], beginning: str) -> int:
    return max(n for n, event in enumerate(made[: made.index("reply")]) if event.startswith(beginning))


async def test_a_server_that_does_not_sync_is_said_by_doctor_and_none_does_by_default(data_dir: Path) -> None:
    usual = await shell(data_dir, "doctor")
    assert "replies: wait until they are safe on disk (AGENT_MCP_FSYNC)" in usual.out
    fast = await shell(data_dir, "doctor", env={"AGENT_MCP_FSYNC": "off"})
    assert "replies: do NOT wait for the disk: a power cut loses turns (AGENT_MCP_FSYNC)" in fast.out
