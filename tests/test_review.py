"""Races and damage that once went wrong, each shown with real files and services in this process."""

import asyncio
import errno
import json
import os
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from mcp_types import ElicitResult, ErrorData

from agent_mcp.domain import AgentId, Reply, SessionId, TurnRecord, now
from agent_mcp.errors import SessionDamaged, StorageFailed, TurnConflict
from agent_mcp.service import AgentDraft, Prompt, Service
from agent_mcp.service.turn_cases import Asked
from conftest import call, connect, server_environment
from engine import ToolDesk, tools_env
from in_process import CALLER, running

DEADLINE = 120.0
SHELL = 'Use the tool shell with {"command": "echo hi"}'
HANDOFF = 'Use the tool handoff_to_user with {"message": "Which one?"}'


async def reply_to(service: Service, prompt: Prompt) -> Reply:
    """One turn until it ends or waits for somebody."""
    asked = await service.turns.ask(CALLER, prompt)
    return await end_of(asked)


async def end_of(asked: Asked) -> Reply:
    async for _ in asked.followed.events(wait=DEADLINE, pace=0.01):
        pass
    return asked.followed.reply()


@pytest.mark.parametrize("own_id", [None, "mine"])
async def test_repetitions_at_the_same_moment_in_two_processes_are_one_turn(data_dir: Path, own_id: str | None) -> None:
    prompt = Prompt(
        text="hello",
        key="k",
        session_id=SessionId(own_id) if own_id else None,
        agent_id=AgentId("assistant") if own_id else None,
    )

    async def ask(service: Service) -> tuple[bool, Reply]:
        asked = await service.turns.ask(CALLER, prompt)
        return asked.is_new, await end_of(asked)

    async with running(data_dir) as one, running(data_dir) as other, asyncio.timeout(DEADLINE):
        answers: Sequence[tuple[bool, Reply]] = await asyncio.gather(*(ask(s) for s in (one, other, one, other)))
        listed = (await one.sessions.list_sessions(CALLER)).sessions
    assert sum(is_new for is_new, _ in answers) == 1
    assert len({reply.turn_id for _, reply in answers}) == 1
    assert {reply.status for _, reply in answers} == {"completed"}
    assert [session.turns for session in listed] == [1]


async def test_of_two_decisions_at_once_one_counts_and_the_other_is_told_so(data_dir: Path) -> None:
    async with running(data_dir, allow_tools=("shell",)) as service, asyncio.timeout(DEADLINE):
        await service.agents.create(CALLER, AgentDraft(name="sh", tools=("shell",)))
        waiting = await reply_to(service, Prompt(text=SHELL, agent_id=AgentId("sh")))
        assert waiting.status == "input_required"

        async def decide() -> Reply | TurnConflict:
            try:
                followed = await service.turns.decide(CALLER, waiting.turn_id, approve=True)
                return await end_of(Asked(followed=followed, is_new=True))
            except TurnConflict as error:
                return error

        ends = await asyncio.gather(decide(), decide(), decide())
        assert sorted(end.status if isinstance(end, Reply) else end.code for end in ends) == [
            "completed",
            "turn_conflict",
            "turn_conflict",
        ]


async def test_a_turn_that_was_answered_works_at_once(data_dir: Path) -> None:
    async with running(data_dir) as service, asyncio.timeout(DEADLINE):
        await service.agents.create(CALLER, AgentDraft(name="hand", tools=("handoff_to_user",)))
        waiting = await reply_to(service, Prompt(text=HANDOFF, agent_id=AgentId("hand")))
        assert waiting.question == "Which one?"
        following = await service.turns.answer(CALLER, "The red one", turn_id=waiting.turn_id)
        assert following.record().question is None, "a host's person would be asked a second time"
        ended = await end_of(Asked(followed=following, is_new=True))
        assert "The red one" in ended.response


async def test_cancelling_a_turn_that_is_just_being_answered_ends_it(data_dir: Path) -> None:
    async with running(data_dir) as service, asyncio.timeout(DEADLINE):
        await service.agents.create(CALLER, AgentDraft(name="hand", tools=("handoff_to_user",)))
        waiting = await reply_to(service, Prompt(text=HANDOFF, agent_id=AgentId("hand")))
        _, cancelled = await asyncio.gather(
            service.turns.answer(CALLER, "The red one", turn_id=waiting.turn_id),
            service.turns.cancel(CALLER, turn_id=waiting.turn_id),
            return_exceptions=True,
        )
        assert isinstance(cancelled, Reply)
        assert cancelled.status in ("cancelled", "completed")
        again = await reply_to(service, Prompt(text="hello", session_id=waiting.session_id))
        assert again.status == "completed"


async def test_cancelling_a_request_whose_person_is_being_asked_cancels_its_turn(data_dir: Path) -> None:
    asked = asyncio.Event()

    async def person(context: object, params: object) -> ElicitResult:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    env = {"AGENT_MCP_ALLOW_TOOLS": "shell"}
    async with connect(data_dir, env=env, mode="legacy", elicitation_callback=person) as client:
        await call(client, "create_agent", name="sh", tools=["shell"])
        session = await call(client, "start_session", agent_id="sh")
        ids = {"session_id": session["session_id"]}
        async with asyncio.timeout(DEADLINE), anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.call_tool("ask_agent", {"prompt": SHELL, **ids}))
            await asked.wait()
            tasks.cancel_scope.cancel()
        async with asyncio.timeout(DEADLINE):
            while (await call(client, "list_sessions"))["sessions"][0]["open_turn"]:
                pass
            assert (await call(client, "get_reply", **ids))["status"] == "cancelled"


async def test_a_host_that_fails_to_ask_its_person_gets_the_reply_that_waits(data_dir: Path) -> None:
    async def person(context: object, params: object) -> ErrorData:
        return ErrorData(code=-32603, message="no window")

    env = {"AGENT_MCP_ALLOW_TOOLS": "shell"}
    async with connect(data_dir, env=env, mode="legacy", elicitation_callback=person) as client:
        await call(client, "create_agent", name="sh", tools=["shell"])
        reply = await call(client, "ask_agent", prompt=SHELL, agent_id="sh")
        assert reply["status"] == "input_required"


async def test_a_prompt_that_a_kill_left_is_not_found_once_it_is_withdrawn(data_dir: Path) -> None:
    async with running(data_dir) as service, asyncio.timeout(DEADLINE):
        told = await reply_to(service, Prompt(text="hello"))
    record_file = data_dir / "turns" / f"{told.turn_id}.json"
    # As a kill leaves it: the record still works, only the prompt is there.
    messages = data_dir / f"session_{told.session_id}" / "agents" / "agent_assistant" / "messages"
    prompt = (messages / "message_0.json").read_text().replace("hello", "walrus")
    (messages / "message_0.json").write_text(prompt)
    (messages / "message_1.json").unlink()
    record = TurnRecord.model_validate_json(record_file.read_bytes())
    left = record.model_copy(update={"status": "working", "ended_at": None, "process": "0" * 16, "response": ""})
    record_file.write_text(left.model_dump_json())

    async with running(data_dir) as service, asyncio.timeout(DEADLINE):
        assert (await service.sessions.list_sessions(CALLER, query="walrus")).sessions, "the index has what is there"
        await reply_to(service, Prompt(text="narwhal", session_id=told.session_id))
        assert not (await service.sessions.list_sessions(CALLER, query="walrus")).sessions
        assert (await service.sessions.list_sessions(CALLER, query="narwhal")).sessions


async def test_a_session_that_was_removed_by_hand_leaves_the_index_and_nothing_stumbles_over_it(data_dir: Path) -> None:
    async with running(data_dir, session_ttl=1) as service, asyncio.timeout(DEADLINE):
        gone = await reply_to(service, Prompt(text="hello"))
        shutil.rmtree(data_dir / f"session_{gone.session_id}")
        assert await service.sessions.expired_before(CALLER, now() + timedelta(days=1)) == []
    async with running(data_dir) as service:
        assert service.store(CALLER).list_sessions(now=now(), limit=10) == []


async def test_what_is_pruned_has_expired_by_its_own_file_not_by_the_index(data_dir: Path) -> None:
    async with running(data_dir, session_ttl=1) as service, asyncio.timeout(DEADLINE):
        kept = await reply_to(service, Prompt(text="hello"))
        metadata = data_dir / f"session_{kept.session_id}" / "metadata.json"
        metadata.write_text(metadata.read_text().replace('"ttl_seconds": 1,', '"ttl_seconds": 0,'))
        assert await service.sessions.expired_before(CALLER, now() + timedelta(days=1)) == []


async def test_a_session_that_the_system_refuses_to_read_hides_no_other(data_dir: Path) -> None:
    async with running(data_dir) as service, asyncio.timeout(DEADLINE):
        whole = await reply_to(service, Prompt(text="hello"))
    odd = data_dir / "session_odd" / "metadata.json"
    odd.mkdir(parents=True)
    for name in ("catalog.db", "catalog.db-wal", "catalog.db-shm"):
        (data_dir / name).unlink(missing_ok=True)
    async with running(data_dir) as service, asyncio.timeout(DEADLINE):
        listed = (await service.sessions.list_sessions(CALLER)).sessions
        assert whole.session_id in [session.session_id for session in listed]


async def test_a_turn_that_breaks_off_for_an_unforeseen_reason_does_not_stay_open(data_dir: Path) -> None:
    async with running(data_dir) as service, asyncio.timeout(DEADLINE):
        await reply_to(service, Prompt(text="hello", session_id=SessionId("mine"), agent_id=AgentId("assistant")))
        lock = data_dir / "locks" / "session-mine.lock"
        lock.unlink()
        lock.mkdir()
        with pytest.raises(StorageFailed):
            await reply_to(service, Prompt(text="hello", session_id=SessionId("mine")))
        lock.rmdir()
        statuses = [record.status for record in await service.turns.list_turns(CALLER)]
        assert sorted(statuses) == ["completed", "failed"], "another server would call it running for ever"


async def test_a_yes_that_comes_after_seven_days_is_a_no(data_dir: Path) -> None:
    async with running(data_dir, allow_tools=("shell",)) as service, asyncio.timeout(DEADLINE):
        await service.agents.create(CALLER, AgentDraft(name="sh", tools=("shell",)))
        waiting = await reply_to(service, Prompt(text=SHELL, agent_id=AgentId("sh")))
        record_file = data_dir / "turns" / f"{waiting.turn_id}.json"
        record = TurnRecord.model_validate_json(record_file.read_bytes())
        late = record.model_copy(update={"pending_since": now() - timedelta(days=8)})
        record_file.write_text(late.model_dump_json())
        with pytest.raises(TurnConflict):
            await service.turns.decide(CALLER, waiting.turn_id, approve=True)
        followed = await service.turns.follow(CALLER, turn_id=waiting.turn_id)
        assert followed.reply().status == "cancelled"


async def test_a_copy_of_a_sessions_directory_is_no_way_into_the_session(data_dir: Path) -> None:
    async with running(data_dir) as service, asyncio.timeout(DEADLINE):
        told = await reply_to(service, Prompt(text="hello"))
        shutil.copytree(data_dir / f"session_{told.session_id}", data_dir / "session_copy")
        with pytest.raises(SessionDamaged):
            await reply_to(service, Prompt(text="hello", session_id=SessionId("copy")))
        assert (await service.sessions.get(CALLER, told.session_id)).turns == 1


async def test_a_message_that_the_system_refuses_to_read_is_damage_and_is_named(data_dir: Path) -> None:
    async with running(data_dir) as service, asyncio.timeout(DEADLINE):
        told = await reply_to(service, Prompt(text="hello"))
        messages = data_dir / f"session_{told.session_id}" / "agents" / "agent_assistant" / "messages"
        (messages / "message_1.json").unlink()
        (messages / "message_1.json").mkdir()
        with pytest.raises(SessionDamaged, match=r"message_1\.json"):
            await service.sessions.read(CALLER, told.session_id)
        with pytest.raises(SessionDamaged, match=r"message_1\.json"):
            await reply_to(service, Prompt(text="hello", session_id=told.session_id))


async def test_a_query_may_hold_a_nul(data_dir: Path) -> None:
    async with running(data_dir) as service, asyncio.timeout(DEADLINE):
        await reply_to(service, Prompt(text="hello there"))
        assert (await service.sessions.list_sessions(CALLER, query="hello\0there")).sessions


async def test_an_agent_that_can_not_be_written_is_a_storage_error(data_dir: Path) -> None:
    async with running(data_dir) as service, asyncio.timeout(DEADLINE):
        await service.agents.create(CALLER, AgentDraft(name="one"))
        (data_dir / "agents").rename(data_dir / "elsewhere")
        with pytest.raises(StorageFailed):
            await service.agents.create(CALLER, AgentDraft(name="two"))


async def test_a_file_system_without_links_will_do(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", link)
    async with running(data_dir) as service, asyncio.timeout(DEADLINE):
        made = await service.agents.create(CALLER, AgentDraft(name="one"))
        assert made.created
        assert not (await service.agents.create(CALLER, AgentDraft(name="one"))).created
        first = await reply_to(service, Prompt(text="hello", key="k"))
        again = await service.turns.ask(CALLER, Prompt(text="hello", key="k"))
        assert (first.turn_id, again.is_new) == (again.followed.turn_id, False)


async def test_agents_that_are_deleted_at_once_are_all_retired(data_dir: Path) -> None:
    names = [f"agent-{number}" for number in range(8)]
    async with running(data_dir) as service, asyncio.timeout(DEADLINE):
        for name in names:
            await service.agents.create(CALLER, AgentDraft(name=name))
            await service.sessions.start(CALLER, agent_id=AgentId(name))
        await asyncio.gather(*(service.agents.delete(CALLER, AgentId(name)) for name in names))
        assert (data_dir / "retired").read_text().split() == names


async def test_what_a_kill_left_half_written_is_removed_after_an_hour(data_dir: Path) -> None:
    async with running(data_dir) as service:
        service.store(CALLER)
    old, new = (data_dir / "turns" / f".write_{name}.tmp" for name in ("old", "new"))
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    async with running(data_dir) as service:
        service.store(CALLER)
    assert (old.exists(), new.exists()) == (False, True)


async def test_a_tool_that_does_not_end_does_not_keep_the_server_after_its_client(data_dir: Path) -> None:
    env = server_environment(data_dir, tools_env())
    with ToolDesk() as desk:
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent_mcp", stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=env
        )
        assert server.stdin is not None
        assert server.stdout is not None

        def send(method: str, params: Mapping[str, object], **more: int) -> None:
            assert server.stdin is not None
            line = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more})
            server.stdin.write(line.encode() + b"\n")

        async with asyncio.timeout(DEADLINE / 2):  # the tool would hold on for longer
            hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            send("initialize", hello, id=1)
            await server.stdout.readline()
            send("notifications/initialized", {})
            send("tools/call", {"name": "create_agent", "arguments": {"name": "slow", "tools": ["py:hold"]}}, id=2)
            await server.stdout.readline()
            prompt = f'Use the tool hold with {{"port": {desk.port}}}'
            send("tools/call", {"name": "ask_agent", "arguments": {"prompt": prompt, "agent_id": "slow"}}, id=3)
            await desk.started()
            server.stdin.close()
            assert await server.wait() == 0


async def test_locks_of_killed_servers_and_deleted_sessions_do_not_pile_up(data_dir: Path) -> None:
    async with running(data_dir) as service, asyncio.timeout(DEADLINE):
        told = await reply_to(service, Prompt(text="hello"))
        (data_dir / "locks" / f"process-{'0' * 16}.lock").touch()
        async with running(data_dir) as other:
            other.store(CALLER)
            assert len(list((data_dir / "locks").glob("process-*.lock"))) == 2, "those of the two that live"
        await service.turns.delete_session(CALLER, told.session_id)
        left = {path.name for path in (data_dir / "locks").iterdir()}
        assert left - {"catalog.lock"} == {f"process-{service.store(CALLER).process}.lock"}


async def test_what_a_person_is_asked_to_allow_shows_what_a_terminal_would_hide(data_dir: Path) -> None:
    async with running(data_dir, allow_tools=("shell",)) as service, asyncio.timeout(DEADLINE):
        await service.agents.create(CALLER, AgentDraft(name="sh", tools=("shell",)))
        prompt = 'Use the tool shell with {"command": "rm \\u202e\\u009b2K sl"}'
        waiting = await reply_to(service, Prompt(text=prompt, agent_id=AgentId("sh")))
        assert waiting.question is not None
        assert waiting.question.isprintable()
        assert r"\u202e" in waiting.question
