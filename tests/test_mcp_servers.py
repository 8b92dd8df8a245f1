"""Tools of the operator's MCP servers: shared, bounded, restarted, approved."""

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_mcp.doctor import examine
from agent_mcp.domain import LOCAL_SUBJECT, Caller
from agent_mcp.errors import ToolNotAllowed
from agent_mcp.ids import AgentId
from agent_mcp.service import AgentDraft, Prompt, Service
from agent_mcp.toolbox import mcp_servers
from agent_mcp.toolbox.mcp_servers import model_name
from agent_mcp.toolbox.server_file import read_servers
from in_process import CALLER, ask, running
from life import order, until

KIT = str(Path(__file__).parent / "tool_server.py")
DEADLINE = 60.0


def config(folder: Path, servers: Mapping[str, Any]) -> Path:
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": servers}))
    return path


def kit(**more: Any) -> dict[str, Any]:
    return {"command": sys.executable, "args": [KIT], **more}


@asynccontextmanager
async def team(
    folder: Path, servers: Mapping[str, Any], *tools: str, environ: Mapping[str, str] | None = None
) -> AsyncGenerator[Service]:
    """A service whose agent `worker` has these tools."""
    async with running(folder / "data", mcp_servers=config(folder, servers), environ=environ) as service:
        await service.agents.create(CALLER, AgentDraft(name="Worker", tools=tools), agent_id=AgentId("worker"))
        yield service


async def use(service: Service, tool: str, session: str | None = None, **arguments: Any) -> tuple[str, str, str]:
    """How a tool ended, what it gave, and the session."""
    reply = await ask(service, order(tool, **arguments), session, agent=None if session else "worker")
    page = await service.sessions.read(CALLER, reply.session_id)
    (call,) = reply.tool_calls
    return str(call.status), [m.text for m in page.messages if m.role == "tool"][-1], reply.session_id


def pid(text: str) -> int:
    found = re.search(r"pid=(\d+)", text)
    assert found, text
    return int(found[1])


def is_running(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


async def test_a_server_is_started_once_with_what_its_entry_says_and_ended_with_the_process(tmp_path: Path) -> None:
    entry = kit(env={"KIT_SECRET": "${MY_SECRET}"}, cwd=str(tmp_path))
    environ = {"MY_SECRET": "swordfish", "AWS_REGION": "eu-west-1"}
    async with team(tmp_path, {"kit": entry}, "mcp:kit", environ=environ) as service:
        (first, one, session), (second, two, _) = await asyncio.gather(
            use(service, "mcp__kit__whoami"), use(service, "mcp__kit__whoami")
        )
        assert (first, second) == ("success", "success")
        assert pid(one) == pid(two)
        assert f"cwd={tmp_path} secret=swordfish region=False" in one
        status, text, _ = await use(service, "mcp__kit__refuse", session)
        assert (status, "not today" in text) == ("error", True)
        status, text, _ = await use(service, "mcp__kit__flood", session)
        assert (status, "characters left out]" in text) == ("success", True)
        mib = 1024 * 1024
        status, text, _ = await use(service, "mcp__kit__pictures", session, sizes=[3 * mib, 3 * mib, 64])
        assert (status, text.count(f"[an attachment of {3 * mib} bytes left out]"), "seen" in text) == (
            *("success", 1),
            True,
        )
        status, text, _ = await use(service, model_name("kit", "a.very.long.name." + "x" * 60), session)
        assert (status, "long" in text) == ("success", True)
    await until(lambda: not is_running(pid(one)))


async def test_a_server_that_dies_in_the_middle_of_a_turn_is_one_tools_error_and_is_started_again(
    tmp_path: Path,
) -> None:
    async with team(tmp_path, {"kit": kit()}, "mcp:kit/whoami", "mcp:kit/die") as service:
        _, before, session = await use(service, "mcp__kit__whoami")
        status, text, _ = await use(service, "mcp__kit__die", session)
        assert status == "error"
        assert "whether it took effect is not known" in text
        status, after, _ = await use(service, "mcp__kit__whoami", session)
        assert status == "success"
        assert pid(after) != pid(before)
        # Killed between two turns, it is not noticed, unless the next use comes before the end of its pipe does.
        os.kill(pid(after), 9)
        await until(lambda: not is_running(pid(after)))
        status, again, _ = await use(service, "mcp__kit__whoami", session)
        if status == "error":
            assert "whether it took effect is not known" in again
            status, again, _ = await use(service, "mcp__kit__whoami", session)
        assert (status, pid(again) != pid(after)) == ("success", True)


async def test_a_server_that_hangs_or_fails_at_its_start_holds_nobody_up_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_servers, "START_SECONDS", 2.0)
    silent = tmp_path / "silent"
    program = f"import os, pathlib, time; pathlib.Path({str(silent)!r}).write_text(str(os.getpid())); time.sleep(600)"
    servers = {
        "hung": {"command": sys.executable, "args": ["-c", program]},
        "gone": {"command": str(tmp_path / "nothing")},
        "ends": {"command": sys.executable, "args": ["-c", "raise SystemExit(1)"]},
        "closed": {"url": "http://127.0.0.1:1/mcp"},
    }
    async with team(tmp_path, servers, "calculator", *(f"mcp:{name}" for name in servers)) as service:
        assert "14" in (await ask(service, order("calculator", expression="2*7"), agent="worker")).response
        for name in servers:
            status, text, _ = await use(service, f"mcp__{name}")
            assert status == "error"
            assert f"The MCP server {name} is not reached" in text
            assert "did not answer within 2 seconds" in text or name != "hung"
        await until(lambda: not is_running(int(silent.read_text())))


async def test_tools_that_do_not_only_read_need_a_person_unless_the_entry_says_otherwise(tmp_path: Path) -> None:
    servers = {"kit": kit(), "free": kit(approve="never"), "strict": kit(approve="always")}
    note = tmp_path / "note"
    async with team(tmp_path, servers, "mcp:kit", "mcp:free", "mcp:strict/whoami") as service:

        async def status(tool: str, **arguments: Any) -> str:
            prompt = Prompt(text=order(tool, **arguments), agent_id=AgentId("worker"))
            following = (await service.turns.ask(CALLER, prompt)).followed
            async for _ in following.events(wait=DEADLINE, pace=0.01):
                pass
            return following.reply().status

        assert await status("mcp__kit__write_note", path=str(note), text="x") == "input_required"
        assert await status("mcp__strict__whoami") == "input_required"
        assert not note.exists()
        assert await status("mcp__kit__whoami") == "completed"
        assert await status("mcp__free__write_note", path=str(note), text="free") == "completed"
    assert note.read_text() == "free"


async def test_names_are_checked_when_an_agent_is_made(tmp_path: Path) -> None:
    servers = {"kit": kit(), "theirs": kit(subjects=["acme"])}
    async with team(tmp_path, servers, "mcp:kit") as service:
        for name, reason in {
            "mcp:kat": "Did you mean 'mcp:kit'",
            "mcp:kit/wipe": "mcp:kit/write_note",
            "mcp:kit/": "mcp:kit",
            "mcp:theirs": "mcp:kit",
            "mcp:": "mcp:kit",
        }.items():
            with pytest.raises(ToolNotAllowed) as refused:
                await service.agents.create(CALLER, AgentDraft(name="Other", tools=(name,)))
            assert reason in str(refused.value.message), name
            assert "mcp:theirs" not in refused.value.message.partition("Allowed")[2]
        acme = Caller(subject="acme")
        made = await service.agents.create(acme, AgentDraft(name="Acme", tools=("mcp:theirs/whoami",)))
        assert made.created


async def test_another_subjects_server_is_not_given_even_to_a_definition_that_names_it(tmp_path: Path) -> None:
    async with team(tmp_path, {"theirs": kit(subjects=["acme"])}, "calculator") as service:
        path = tmp_path / "data" / "agents" / "worker.md"
        path.write_text(path.read_text().replace("- calculator", "- calculator\n- mcp:theirs"))
        reply = await ask(service, order("mcp__theirs__whoami"), agent="worker")
        assert [call.status for call in reply.tool_calls] in ([], ["error"])
        assert "pid=" not in reply.response
        (listed,) = (await service.agents.list_agents(CALLER, query="worker")).agents
        assert listed.tools == ("calculator",)
        assert "'mcp:theirs' is unknown or not allowed" in listed.warnings[0]
        offers = {subject: service.toolbox.offers(subject=subject) for subject in (LOCAL_SUBJECT, "acme")}
        for subject, allowed in ((LOCAL_SUBJECT, False), ("acme", True)):
            (offer,) = (offer for offer in offers[subject] if offer.name == "mcp:theirs")
            assert (offer.allowed, offer.why) == (allowed, "of AGENT_MCP_MCP_SERVERS, approve writes, for acme only")
        # To the operator, who looks at a server for many, it is nothing that is broken.
        found = await examine(service, CALLER)
        assert [finding.text for finding in found if not finding.ok] == []
        assert "mcp:theirs" not in next(finding.text for finding in found if finding.what == "tools")


async def test_a_server_over_http_is_used_and_found_again_after_it_was_started_anew(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    @asynccontextmanager
    async def serving() -> AsyncGenerator[None]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, KIT, str(port), stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await until(answers)
            yield
        finally:
            process.kill()
            await process.wait()

    servers = {"web": {"url": f"http://127.0.0.1:{port}/mcp"}}
    async with running(tmp_path / "data", mcp_servers=config(tmp_path, servers)) as service:
        async with serving():
            await service.agents.create(
                CALLER, AgentDraft(name="Worker", tools=("mcp:web/whoami",)), agent_id=AgentId("worker")
            )
            status, one, session = await use(service, "mcp__web__whoami")
            assert status == "success", one
        assert (await use(service, "mcp__web__whoami", session))[0] == "error"
        async with serving():
            # At the first use after its end the connection is found dead; it may be left alone for some seconds.
            two = ""
            for _ in range(30):
                status, two, _ = await use(service, "mcp__web__whoami", session)
                if status == "success":
                    break
                await asyncio.sleep(1)
            assert pid(two) != pid(one)


def test_what_can_not_be_read_in_the_file_is_left_out_with_a_reason(tmp_path: Path) -> None:
    servers = {
        "good": {"command": "x", "type": "stdio", "nonsense": 1},
        "off": {"command": "x", "disabled": True},
        "both": {"command": "x", "url": "http://a.example/"},
        "none": {},
        "a/b": {"command": "x"},
        "a__b": {"command": "x"},
        "unset": {"command": "${NOWHERE}"},
        "fallback": {"command": "${NOWHERE:-x}", "args": ["${HERE}"]},
        "odd": {"command": ["x"]},
        "file": {"url": "file:///etc/passwd"},
        "sometimes": {"command": "x", "approve": "sometimes"},
    }
    entries, warnings = read_servers(str(config(tmp_path, servers)), {"HERE": "there"})
    assert list(entries) == ["good", "fallback"]
    assert (entries["fallback"].command, entries["fallback"].args) == ("x", ("there",))
    assert len(warnings) == 9
    assert any("NOWHERE is not set" in warning for warning in warnings)
    for text in ("", "[]", '{"mcpServers": []}', "{}"):
        (tmp_path / "bad.json").write_text(text)
        entries, warnings = read_servers(str(tmp_path / "bad.json"), {})
        assert (entries, len(warnings)) == ({}, 1)
    assert read_servers(str(tmp_path / "missing.json"), {})[0] == {}


def test_names_for_models_are_valid_and_distinct() -> None:
    names = [model_name("a", "b"), model_name("a.b", "c"), model_name("a_b", "c"), model_name("a", "x" * 90)]
    names += [model_name("a", "x" * 91), model_name("a", "ä"), model_name("a", "ö"), model_name("a")]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in names)
