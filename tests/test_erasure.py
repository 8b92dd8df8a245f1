"""Erasing an actor: afterwards none of the words is in any file of the data directory, whoever else serves it."""

from pathlib import Path

import pytest

from agent_mcp.domain import LOCAL_SUBJECT, ActorId, Caller
from conftest import call, connect
from in_process import CALLER, running
from life import files_of, order, shell

SECRETS = ("Zanzibarfact", "Quagmireprompt", "Xylophonetitle", "Wombatnote")
KEPT = "Marmaladekept"


async def everywhere(data: Path) -> None:
    """Says the words in all the places that there are, for `anna`, and another one for `bert`."""
    async with connect(data) as client:
        await call(client, "create_agent", name="Keen", memory="auto", tools=["agent:helper"])
        await call(client, "remember", text=f"Likes {SECRETS[0]}", actor_id="anna")
        await call(client, "remember", text=f"Likes {KEPT}", actor_id="bert")
        session = await call(client, "start_session", agent_id="keen", actor_id="anna", title=SECRETS[2])
        prompt = f"{SECRETS[1]}. My pet is {SECRETS[0]}. " + order("remember", fact=f"Owns a {SECRETS[3]}")
        await call(client, "ask_agent", prompt=prompt, session_id=session["session_id"])
        await call(client, "ask_agent", prompt=f"I like {KEPT}", agent_id="keen", actor_id="bert")


@pytest.mark.parametrize("everything", [False, True])
async def test_after_an_erasure_no_byte_of_it_is_left_while_other_servers_run(tmp_path: Path, everything: bool) -> None:
    data = tmp_path / "data"
    async with running(data) as service:
        await everywhere_ready(data)
        async with connect(data) as client:
            # Another server has everything open, and its copies in memory.
            assert (await call(client, "recall", query=SECRETS[0], actor_id="anna"))["memories"]
            assert (await call(client, "list_sessions", query=SECRETS[1]))["sessions"]
            assert files_of(data, SECRETS[0])
            words = ["memory", "erase", "anna", "--yes", *(["--everything"] if everything else [])]
            done = await shell(data, *words, "--json")
            assert done.json["facts"] >= 2
            assert done.json["sessions"] == (1 if everything else 0)
            for word in SECRETS if everything else ():
                assert files_of(data, word) == []
            in_memory = [name for word in SECRETS for name in files_of(data, word) if name.startswith("memory.db")]
            assert in_memory == []
            assert not (await call(client, "recall", query=SECRETS[0], actor_id="anna"))["memories"]
            assert len((await call(client, "list_sessions", query=SECRETS[1]))["sessions"]) == (0 if everything else 1)
            assert (await call(client, "recall", query=KEPT, actor_id="bert"))["memories"]
            assert (await call(client, "list_sessions", query=KEPT))["sessions"]
            await call(client, "remember", text="Something new", actor_id="anna")
        assert (await service.memories.recall(CALLER, "something", actor_id=ActorId("anna"))).memories
        for word in SECRETS if everything else ():
            assert files_of(data, word) == []


async def everywhere_ready(data: Path) -> None:
    async with connect(data) as client:
        await call(client, "create_agent", name="Helper")
    await everywhere(data)


async def test_a_damaged_session_is_erased_where_a_turn_tells_whose_it_was_and_named_where_nothing_does(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    async with connect(data) as client:
        first = await call(client, "ask_agent", prompt=SECRETS[1], actor_id="anna")
        second = await call(client, "start_session", actor_id="anna", title=SECRETS[2])
    for session in (first, second):
        (data / f"session_{session['session_id']}" / "metadata.json").write_text("{")
    done = await shell(data, "memory", "erase", "anna", "--everything", "--yes")
    assert done.code == 1
    assert second["session_id"] in done.err
    assert first["session_id"] not in done.err
    assert files_of(data, SECRETS[1]) == []


async def test_what_a_repair_set_aside_is_erased_with_its_session(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with connect(data) as client:
        told = await call(client, "ask_agent", prompt=f"The word is {SECRETS[1]}", actor_id="anna")
        session = told["session_id"]
        message = data / f"session_{session}" / "agents" / "agent_assistant" / "messages" / "message_0.json"
        message.write_bytes(message.read_bytes()[:-20])
        assert (await shell(data, "sessions", "repair", session)).code == 0
        assert any(name.startswith("damaged/") for name in files_of(data, SECRETS[1]))
        assert (await shell(data, "memory", "erase", "anna", "--everything", "--yes")).code == 0
        assert files_of(data, SECRETS[1]) == []
        assert not (data / "damaged" / session).exists()


async def test_an_actor_of_one_subject_is_erased_and_one_of_the_same_name_of_another_is_not(tmp_path: Path) -> None:
    data = tmp_path / "data"
    anna = ActorId("anna")
    async with running(data) as service:
        for subject in (LOCAL_SUBJECT, "acme"):
            await service.memories.remember(Caller(subject=subject), text=f"Likes {SECRETS[0]}", actor_id=anna)
    assert len(files_of(data, SECRETS[0])) >= 2
    assert (await shell(data, "memory", "erase", "anna", "--yes", "--subject", "acme")).code == 0
    kept = files_of(data, SECRETS[0])
    assert kept
    assert not [name for name in kept if name.startswith("subjects/")]
    assert SECRETS[0] in (await shell(data, "memory", "recall", SECRETS[0], "--actor", "anna")).out
