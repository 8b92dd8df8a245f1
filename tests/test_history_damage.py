"""One damaged file makes one session unusable, says which file it is, and costs nothing else."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_mcp.domain import SessionId
from agent_mcp.errors import SessionDamaged
from agent_mcp.service import Service
from agent_mcp.settle import INTERRUPTED
from in_process import CALLER, ask, running

Damage = Callable[[Path], None]
MESSAGE = "agents/agent_assistant/messages/message_1.json"
AGENT = "agents/agent_assistant/agent.json"


def with_field(name: str, value: object) -> Damage:
    """Replaces one field (`a.b`: within another one) of a JSON file."""

    def damage(path: Path) -> None:
        whole = json.loads(path.read_text())
        *parents, last = name.split(".")
        part = whole
        for parent in parents:
            part = part[int(parent) if isinstance(part, list) else parent]
        part[int(last) if isinstance(part, list) else last] = value
        path.write_text(json.dumps(whole))

    return damage


def holding(content: bytes) -> Damage:
    def damage(path: Path) -> None:
        path.write_bytes(content)

    return damage


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def missing(path: Path) -> None:
    path.unlink()


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def oddly_named(path: Path) -> None:
    path.rename(path.with_name("message_x.json"))


ANY_FILE: dict[str, Damage] = {
    "cut in half": cut_in_half,
    "empty": holding(b""),
    "no object": holding(b"[1]"),
    "not UTF-8": holding(b'{"a": "\xff\xfe"}'),
    "deep": holding(b"[" * 100_000),
    "missing": missing,
    "a directory": a_directory,
    "a link": a_link,
}
BLOCKS = (
    '{"text": 5}',
    '{"toolUse": null}',
    '{"toolUse": {"toolUseId": "t-1", "input": {}}}',
    '{"toolUse": {"toolUseId": {}, "name": "calculator", "input": {}}}',
    '{"toolResult": {"content": []}}',
    '{"toolResult": {"toolUseId": "t-1", "content": null}}',
    '{"toolResult": {"toolUseId": "t-1", "content": [5]}}',
    '{"citationsContent": {"content": [{"text": 5}]}}',
)
"""What is no block of a message, though it looks like one."""
CASES: list[tuple[str, str, Damage]] = [
    # A last message that is missing looks like a turn that was cut off, and is settled as one.
    *((MESSAGE, name, damage) for name, damage in ANY_FILE.items() if name != "missing"),
    (MESSAGE, "an empty object", holding(b"{}")),
    (MESSAGE, "without content", with_field("message", {"role": "user"})),
    (MESSAGE, "content no list", with_field("message.content", "text")),
    (MESSAGE, "content of texts", with_field("message.content", ["text"])),
    *((MESSAGE, f"holding {block}", with_field("message.content", [json.loads(block)])) for block in BLOCKS),
    (MESSAGE, "a block of nothing", with_field("message.content.0", {})),
    (MESSAGE, "a role of its own", with_field("message.role", "system")),
    (MESSAGE, "another's number", with_field("message_id", 7)),
    (MESSAGE, "oddly named", oddly_named),
    *((AGENT, name, damage) for name, damage in ANY_FILE.items()),
    (AGENT, "an empty object", holding(b"{}")),
    (AGENT, "without state", with_field("conversation_manager_state", None)),
    (AGENT, "a count that is none", with_field("conversation_manager_state.removed_message_count", "2")),
    (AGENT, "a summary that is none", with_field("conversation_manager_state.agent_mcp", 5)),
    (AGENT, "no state of its own", with_field("state", 5)),
    (AGENT, "no state within", with_field("_internal_state", None)),
    (AGENT, "interrupts that are none", with_field("_internal_state.interrupt_state", 5)),
    (AGENT, "another manager", with_field("conversation_manager_state", {"__name__": "X"})),
    *(("session.json", name, damage) for name, damage in ANY_FILE.items()),
    ("session.json", "an empty object", holding(b"{}")),
    ("session.json", "nothing known", holding(b'{"a": 1}')),
    *(("metadata.json", name, damage) for name, damage in ANY_FILE.items() if name not in ("missing", "a link")),
    ("metadata.json", "an empty object", holding(b"{}")),
]


def contents(data_dir: Path, session: str) -> dict[str, bytes]:
    found = [p for p in (data_dir / f"session_{session}").rglob("*") if p.is_file()]
    return {str(path.relative_to(data_dir)): path.read_bytes() for path in found}


async def error_of(service: Service, session: str, *, reading: bool) -> str:
    use = service.sessions.read(CALLER, SessionId(session)) if reading else ask(service, "What's my name?", session)
    with pytest.raises(SessionDamaged) as caught:
        await use
    return str(caught.value)


async def statuses(service: Service) -> dict[str, str]:
    """How each session is listed."""
    return {s.session_id: s.status for s in (await service.sessions.list_sessions(CALLER)).sessions}


@pytest.mark.parametrize(
    ("file", "damage"), [(f, d) for f, _, d in CASES], ids=[f"{Path(f).name}-{name}" for f, name, _ in CASES]
)
async def test_a_damaged_file_is_named_and_nothing_is_overwritten(data_dir: Path, file: str, damage: Damage) -> None:
    async with running(data_dir) as service:
        session = (await ask(service, "My name is John")).session_id
        other = (await ask(service, "My name is Ann")).session_id
        path = data_dir / f"session_{session}" / file
        damage(path)
        before = contents(data_dir, session)

        error = await error_of(service, session, reading=False)
        named = "message_x.json" if damage is oddly_named else Path(file).name
        assert f"{Path(file).parent.name or f'session_{session}'}/{named}" in error
        assert "other sessions are not affected" in error
        if path.name.startswith("message"):
            assert await error_of(service, session, reading=True) == error
        assert await statuses(service) == {session: "damaged", other: "active"}
        assert contents(data_dir, session) == before
        assert "Ann" in (await ask(service, "What's my name?", other)).response
    async with running(data_dir) as service:  # and again after a restart, which fills the catalog
        assert await error_of(service, session, reading=False) == error
        assert await statuses(service) == {session: "damaged", other: "active"}
        assert contents(data_dir, session) == before
        assert "Ann" in (await ask(service, "What's my name?", other)).response


DIRECTORIES = [
    ("agents", "a link"),
    ("agents", "a file"),
    ("agents/agent_assistant/messages", "a link"),
    ("agents/agent_assistant/messages", "a file"),
    ("agents/agent_assistant/messages", "missing"),
]


@pytest.mark.parametrize(("name", "damage"), DIRECTORIES)
async def test_a_damaged_directory_is_named_listed_and_repaired(data_dir: Path, name: str, damage: str) -> None:
    async with running(data_dir) as service:
        session = (await ask(service, "My name is John")).session_id
        other = (await ask(service, "My name is Ann")).session_id
        path = data_dir / f"session_{session}" / name
        elsewhere = data_dir.with_name("elsewhere")
        path.rename(elsewhere)
        if damage == "a link":
            path.symlink_to(elsewhere)
        elif damage == "a file":
            path.write_text("no directory")
        before = sorted(elsewhere.rglob("*"))
        error = await error_of(service, session, reading=False)
        assert "is missing or damaged" in error
        assert await statuses(service) == {session: "damaged", other: "active"}
        assert sorted(elsewhere.rglob("*")) == before
        await service.turns.repair_session(CALLER, session)
        assert await statuses(service) == {session: "active", other: "active"}
        assert "Lisbon" in (await ask(service, "I live in Lisbon", session)).response
        assert sorted(elsewhere.rglob("*")) == before


def a_loop(path: Path) -> None:
    path.symlink_to(path.name)


NO_RECORDS: dict[str, Damage] = {"a directory": Path.mkdir, "a loop": a_loop, "not UTF-8": holding(b"\xff")}


@pytest.mark.parametrize("kind", NO_RECORDS)
async def test_what_is_no_record_among_the_turns_hides_nothing_and_stops_no_server(data_dir: Path, kind: str) -> None:
    async with running(data_dir) as service:
        session = (await ask(service, "My name is John")).session_id
        for name in (f"t-{'ab' * 16}.json", "backup", ".write_x"):
            path = data_dir / "turns" / name
            NO_RECORDS[kind](path)
            os.utime(path, (1, 1), follow_symlinks=False)  # so old that a record of then would be removed
        turns = await service.turns.list_turns(CALLER)
        assert await statuses(service) == {session: "active"}
    missing(data_dir / "catalog.db")
    async with running(data_dir) as service:
        assert await statuses(service) == {session: "active"}
        assert await service.turns.list_turns(CALLER) == turns
        assert (await service.turns.follow(CALLER, session_id=session)).turn_id == turns[0].turn_id
        assert "John" in (await ask(service, "What's my name?", session)).response


async def test_a_killed_turn_whose_text_was_half_written_does_not_stop_its_session(data_dir: Path) -> None:
    async with running(data_dir) as service:
        reply = await ask(service, "My name is John")
    record = data_dir / "turns" / f"{reply.turn_id}.json"
    with_field("status", "working")(record)
    missing(data_dir / f"session_{reply.session_id}" / MESSAGE)
    record.with_suffix(".partial").write_bytes(b"Hello \xff\0\0")
    async with running(data_dir) as service:
        assert "John" in (await ask(service, "What's my name?", reply.session_id)).response
        kept = (await service.sessions.read(CALLER, reply.session_id)).messages[1].text
    assert kept == f"Hello \ufffd\n\n{INTERRUPTED}"


async def test_a_lost_message_in_the_middle_is_named_and_not_written_over(data_dir: Path) -> None:
    async with running(data_dir) as service:
        session = (await ask(service, "one")).session_id
        for text in ("two", "three"):
            await ask(service, text, session)
        missing(data_dir / f"session_{session}" / MESSAGE)
        before = contents(data_dir, session)
        assert "messages/message_1.json" in await error_of(service, session, reading=False)
        assert "messages/message_1.json" in await error_of(service, session, reading=True)
        assert contents(data_dir, session) == before


async def test_a_damaged_session_is_listed_as_damaged_and_found_by_that_status(data_dir: Path) -> None:
    async with running(data_dir) as service:
        session = (await ask(service, "My name is John")).session_id
        await ask(service, "My name is Ann")
    cut_in_half(data_dir / f"session_{session}" / MESSAGE)
    missing(data_dir / "catalog.db")
    async with running(data_dir) as service:
        (found,) = (await service.sessions.list_sessions(CALLER, status="damaged")).sessions
        (intact,) = (await service.sessions.list_sessions(CALLER, status="active")).sessions
    assert (found.session_id, found.status) == (session, "damaged")
    assert intact.session_id != session


async def test_once_the_file_is_mended_the_session_goes_on(data_dir: Path) -> None:
    async with running(data_dir) as service:
        session = (await ask(service, "My name is John")).session_id
        path = data_dir / f"session_{session}" / MESSAGE
        whole = path.read_bytes()
        cut_in_half(path)
        await error_of(service, session, reading=False)
        path.write_bytes(whole)
        reply = await ask(service, "What's my name?", session)
    assert "John" in reply.response
    assert not re.search("damaged", str(reply))
