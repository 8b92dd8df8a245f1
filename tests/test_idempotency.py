"""Idempotency keys (`_meta` "agent-mcp/idempotency-key"): the same key and request is the same turn."""

import asyncio
from pathlib import Path

from bedrock_server import BedrockServer, Gate, fail, in_turn, say
from conftest import text_of
from engine import bedrock_env, by_prompt, cancelled_by_client, reached, requests, serving
from life import ask_keyed, reply_of


async def test_the_same_key_and_request_is_the_same_turn_also_after_a_restart_and_in_another_process(
    data_dir: Path, era: str
) -> None:
    with BedrockServer(in_turn(say("Only once."))) as model:
        async with serving(data_dir, env=bedrock_env(model), mode=era) as server:
            first = reply_of(await ask_keyed(server, "key-1", "Say it"))
            again = reply_of(await ask_keyed(server, "key-1", "Say it"))
        async with serving(data_dir, env=bedrock_env(model), mode=era) as server:
            later = reply_of(await ask_keyed(server, "key-1", "Say it"))
            listed = await server.call("list_sessions")
        assert len(model.requests) == 1
        assert model.violations == []
    assert first == again == later
    assert first["response"] == "Only once."
    assert len(listed["sessions"]) == 1


async def test_requests_with_one_key_at_the_same_moment_are_one_turn(data_dir: Path, era: str) -> None:
    """Ten in one process, ten in another one; each also begins the caller's own session."""
    with BedrockServer(by_prompt({"Once": lambda: say("Once.")})) as model:
        env = bedrock_env(model)
        async with serving(data_dir, env=env, mode=era) as one, serving(data_dir, env=env, mode=era) as two:
            for session in ({}, {"session_id": "mine", "agent_id": "assistant"}):
                key = f"key-{len(session)}"
                results = await asyncio.gather(
                    *(ask_keyed(server, key, "Once", **session) for server in (one, two) for _ in range(10))
                )
                replies = [reply_of(result) for result in results]
                assert len({reply["turn_id"] for reply in replies}) == 1
                assert {reply["status"] for reply in replies} == {"completed"}
            assert len(model.requests) == 2
            assert len((await one.call("list_sessions"))["sessions"]) == 2
            # Nothing of the others is in the way of what comes next.
            assert (await one.ask("Next", session_id="mine"))["response"] == "You said: Next"
        assert model.violations == []


async def test_another_request_under_the_key_is_refused_and_nothing_is_asked(data_dir: Path, era: str) -> None:
    with BedrockServer(by_prompt({})) as model:
        async with serving(data_dir, env=bedrock_env(model), mode=era) as server:
            first = reply_of(await ask_keyed(server, "key-1", "Hello"))
            others = [
                await ask_keyed(server, "key-1", "Good bye"),
                await ask_keyed(server, "key-1", "Hello", session_id=first["session_id"]),
                await ask_keyed(server, "key-1", "Hello", agent_id="assistant"),
            ]
            for result in others:
                assert result.is_error
                assert text_of(result).endswith("[turn_conflict]")
            # How long a request waits does not make it another one.
            assert reply_of(await ask_keyed(server, "key-1", "Hello", wait_seconds=1)) == first
        assert len(model.requests) == 1


async def test_another_actor_has_keys_of_their_own(data_dir: Path) -> None:
    with BedrockServer(by_prompt({})) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            ann = reply_of(await ask_keyed(server, "key-1", "Hello", actor_id="ann"))
            bob = reply_of(await ask_keyed(server, "key-1", "Hello", actor_id="bob"))
            nobody = reply_of(await ask_keyed(server, "key-1", "Hello"))
            assert len({reply["turn_id"] for reply in (ann, bob, nobody)}) == 3
            assert reply_of(await ask_keyed(server, "key-1", "Hello", actor_id="ann")) == ann
            assert reply_of(await ask_keyed(server, "key-1", "Hello", actor_id="local")) == nobody
        assert len(model.requests) == 3


async def test_a_failed_turn_fails_again_in_the_same_words_and_a_new_key_tries_again(data_dir: Path) -> None:
    with BedrockServer(in_turn(fail("AccessDeniedException", "No access."), say("Fine."))) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            first = await ask_keyed(server, "key-1", "Hello")
            assert first.is_error
            assert text_of(first).endswith("[model_error]")
            assert text_of(await ask_keyed(server, "key-1", "Hello")) == text_of(first)
            assert reply_of(await ask_keyed(server, "key-2", "Hello"))["response"] == "Fine."
        async with serving(data_dir, env=bedrock_env(model)) as server:
            assert text_of(await ask_keyed(server, "key-1", "Hello")) == text_of(first)
        assert len(model.requests) == 2


async def test_a_request_that_was_refused_at_the_door_does_not_use_up_its_key(data_dir: Path) -> None:
    async with serving(data_dir) as server:
        first = await ask_keyed(server, "key-1", "Hello", session_id="mine")
        assert text_of(first).endswith("[session_not_found]")
        assert (await ask_keyed(server, "", "Hello")).is_error
        assert (await ask_keyed(server, "k" * 256, "Hello")).is_error
        await server.start_session("mine")
        assert reply_of(await ask_keyed(server, "key-1", "Hello", session_id="mine"))["status"] == "completed"


async def test_a_repetition_follows_the_turn_and_cancelling_it_only_detaches(data_dir: Path, era: str) -> None:
    gate = Gate()
    with BedrockServer(by_prompt({"Work": say("Half ", gate, "and whole.")})) as model:
        env = bedrock_env(model)
        async with serving(data_dir, env=env, mode=era) as server, serving(data_dir, env=env, mode=era) as other:
            first = asyncio.create_task(ask_keyed(server, "key-1", "Work"))
            await requests(model, 1)
            await reached(gate)
            for repeating in (server, other):
                working = reply_of(await ask_keyed(repeating, "key-1", "Work", wait_seconds=0))
                assert working["status"] == "working"
                await cancelled_by_client(
                    lambda repeating=repeating: ask_keyed(repeating, "key-1", "Work"),
                    repeating.client.list_tools(),  # on the same wire behind it: the request is being served
                )
            assert not first.done()
            gate.release()
            done = reply_of(await first)
            assert done["response"] == "Half and whole."
            for repeating in (server, other):
                assert reply_of(await ask_keyed(repeating, "key-1", "Work")) == done
        assert len(model.requests) == 1
        assert model.violations == []


async def test_a_cancelled_turn_stays_cancelled_under_its_key(data_dir: Path) -> None:
    gate = Gate()
    with BedrockServer(by_prompt({"Work": say("Half ", gate, "and whole.")})) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            working = reply_of(await ask_keyed(server, "key-1", "Work", wait_seconds=0))
            await reached(gate)
            cancelled = await server.call("cancel_turn", turn_id=working["turn_id"])
            assert cancelled["status"] == "cancelled"
            assert reply_of(await ask_keyed(server, "key-1", "Work")) == cancelled
            gate.release()
        assert len(model.requests) == 1
