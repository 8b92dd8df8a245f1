"""`agent-mcp sessions repair`: damaged files are set aside, never deleted, and the session can be asked again."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent_mcp.cli import cli
from agent_mcp.domain import SessionId
from agent_mcp.errors import SessionDamaged, SessionNotFound
from agent_mcp.offline import check_history
from agent_mcp.service import AgentDraft
from in_process import CALLER, ask, running
from test_history_damage import CASES, MESSAGE, Damage, a_link, contents, cut_in_half, holding, missing


def everything(data_dir: Path) -> set[bytes]:
    return {path.read_bytes() for path in data_dir.rglob("*") if path.is_file()}


def directories(data_dir: Path) -> set[Path]:
    return {path for path in data_dir.rglob("*") if path.is_dir()}


async def command(data_dir: Path, *words: str) -> Result:
    """Runs `agent-mcp` with these words."""
    env = {"AGENT_MCP_DATA_DIR": str(data_dir), "AGENT_MCP_MODEL": "offline"}
    return await asyncio.to_thread(CliRunner().invoke, cli, words, env=env)


def messages_of(data_dir: Path, session: str) -> list[str]:
    directory = data_dir / f"session_{session}/agents/agent_assistant/messages"
    names = [f"message_{n}.json" for n in range(len(list(directory.glob("message_*.json"))))]
    messages = [json.loads((directory / name).read_bytes())["message"] for name in names]
    check_history([*messages, {"role": "user", "content": [{"text": "And now?"}]}])
    return [message["content"][0].get("text", "") for message in messages]


@pytest.mark.parametrize(
    ("file", "damage"), [(f, d) for f, _, d in CASES], ids=[f"{Path(f).name}-{name}" for f, name, _ in CASES]
)
async def test_a_repaired_session_goes_on_and_what_was_damaged_is_kept(
    data_dir: Path, file: str, damage: Damage
) -> None:
    async with running(data_dir) as service:
        session = (await ask(service, "My name is John")).session_id
        await ask(service, "I live in Lisbon", session)
        path = data_dir / f"session_{session}" / file
        whole = path.read_bytes()
        damage(path)
        with pytest.raises(SessionDamaged, match=f"`agent-mcp sessions repair {session}`"):
            await ask(service, "What's my name?", session)
        before = contents(data_dir, session)
        done = await service.turns.repair_session(CALLER, session)
        # Every byte that was there is there still: in its place, or where it was set aside.
        assert set(before.values()) <= everything(data_dir)
        assert bool(done.set_aside) == (data_dir / "damaged" / session in directories(data_dir))
        assert "Lisbon" in (await ask(service, "Where do I live?", session)).response
        if not file.endswith(MESSAGE) or "John" not in whole.decode():
            assert "John" in (await ask(service, "What's my name?", session)).response
        (listed,) = (await service.sessions.list_sessions(CALLER, status="active")).sessions
        assert listed.session_id == session
        again = await service.turns.repair_session(CALLER, session)
        assert (again.set_aside, again.restored) == ((), ()), messages_of(data_dir, session)
    messages_of(data_dir, session)


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("damage", [cut_in_half, missing])
async def test_a_lost_message_of_a_tools_exchange_is_replaced_by_what_a_model_accepts(
    data_dir: Path, index: int, damage: Damage
) -> None:
    async with running(data_dir) as service:
        await service.agents.create(CALLER, AgentDraft(name="Counter", tools=("calculator",)))
        session = (await ask(service, "My name is John", agent="counter")).session_id
        await ask(service, 'Use the tool calculator with {"expression": "6 * 7"}', session)
        await ask(service, "I live in Lisbon", session)
        damage(data_dir / f"session_{session}/agents/agent_counter/messages/message_{2 + index}.json")
        done = await service.turns.repair_session(CALLER, session)
        assert len(done.set_aside) >= (damage is cut_in_half)
        reply = await ask(service, "What's my name?", session)  # the offline model checks what it is sent
        assert "John" in reply.response
        text = await service.sessions.markdown(CALLER, session)
    assert "lost" in text


async def test_metadata_keeps_what_can_still_be_read_of_it(data_dir: Path) -> None:
    async with running(data_dir) as service:
        session = (await ask(service, "My name is John")).session_id
        path = data_dir / f"session_{session}" / "metadata.json"
        told = json.loads(path.read_text())
        path.write_text(json.dumps({**told, "title": "Mine", "actor_id": "ann", "turns": "many", "session_id": "x"}))
        await service.turns.repair_session(CALLER, session)
        info = await service.sessions.get(CALLER, session)
    assert (info.title, info.actor_id, info.turns) == ("Mine", "ann", 0)


async def test_what_stands_in_a_sessions_place_is_listed_as_damaged_and_set_aside(data_dir: Path) -> None:
    async with running(data_dir) as service:
        other = (await ask(service, "My name is John")).session_id
        elsewhere = data_dir.with_name("elsewhere")
        elsewhere.mkdir()
        (data_dir / "session_linked").symlink_to(elsewhere)
        (data_dir / "session_file").write_text("no session")
        listed = {s.session_id: s.status for s in (await service.sessions.list_sessions(CALLER)).sessions}
        assert listed == {other: "active", "linked": "damaged", "file": "damaged"}
        for name in ("linked", "file"):
            with pytest.raises(SessionDamaged, match=f"session_{name} is missing or damaged"):
                await ask(service, "Hi", name, agent="assistant")
            await service.turns.repair_session(CALLER, SessionId(name))
            with pytest.raises(SessionNotFound):
                await service.turns.repair_session(CALLER, SessionId(name))
            assert (await ask(service, "Hi", name, agent="assistant")).new_session
        assert list(elsewhere.iterdir()) == []
        assert (data_dir / "damaged/linked/0/session_linked").is_symlink()
        (data_dir / "session_gone").symlink_to(elsewhere)
        await service.turns.delete_session(CALLER, SessionId("gone"))
        assert elsewhere.is_dir()


async def test_the_shell_repairs_and_says_what_it_did_and_a_deleted_session_takes_that_along(data_dir: Path) -> None:
    async with running(data_dir) as service:
        session = (await ask(service, "My name is John")).session_id
    holding(b"{}")(data_dir / f"session_{session}" / MESSAGE)
    a_link(data_dir / f"session_{session}" / "session.json")
    done = await command(data_dir, "sessions", "repair", session)
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"set aside: session_{session}/{MESSAGE} -> damaged/{session}/0/session_{session}/{MESSAGE}" in done.stdout
    assert f"restored: session_{session}/session.json" in done.stdout
    assert messages_of(data_dir, session) == ["My name is John", "[This message was lost: its file was damaged.]"]
    again = await command(data_dir, "sessions", "repair", session)
    assert again.stdout == f"nothing in {session} is damaged\n"
    async with running(data_dir) as service:
        await service.turns.delete_session(CALLER, session)
    assert not (data_dir / "damaged" / session).exists()
    unknown = await command(data_dir, "sessions", "repair", "nobodys")
    assert (unknown.exit_code, unknown.stderr.endswith("[session_not_found]\n")) == (1, True)
