"""Subjects: each has a store of its own, and within one a caller reaches the actors that it may act for."""

import json
import os
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent_mcp.domain import ActorId, AgentId, Caller, SessionId, TurnId
from agent_mcp.errors import (
    AgentMcpError,
    Forbidden,
    InvalidArgument,
    RateLimited,
    SessionDamaged,
    SessionExists,
    SessionNotFound,
    TurnNotFound,
)
from agent_mcp.following import Followed
from agent_mcp.memory import room as room_module
from agent_mcp.offline import LEARNING_MARKER
from agent_mcp.service import AgentDraft, Prompt, Service, stores as stores_module
from bedrock_server import Answer, BedrockServer, Gate, Received, Text, say
from conftest import call, connect, made
from engine import MODEL, reached
from in_process import CALLER, running
from life import DEADLINE, order, shell

ALICE = Caller(subject="alice", actor=ActorId("alice"), act_as=())
BOB = Caller(subject="bob", actor=ActorId("bob"), act_as=())
BACKEND = Caller(subject="acme", actor=ActorId("acme"), act_as=("acme:*",))
ONE = Caller(subject="acme", actor=ActorId("acme:one"), act_as=())
"""Of the same subject as the backend, and no more than one of its actors."""


@pytest_asyncio.fixture
async def service(data_dir: Path) -> AsyncGenerator[Service]:
    async with running(data_dir) as service:
        yield service


async def ask(service: Service, caller: Caller, text: str, **prompt: Any) -> Followed:
    """One turn, to its end or to a question."""
    followed = (await service.turns.ask(caller, Prompt(text=text, **prompt))).followed
    async for _ in followed.events(wait=60):
        pass
    return followed


async def sessions_of(service: Service, caller: Caller, **where: Any) -> list[str]:
    return [session.session_id for session in (await service.sessions.list_sessions(caller, **where)).sessions]


async def test_two_subjects_use_the_same_ids_and_never_meet(service: Service, data_dir: Path) -> None:
    shared = SessionId("notes")
    for caller, name in ((ALICE, "Alice"), (BOB, "Bob")):
        await service.agents.create(caller, AgentDraft(name="Helper", system_prompt=f"You help {name}."))
        said = await ask(service, caller, f"My name is {name}", session_id=shared, agent_id="helper")
        assert said.reply().new_session
    for caller, name in ((ALICE, "Alice"), (BOB, "Bob")):
        reply = (await ask(service, caller, "What's my name?", session_id=shared)).reply()
        assert name in reply.response
        assert reply.actor_id == name.lower()
        assert f"You help {name}." in await service.agents.markdown(caller, AgentId("helper"))
    assert await sessions_of(service, CALLER) == []
    assert not [path for path in made(data_dir) if path.endswith((".json", ".md")) and not path.startswith("subjects/")]


async def test_what_is_another_subjects_is_not_found(service: Service) -> None:
    reply = (await ask(service, ALICE, "My name is Alice")).reply()
    with pytest.raises(SessionNotFound):
        await service.sessions.get(BOB, reply.session_id)
    with pytest.raises(SessionNotFound):
        await ask(service, BOB, "What's my name?", session_id=reply.session_id)
    with pytest.raises(TurnNotFound):
        await service.turns.follow(BOB, turn_id=reply.turn_id)
    with pytest.raises(SessionNotFound):
        await service.turns.delete_session(BOB, reply.session_id)
    assert await sessions_of(service, BOB, query="Alice") == []
    assert await sessions_of(service, ALICE, query="Alice") == [reply.session_id]


async def test_a_subject_lies_in_a_directory_that_no_name_can_choose(service: Service, data_dir: Path) -> None:
    for subject in ("../../outside", "a/b", "CON", "https://issuer.example#user"):
        caller = Caller(subject=subject, act_as=())
        await ask(service, caller, "My name is Eve")
    roots = sorted((data_dir / "subjects").iterdir())
    assert len(roots) == 4
    assert all(len(root.name) == 32 and root.name.isalnum() for root in roots)
    names = {(root / "subject").read_text("utf-8") for root in roots}
    assert "../../outside" in names
    assert not (data_dir.parent / "outside").exists()


async def test_an_actor_that_is_not_covered_is_forbidden_and_nothing_is_made(service: Service, data_dir: Path) -> None:
    attempts: list[Callable[[], Any]] = [
        lambda: ask(service, BACKEND, "My name is Eve", actor_id=ActorId("other")),
        lambda: service.sessions.start(BACKEND, actor_id=ActorId("acme")),  # itself: allowed, the proof that it works
        lambda: service.sessions.start(BACKEND, actor_id=ActorId("acm")),
        lambda: service.sessions.list_sessions(ONE, actor_id=ActorId("acme:two")),
    ]
    refusals: list[str] = []
    for attempt in attempts:
        try:
            await attempt()
        except Forbidden as error:
            refusals.append(error.message)
    assert len(refusals) == 3
    assert all("nothing was done" in text for text in refusals)
    assert await sessions_of(service, BACKEND) == await sessions_of(service, BACKEND, actor_id=ActorId("acme"))


async def test_a_caller_reaches_only_sessions_of_actors_that_it_may_act_for(service: Service) -> None:
    two = (await ask(service, BACKEND, "My name is Zoe", actor_id=ActorId("acme:two"))).reply()
    one = (await ask(service, BACKEND, "My name is Max", actor_id=ActorId("acme:one"))).reply()
    assert await sessions_of(service, BACKEND) == [one.session_id, two.session_id]
    assert await sessions_of(service, ONE) == [one.session_id]
    assert await sessions_of(service, ONE, query="name") == [one.session_id]
    assert "Max" in (await ask(service, ONE, "What's my name?", session_id=one.session_id)).reply().response

    hidden = two.session_id
    attempts: list[tuple[type[AgentMcpError], Callable[[], Any]]] = [
        (SessionNotFound, lambda: service.sessions.get(ONE, hidden)),
        (SessionNotFound, lambda: service.sessions.read(ONE, hidden)),
        (SessionNotFound, lambda: service.sessions.markdown(ONE, hidden)),
        (SessionNotFound, lambda: service.sessions.update(ONE, hidden, title="Mine")),
        (SessionNotFound, lambda: service.sessions.start(ONE, continue_from=hidden)),
        (SessionNotFound, lambda: ask(service, ONE, "What's my name?", session_id=hidden)),
        (SessionNotFound, lambda: service.turns.delete_session(ONE, hidden)),
        (SessionNotFound, lambda: service.turns.follow(ONE, session_id=hidden)),
        (TurnNotFound, lambda: service.turns.follow(ONE, turn_id=two.turn_id)),
        (TurnNotFound, lambda: service.turns.cancel(ONE, turn_id=two.turn_id)),
    ]
    for kind, attempt in attempts:
        with pytest.raises(kind):
            await attempt()
    assert [turn.session_id for turn in await service.turns.list_turns(ONE)] == [one.session_id] * 2
    assert "Zoe" in (await ask(service, BACKEND, "What's my name?", session_id=hidden)).reply().response


async def test_a_damaged_session_is_there_only_for_who_may_act_for_all(service: Service, data_dir: Path) -> None:
    hidden = (await ask(service, BACKEND, "My name is Zoe", actor_id=ActorId("acme:two"))).reply().session_id
    damage(data_dir, hidden)
    for caller in (ONE, BACKEND):  # whose it is can't be told
        with pytest.raises(SessionNotFound):
            await service.sessions.get(caller, hidden)
    with pytest.raises(SessionDamaged):
        await service.sessions.get(Caller(subject="acme"), hidden)


async def test_an_own_id_that_another_actor_of_the_subject_uses_is_refused(service: Service) -> None:
    notes = SessionId("notes")
    await ask(service, BACKEND, "My name is Zoe", session_id=notes, agent_id="assistant", actor_id=ActorId("acme:two"))
    with pytest.raises(SessionExists):
        await ask(service, ONE, "What's my name?", session_id=notes, agent_id="assistant")


async def test_more_subjects_than_are_kept_open_all_remember(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores_module, "MAX_OPEN", 2)
    async with running(data_dir) as service:
        callers = [Caller(subject=f"subject-{number}", act_as=()) for number in range(5)]
        first = [(await ask(service, caller, f"My name is Nr{n}")).reply() for n, caller in enumerate(callers)]
        for number, (caller, reply) in enumerate(zip(callers, first, strict=True)):
            again = await ask(service, caller, "What's my name?", session_id=reply.session_id)
            assert f"Nr{number}" in again.reply().response
            assert await sessions_of(service, caller, query=f"Nr{number}") == [reply.session_id]


def damage(data_dir: Path, session_id: str) -> None:
    [metadata] = data_dir.glob(f"subjects/*/session_{session_id}/metadata.json")
    metadata.write_text("{")


def make_unfinished(data_dir: Path, turn_id: str) -> None:
    """Writes a turn's record as a server leaves it that is killed before the end."""
    path = next(data_dir.glob(f"subjects/*/turns/{turn_id}.json"))
    record = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**record, "status": "working", "process": "0" * 16, "response": ""}), "utf-8")


async def test_a_turn_of_a_dead_server_is_ended_in_its_subjects_store(service: Service, data_dir: Path) -> None:
    reply = (await ask(service, ALICE, "My name is Alice")).reply()
    make_unfinished(data_dir, reply.turn_id)
    followed = await service.turns.follow(ALICE, turn_id=TurnId(reply.turn_id))
    async for _ in followed.events(wait=60):
        pass
    assert followed.reply().status == "completed"
    assert "Alice" in followed.reply().response


async def test_the_operator_decides_in_a_shell_for_the_subject_that_the_question_names(data_dir: Path) -> None:
    settings = {"AGENT_MCP_ALLOW_TOOLS": "shell"}
    async with running(data_dir, allow_tools=("shell",)) as service:
        await service.agents.create(ALICE, AgentDraft(name="Worker", tools=("shell",)))
        reply = (await ask(service, ALICE, order("shell", command="echo hello"), agent_id="worker")).reply()
    assert reply.status == "input_required"
    assert reply.question is not None
    assert f"`agent-mcp turns approve {reply.turn_id} --subject alice`" in reply.question

    alone = await shell(data_dir, "turns", "show", reply.turn_id, env=settings)
    assert "[turn_not_found]" in alone.err
    done = await shell(data_dir, "turns", "approve", reply.turn_id, "--subject", "alice", "--json", env=settings)
    assert done.json["status"] == "completed"
    assert "hello" in done.json["response"]
    listed = await shell(data_dir, "sessions", "list", "--subject", "alice", "--json")
    assert [session["session_id"] for session in listed.json] == [reply.session_id]


async def test_more_turns_at_once_than_a_subject_may_have_are_refused(service: Service) -> None:
    notes = SessionId("notes")
    limited = replace(ALICE, max_turns=1)
    await ask(service, limited, "My name is Alice", session_id=notes, agent_id="assistant")
    lock = service.store(ALICE).session_lock(notes)
    await lock.acquire()
    try:
        waiting = (await service.turns.ask(limited, Prompt(text="What's my name?", session_id=notes))).followed
        with pytest.raises(RateLimited, match="1 turns of yours"):
            await ask(service, limited, "Hello")
        await ask(service, replace(BOB, max_turns=1), "Hello")
    finally:
        await lock.release()
    async for _ in waiting.events(wait=60):
        pass
    assert "Alice" in waiting.reply().response
    await ask(service, limited, "Hello")


async def test_a_subjects_memory_is_opened_once_whoever_of_it_asks(service: Service, data_dir: Path) -> None:
    for number in range(20):
        await service.memories.remember(BACKEND, text=f"Fact {number}.", actor_id=ActorId(f"acme:{number}"))
        assert not (await service.memories.recall(ONE, "fact")).memories
    assert times_open(data_dir, "memory.db") <= 1


def times_open(data_dir: Path, name: str) -> int:
    """How often this process has files of this name open below a data directory; 0 where a system does not tell."""
    links = Path("/proc/self/fd")
    files = [os.path.realpath(link) for link in links.iterdir() if link.exists()] if links.is_dir() else []
    return sum(file.startswith(f"{data_dir}/") and file.endswith(f"/{name}") for file in files)


async def test_more_subjects_memories_than_are_kept_open_all_remember(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room_module, "_MAX_OPEN", 2)
    async with running(data_dir) as service:
        callers = [Caller(subject=f"subject-{number}", act_as=()) for number in range(5)]
        for _ in range(2):
            for number, caller in enumerate(callers):
                await service.memories.remember(caller, text=f"My number is {number}.")
        for number, caller in enumerate(callers):
            [memory] = (await service.memories.recall(caller, "number")).memories
            assert memory.text == f"My number is {number}."


async def test_a_turn_teaches_its_actor_though_what_another_actor_said_is_being_learnt(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One queue for the subject: whoever works it off knows the turns of all its actors."""
    gate, two = Gate(), ActorId("acme:two")

    def script(received: Received) -> Answer:
        if LEARNING_MARKER not in received.system:
            return say("Noted.")
        return say("- Lives in Lisbon") if "Lisbon" in received.last_text else Answer([Text("NONE")], before=[gate])

    with BedrockServer(script) as bedrock:
        for name, value in bedrock.env.items():
            monkeypatch.setenv(name, value)
        async with running(data_dir, model=MODEL, environ=bedrock.env) as service:
            await service.agents.create(BACKEND, AgentDraft(name="Keen", memory="auto"))
            await ask(service, ONE, "Hello", agent_id="keen")
            await reached(gate)
            await ask(service, BACKEND, "I live in Lisbon.", agent_id="keen", actor_id=two)
            gate.release()
            await service.memories.settled(DEADLINE)
            found = (await service.memories.recall(BACKEND, "Lisbon", actor_id=two)).memories
    assert [memory.text for memory in found] == ["Lives in Lisbon"]


async def test_own_ids_of_two_subjects_do_not_meet_on_the_machine_where_code_runs(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program ssh stands for the other machine: its home is a directory here."""
    home, program = tmp_path / "home", tmp_path / "bin" / "ssh"
    home.mkdir()
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nfor last; do :; done\ncd {home} && exec sh -c "$last"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    seen: list[str] = []
    async with running(data_dir, allow_tools=("shell",), approve=("shell",), sandbox="ssh:elsewhere") as service:
        for caller in (ALICE, BOB):
            await service.agents.create(caller, AgentDraft(name="Worker", tools=("shell",)))
            for _ in range(2):
                command = order("shell", command=f"echo {caller.subject} >> who; cat who")
                await ask(service, caller, command, session_id=SessionId("notes"), agent_id="worker")
            page = await service.sessions.read(caller, SessionId("notes"))
            seen.append([message.text for message in page.messages if message.role == "tool"][-1])
    assert (seen[0].count("alice"), seen[0].count("bob")) == (2, 0)
    assert (seen[1].count("alice"), seen[1].count("bob")) == (0, 2)


async def test_a_subject_that_has_nothing_is_named_and_not_made(service: Service, data_dir: Path) -> None:
    await ask(service, ALICE, "My name is Alice")
    with pytest.raises(InvalidArgument, match=r"'alcie'.*alice"):
        await service.check_subject(Caller(subject="alcie"))
    assert len(list((data_dir / "subjects").iterdir())) == 1


async def test_on_stdio_the_local_subject_is_the_directory_itself(data_dir: Path) -> None:
    async with connect(data_dir) as client:
        reply = await call(client, "ask_agent", prompt="My name is John", actor_id="anybody")
    assert (data_dir / f"session_{reply['session_id']}").is_dir()
    assert not (data_dir / "subjects").exists()
