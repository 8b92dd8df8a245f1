"""A session belongs to whoever opens its directory: agent-mcp and plain Strands programs go on with each other's.

The plain program is what the documentation of Strands shows: an Agent with a FileSessionManager and nothing else.
"""

import json
from pathlib import Path

from strands import Agent
from strands.session.file_session_manager import FileSessionManager
from strands.types.content import Messages

from agent_mcp.domain import SessionId
from agent_mcp.offline import OfflineModel
from agent_mcp.service import AgentDraft
from conftest import call, connect
from in_process import CALLER, ask, running


def plain_program(data_dir: Path, session_id: str, agent_id: str, *, model: str = "basic") -> Agent:
    return Agent(
        model=OfflineModel(model),
        agent_id=agent_id,
        session_manager=FileSessionManager(session_id, storage_dir=str(data_dir)),
        callback_handler=None,
    )


def texts(messages: Messages) -> list[str]:
    return ["".join(block.get("text", f"<{next(iter(block))}>") for block in m["content"]) for m in messages]


def strands_files(data_dir: Path) -> dict[str, bytes]:
    """The files that belong to Strands, with what they hold."""
    found = [*data_dir.glob("session_*/session.json"), *data_dir.glob("session_*/agents/**/*.json")]
    return {str(path.relative_to(data_dir)): path.read_bytes() for path in found}


def remove(path: Path) -> None:
    path.unlink()


def removed(data_dir: Path, session_id: str) -> int:
    (path,) = data_dir.glob(f"session_{session_id}/agents/*/agent.json")
    return json.loads(path.read_text())["conversation_manager_state"]["removed_message_count"]


async def test_a_plain_strands_program_goes_on_with_a_session_and_agent_mcp_with_its_turn(data_dir: Path) -> None:
    async with connect(data_dir) as client:
        told = await call(client, "ask_agent", prompt="My name is John")
        session, agent = told["session_id"], told["agent_id"]

        program = plain_program(data_dir, session, agent)
        assert texts(program.messages)[0] == "My name is John"
        assert "John" in str(program("What's my name?"))
        program("I live in Lisbon")

        # The same server goes on, with nothing of its own in between.
        asked = await call(client, "ask_agent", prompt="Where do I live, and what's my name?", session_id=session)
        transcript = await call(client, "read_transcript", session_id=session)
        found = await call(client, "list_sessions", query="Lisbon")
    assert "Lisbon" in asked["response"]
    assert "John" in asked["response"]
    prompts = [m["text"] for m in transcript["messages"] if m["role"] == "user"]
    assert prompts == [
        "My name is John",
        "What's my name?",
        "I live in Lisbon",
        "Where do I live, and what's my name?",
    ]
    assert [s["session_id"] for s in found["sessions"]] == [session]
    assert "John" in str(plain_program(data_dir, session, agent)("What's my name?"))


async def test_a_session_that_only_a_plain_program_made_is_listed_asked_in_and_continued(data_dir: Path) -> None:
    program = plain_program(data_dir, "from-outside", "butler")
    program("\n  My name is Ann\nand that is all")
    program("The weather is fine")
    async with running(data_dir) as service:
        await service.agents.create(CALLER, AgentDraft(name="Butler"))
        (listed,) = (await service.sessions.list_sessions(CALLER)).sessions
        (found,) = (await service.sessions.list_sessions(CALLER, query="weather")).sessions
        reply = await ask(service, "What's my name?", "from-outside")
    assert (listed.session_id, listed.agent_id, listed.actor_id) == ("from-outside", "butler", "local")
    assert (listed.turns, listed.title, listed.status) == (2, "My name is Ann", "active")
    assert found.snippet is not None
    assert "Ann" in reply.response
    assert not reply.new_session
    again = plain_program(data_dir, "from-outside", "butler")
    assert texts(again.messages)[-2] == "What's my name?"


async def test_a_session_made_outside_while_the_server_runs_is_listed_and_found_too(data_dir: Path) -> None:
    async with running(data_dir) as service:
        await ask(service, "Hello")
        assert len((await service.sessions.list_sessions(CALLER)).sessions) == 1
        plain_program(data_dir, "from-outside", "assistant")("The code word is zeppelin")
        listed = (await service.sessions.list_sessions(CALLER)).sessions
        found = (await service.sessions.list_sessions(CALLER, query="zeppelin")).sessions
    assert "from-outside" in [session.session_id for session in listed]
    assert [session.session_id for session in found] == ["from-outside"]


async def test_a_turn_that_a_plain_program_added_is_found_by_search(data_dir: Path) -> None:
    async with running(data_dir) as service:
        session = (await ask(service, "Hello")).session_id
        plain_program(data_dir, session, "assistant")("The code word is zeppelin")
        found = (await service.sessions.list_sessions(CALLER, query="zeppelin")).sessions
    assert [s.session_id for s in found] == [session]


async def test_an_agent_that_only_the_session_knows_can_be_read_and_says_what_is_missing(data_dir: Path) -> None:
    plain_program(data_dir, "from-outside", "butler")("My name is Ann")
    async with connect(data_dir) as client:
        transcript = await call(client, "read_transcript", session_id="from-outside")
        refusal = await client.call_tool("ask_agent", {"prompt": "Hello", "session_id": "from-outside"})
    assert transcript["messages"][0]["text"] == "My name is Ann"
    assert "There is no agent 'butler'" in str(refusal.content)


async def test_after_a_summary_a_plain_program_opens_the_session_validly_and_back_again(data_dir: Path) -> None:
    async with running(data_dir, model="offline:small") as service:
        session = (await ask(service, "My name is John")).session_id
        for n in range(25):
            await ask(service, f"Tell me about the number {n}, at some length if you please.", session)
    before = removed(data_dir, session)
    assert before > 10

    program = plain_program(data_dir, session, "assistant")  # its model refuses an invalid history
    assert program.messages[0]["role"] == "user"
    assert texts(program.messages)[0].startswith("Tell me about the number")
    program("I live in Lisbon")
    assert texts(program.messages)[-2] == "I live in Lisbon"

    async with running(data_dir, model="offline:small") as service:
        reply = await ask(service, "Where do I live, and what's my name?", session)
        total = (await service.sessions.read(CALLER, session)).total
    assert "Lisbon" in reply.response
    assert "John" in reply.response  # what the summary of agent-mcp knew is not lost to the plain program's turn
    assert total == 2 * 28


async def test_what_a_plain_programs_sliding_window_left_out_is_seen_again(data_dir: Path) -> None:
    async with running(data_dir) as service:
        session = (await ask(service, "My name is John")).session_id
        for n in range(23):
            await ask(service, f"number {n}", session)
    program = plain_program(data_dir, session, "assistant")
    program("and one")
    assert "don't know your name" in str(program("What's my name?"))  # Strands' default: the last 40 messages
    assert removed(data_dir, session) > 0
    async with running(data_dir) as service:
        reply = await ask(service, "What's my name?", session)
    assert "John" in reply.response
    assert removed(data_dir, session) == 0


async def test_a_long_session_of_a_plain_program_fits_a_small_window_at_once(data_dir: Path) -> None:
    program = plain_program(data_dir, "long", "assistant")
    program("My name is Ann")
    for n in range(40):
        program(f"Tell me about the number {n}, at some length if you please.")
    async with running(data_dir, model="offline:small") as service:
        reply = await ask(service, "What's my name?", "long")
    assert "Ann" in reply.response
    assert removed(data_dir, "long") > 40


async def test_files_of_strands_stay_as_they_are_unless_a_turn_runs(data_dir: Path) -> None:
    async with running(data_dir) as service:
        session = (await ask(service, "My name is John")).session_id
    plain_program(data_dir, "from-outside", "assistant")("My name is Ann")
    before = strands_files(data_dir)
    remove(data_dir / "catalog.db")
    async with running(data_dir) as service:
        await service.sessions.list_sessions(CALLER, query="name")
        await service.sessions.read(CALLER, session)
        await service.sessions.markdown(CALLER, SessionId("from-outside"))
        await service.sessions.json(CALLER, SessionId("from-outside"))
        assert strands_files(data_dir) == before
        await ask(service, "What's my name?", session)
    after = strands_files(data_dir)
    changed = {name for name in after if after[name] != before.get(name)}
    messages = f"session_{session}/agents/agent_assistant/messages"
    assert changed == {
        f"session_{session}/agents/agent_assistant/agent.json",
        f"{messages}/message_2.json",
        f"{messages}/message_3.json",
    }
