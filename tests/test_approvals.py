"""A tool that needs a person's yes: who can give it, to what exactly, and what is never run without it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from mcp_types import InputRequiredResult

from bedrock_server import Answer, BedrockServer, ToolUse, in_turn
from conftest import text_of
from engine import Served, bedrock_env, cancelled_by_client, record_of, serving
from life import Action, Person, ask_keyed, order, reply_of, shell, statuses, waiting_at

ALLOW = {"AGENT_MCP_ALLOW_TOOLS": "shell"}


async def operator(server: Served, **more: Any) -> str:
    """An agent that may use the shell."""
    return str((await server.call("create_agent", name="Operator", tools=["shell"], **more))["agent_id"])


async def pending(server: Served, command: str, **arguments: Any) -> dict[str, Any]:
    """A turn that waits for a yes to this command, asked by a host that can't ask its person."""
    await operator(server)
    reply = await server.ask(order("shell", command=command), agent_id="operator", **arguments)
    assert reply["status"] == "input_required"
    assert command in reply["question"]
    return reply


async def test_without_the_operators_leave_no_agent_is_given_the_shell(data_dir: Path) -> None:
    async with serving(data_dir) as server:
        error = await server.refused("create_agent", name="Operator", tools=["shell"])
        assert error.endswith("[tool_not_allowed]")
        assert "AGENT_MCP_ALLOW_TOOLS" in error
        # A file written by hand does not get it either.
        (data_dir / "agents" / "sly.md").write_text("---\nname: Sly\ntools: shell\n---\nBe sly.\n")
        reply = await server.ask(order("shell", command=f"touch {data_dir}/evil"), agent_id="sly")
        assert "no tool shell" in reply["response"]
        assert "shell" in (await server.call("list_agents", query="sly"))["warnings"][0]
    assert not (data_dir / "evil").exists()


async def test_the_hosts_person_decides_on_each_use_of_the_tool(data_dir: Path, era: str) -> None:
    actions: list[Action] = ["accept", "untick", "decline", "cancel"]
    action: Action = "accept"
    person = Person(lambda _: action)
    async with serving(data_dir, env=ALLOW, mode=era, elicitation_callback=person) as server:
        agent = await operator(server)
        for action in actions:
            made = data_dir.parent / f"made-{action}"
            person.asked.clear()
            reply = await server.ask(order("shell", command=f"touch {made}; echo 42 done"), agent_id=agent)
            assert len(person.asked) == 1
            assert "echo 42 done" in person.asked[0]
            assert "shell" in person.asked[0]
            if action == "cancel":
                assert reply["status"] == "input_required"
                assert reply["turn_id"] in reply["question"]
                ended = await server.call("cancel_turn", turn_id=reply["turn_id"])
                assert ended["status"] == "cancelled"
            else:
                assert reply["status"] == "completed"
                assert statuses(reply["tool_calls"]) == ["success" if action == "accept" else "error"]
                assert ("42 done" in reply["response"]) == (action == "accept")
            assert made.exists() == (action == "accept")
            again = await server.ask("My name is John", session_id=reply["session_id"])
            assert "John" in again["response"]


async def test_a_host_without_elicitation_gets_the_command_for_a_person_and_cant_decide_itself(
    data_dir: Path, era: str
) -> None:
    made = data_dir.parent / "made"
    async with serving(data_dir, env=ALLOW, mode=era) as server:
        reply = await pending(server, f"touch {made}")
        turn, session = reply["turn_id"], reply["session_id"]
        assert f"agent-mcp turns approve {turn}" in reply["question"]
        assert reply["expires_at"] is None
        for way in ({"turn_id": turn}, {"session_id": session}):
            error = await server.refused("get_reply", answer="approve", **way)
            assert error.endswith("[forbidden]")
            assert "turns approve" in error
        assert (await server.call("get_reply", turn_id=turn))["status"] == "input_required"
        assert await server.open_turn(session) == {"turn_id": turn, "status": "input_required"}
        error = await server.refused("ask_agent", prompt="Something else", session_id=session)
        assert error.endswith("[turn_pending]")
        assert "cancel_turn" in error
        assert turn in error
        assert not made.exists()


async def test_two_uses_in_one_message_are_asked_about_one_by_one(data_dir: Path, era: str) -> None:
    one, two = data_dir.parent / "file-1", data_dir.parent / "file-2"
    person = Person(lambda message: "accept" if "file-1" in message else "decline")
    async with serving(data_dir, env=ALLOW, mode=era, elicitation_callback=person) as server:
        agent = await operator(server)
        both = f"{order('shell', command=f'touch {one}')} and {order('shell', command=f'touch {two}')}"
        reply = await server.ask(both, agent_id=agent)
        assert reply["status"] == "completed"
        assert statuses(reply["tool_calls"]) == ["success", "error"]
    assert len(person.asked) == 2
    assert str(two) not in person.asked[0]
    assert str(one) not in person.asked[1]
    assert (one.exists(), two.exists()) == (True, False)


@pytest.mark.parametrize("where", ["in one message", "in the next message"])
async def test_a_yes_for_one_command_is_never_taken_for_another_one_under_the_same_tool_use_id(
    data_dir: Path, where: str
) -> None:
    evil, good = data_dir.parent / "evil", data_dir.parent / "good"
    uses = [ToolUse("shell", {"command": f"touch {path}"}, tool_use_id="tooluse_1") for path in (good, evil)]
    script = in_turn(Answer(uses)) if where == "in one message" else in_turn(Answer(uses[:1]), Answer(uses[1:]))
    with BedrockServer(script) as model:
        async with serving(data_dir, env=bedrock_env(model, **ALLOW)) as server:
            agent = await operator(server)
            first = await server.ask("Go", agent_id=agent)
            assert str(good) in first["question"]
            assert str(evil) not in first["question"]
            done = await shell(
                data_dir, "turns", "approve", first["turn_id"], "--json", env=bedrock_env(model, **ALLOW)
            )
            assert done.json["status"] == "input_required"
            assert str(evil) in done.json["question"]
            assert not evil.exists()
            await server.call("cancel_turn", turn_id=first["turn_id"])
    assert not evil.exists()


async def test_a_use_that_is_approved_in_another_process_runs_and_ends_there(data_dir: Path, era: str) -> None:
    made = data_dir.parent / "made"
    async with serving(data_dir, env=ALLOW, mode=era) as server:
        reply = await pending(server, f"touch {made}; echo it is done")
        async with waiting_at(data_dir.parent / "fifo") as fifo:
            await server.call("cancel_turn", turn_id=reply["turn_id"])
            held = await server.ask(
                order("shell", command=f"touch {made}; cat {fifo.path}; echo it is done"),
                session_id=reply["session_id"],
            )
            assert not made.exists()
            following = asyncio.create_task(server.call("get_reply", turn_id=held["turn_id"], wait_seconds=60))
            approving = asyncio.create_task(shell(data_dir, "turns", "approve", held["turn_id"], "--json", env=ALLOW))
            await fifo.reached()
            assert made.exists()
            working = await server.call("get_reply", turn_id=held["turn_id"], wait_seconds=0)
            assert working["status"] == "working"
            fifo.release()
            done = (await approving).json
            assert done["status"] == "completed"
            assert (await following)["status"] in ("input_required", "completed")  # as it was when it was asked
            seen = await server.call("get_reply", turn_id=held["turn_id"])
            assert "it is done" in seen["response"]
            assert statuses(seen["tool_calls"]) == ["success"]
            after = await server.ask("My name is John", session_id=reply["session_id"])
            assert "John" in after["response"]


async def test_a_use_that_is_denied_is_not_run_and_the_agent_is_told(data_dir: Path) -> None:
    made = data_dir.parent / "made"
    async with serving(data_dir, env=ALLOW) as server:
        reply = await pending(server, f"touch {made}")
        done = await shell(data_dir, "turns", "deny", reply["turn_id"], env=ALLOW)
        assert done.code == 0
        assert "did not allow" in done.out
        seen = await server.call("get_reply", turn_id=reply["turn_id"])
        assert (seen["status"], statuses(seen["tool_calls"])) == ("completed", ["error"])
        assert not made.exists()
        again = await shell(data_dir, "turns", "approve", reply["turn_id"], env=ALLOW)
        assert again.code == 1
        assert again.err.rstrip().endswith("[turn_conflict]")
        assert not made.exists()


async def test_a_tool_that_the_operator_exempts_needs_nobody(data_dir: Path) -> None:
    person = Person()
    env = {**ALLOW, "AGENT_MCP_APPROVE": "shell"}
    async with serving(data_dir, env=env, elicitation_callback=person) as server:
        agent = await operator(server)
        reply = await server.ask(order("shell", command="pwd; echo kept > note"), agent_id=agent)
        assert reply["status"] == "completed"
        assert str(data_dir / "workspaces" / reply["session_id"]) in reply["response"]
    assert person.asked == []
    assert (data_dir / "workspaces" / reply["session_id"] / "note").read_text() == "kept\n"


async def test_what_waits_for_a_person_survives_a_restart(data_dir: Path, era: str) -> None:
    made = data_dir.parent / "made"
    async with serving(data_dir, env=ALLOW, mode=era) as server:
        reply = await pending(server, f"touch {made}")
    person = Person()
    async with serving(data_dir, env=ALLOW, mode=era, elicitation_callback=person) as server:
        assert not made.exists()
        # A host that can ask its person does so when the reply is asked for.
        done = await server.call("get_reply", turn_id=reply["turn_id"])
        assert done["status"] == "completed"
        assert len(person.asked) == 1
    assert made.exists()


async def test_a_server_killed_inside_an_approved_tool_does_not_run_it_again(data_dir: Path) -> None:
    ran = data_dir.parent / "ran"
    async with waiting_at(data_dir.parent / "fifo") as fifo, serving(data_dir, env=ALLOW) as watcher:
        reply = await pending(watcher, f"echo run >> {ran}; cat {fifo.path}")
        async with serving(data_dir, env=ALLOW, elicitation_callback=Person()) as server:
            asking = asyncio.create_task(server.call("get_reply", turn_id=reply["turn_id"]))
            await fifo.reached()
            assert record_of(data_dir, reply["turn_id"])["status"] == "working"
            server.kill()
            await asyncio.wait([asking])
            assert asking.exception() is not None
        error = await watcher.refused("get_reply", turn_id=reply["turn_id"])
        assert error.endswith("[turn_interrupted]")
        again = await watcher.ask("My name is John", session_id=reply["session_id"])
        assert "John" in again["response"]
        assert await watcher.refused("get_reply", turn_id=reply["turn_id"]) == error
    assert ran.read_text() == "run\n"


async def test_of_two_who_approve_at_once_one_wins_and_the_other_is_told(data_dir: Path) -> None:
    ran = data_dir.parent / "ran"
    async with serving(data_dir, env=ALLOW) as server:
        reply = await pending(server, f"echo run >> {ran}")
        both = await asyncio.gather(
            *(shell(data_dir, "turns", "approve", reply["turn_id"], "--json", env=ALLOW) for _ in range(2))
        )
        assert sorted(done.code for done in both) == [0, 1]
        loser = next(done for done in both if done.code == 1)
        assert loser.err.rstrip().endswith("[turn_conflict]")
        assert (await server.call("get_reply", turn_id=reply["turn_id"]))["status"] == "completed"
    assert ran.read_text() == "run\n"


async def test_two_requests_of_one_host_that_ask_the_person_at_once_run_the_tool_once(data_dir: Path, era: str) -> None:
    ran = data_dir.parent / "ran"
    async with serving(data_dir, env=ALLOW, mode=era) as server:
        reply = await pending(server, f"echo run >> {ran}")
    person = Person()
    async with serving(data_dir, env=ALLOW, mode=era, elicitation_callback=person) as server:
        async with asyncio.timeout(120):
            both = await asyncio.gather(
                *(server.client.call_tool("get_reply", {"turn_id": reply["turn_id"]}) for _ in range(4))
            )
        for result in both:
            assert not result.is_error or text_of(result).endswith("[turn_conflict]")
        assert any(not result.is_error for result in both)
        assert (await server.call("get_reply", turn_id=reply["turn_id"]))["status"] == "completed"
        assert (await server.ask("Hello", session_id=reply["session_id"]))["status"] == "completed"
    assert ran.read_text() == "run\n"


async def test_a_yes_that_comes_after_somebody_else_decided_is_not_taken_for_the_next_question(
    data_dir: Path, era: str
) -> None:
    """The person still looks at the first question while the turn has gone on to a second one."""
    one, two = data_dir.parent / "file-1", data_dir.parent / "file-2"
    looking, decided = asyncio.Event(), asyncio.Event()

    class Slow(Person):
        async def __call__(self, context: Any, params: Any) -> Any:
            if not self.asked:
                looking.set()
                await decided.wait()
                return await super().__call__(context, params)
            self.decide = lambda _: "cancel"
            return await super().__call__(context, params)

    person = Slow()
    async with serving(data_dir, env=ALLOW, mode=era, elicitation_callback=person) as server:
        agent = await operator(server)
        both = f"{order('shell', command=f'touch {one}')} and {order('shell', command=f'touch {two}')}"
        asking = asyncio.create_task(server.client.call_tool("ask_agent", {"prompt": both, "agent_id": agent}))
        await looking.wait()
        session = (await server.call("list_sessions"))["sessions"][0]
        turn = session["open_turn"]["turn_id"]
        done = await shell(data_dir, "turns", "approve", turn, "--json", env=ALLOW)
        assert str(two) in done.json["question"]
        decided.set()
        result = await asking
        assert not result.is_error, text_of(result)
        assert reply_of(result)["status"] == "input_required"
        assert not two.exists()
        await server.call("cancel_turn", turn_id=turn)
    assert not two.exists()
    assert not one.exists()  # nothing runs before all of a message is decided


async def test_a_request_state_that_was_tampered_with_is_refused(data_dir: Path) -> None:
    made = data_dir.parent / "made"
    async with serving(data_dir, env=ALLOW, mode="2026-07-28", elicitation_callback=Person()) as server:
        agent = await operator(server)
        arguments = {"prompt": order("shell", command=f"touch {made}"), "agent_id": agent}
        first = await server.client.session.call_tool("ask_agent", arguments, allow_input_required=True)
        assert isinstance(first, InputRequiredResult)
        assert first.request_state
        (key,) = first.input_requests or {}
        yes: Any = {key: {"action": "accept", "content": {"allow": True}}}
        state = first.request_state
        for wrong in (state[:-6] + ("A" * 6 if not state.endswith("A" * 6) else "B" * 6), '["t-0", "", 1]', "x"):
            with pytest.raises(Exception, match=r"(?i)state"):
                await server.client.session.call_tool(
                    "ask_agent", arguments, input_responses=yes, request_state=wrong, allow_input_required=True
                )
        assert not made.exists()
        # Nor is it good for another request than the one it was given for.
        with pytest.raises(Exception, match=r"(?i)state"):
            await server.client.session.call_tool(
                "ask_agent",
                {**arguments, "prompt": "Other"},
                input_responses=yes,
                request_state=state,
                allow_input_required=True,
            )
        assert not made.exists()
        # An accept without the tick is no yes; what was decided once is not decided again by the same state.
        no: Any = {key: {"action": "accept", "content": {}}}
        denied = await server.client.session.call_tool(
            "ask_agent", arguments, input_responses=no, request_state=state, allow_input_required=True
        )
        again = await server.client.session.call_tool(
            "ask_agent", arguments, input_responses=yes, request_state=state, allow_input_required=True
        )
        assert denied == again
        assert not made.exists()


async def test_a_person_can_decide_at_another_server_after_a_restart_with_the_state_of_the_first(
    data_dir: Path,
) -> None:
    made = data_dir.parent / "made"
    arguments = {"prompt": order("shell", command=f"touch {made}"), "agent_id": "operator"}
    async with serving(data_dir, env=ALLOW, mode="2026-07-28", elicitation_callback=Person()) as server:
        await operator(server)
        first = await server.client.session.call_tool("ask_agent", arguments, allow_input_required=True)
        assert isinstance(first, InputRequiredResult)
    (key,) = first.input_requests or {}
    yes: Any = {key: {"action": "accept", "content": {"allow": True}}}
    async with serving(data_dir, env=ALLOW, mode="2026-07-28", elicitation_callback=Person()) as server:
        done = await server.client.session.call_tool(
            "ask_agent", arguments, input_responses=yes, request_state=first.request_state, allow_input_required=True
        )
        assert not isinstance(done, InputRequiredResult)
        assert reply_of(done)["status"] == "completed"
    assert made.exists()


async def test_an_approval_where_the_tool_is_not_allowed_says_so_and_the_turn_goes_on_waiting(data_dir: Path) -> None:
    """A terminal often lacks the settings that a host gives its server."""
    made = data_dir.parent / "made"
    async with serving(data_dir, env=ALLOW) as server:
        reply = await pending(server, f"touch {made}")
        done = await shell(data_dir, "turns", "approve", reply["turn_id"])
        assert done.code == 1
        assert done.err.rstrip().endswith("[tool_not_allowed]")
        assert "AGENT_MCP_ALLOW_TOOLS" in done.err
        assert (await server.call("get_reply", turn_id=reply["turn_id"]))["status"] == "input_required"
        done = await shell(data_dir, "turns", "approve", reply["turn_id"], env=ALLOW)
        assert done.code == 0
    assert made.exists()


async def test_cancelling_the_ask_while_its_tool_runs_that_the_person_allowed_cancels_the_turn(
    data_dir: Path, era: str
) -> None:
    async with (
        waiting_at(data_dir.parent / "fifo") as fifo,
        serving(data_dir, env=ALLOW, mode=era, elicitation_callback=Person()) as server,
    ):
        agent = await operator(server)
        command = order("shell", command=f"cat {fifo.path}; echo done")
        await cancelled_by_client(lambda: server.ask(command, agent_id=agent), fifo.reached())
        session = (await server.call("list_sessions"))["sessions"][0]["session_id"]
        reply = await server.call("get_reply", session_id=session, wait_seconds=30)
        assert reply["status"] == "cancelled"
        assert (await server.ask("Hello", session_id=session))["status"] == "completed"


async def test_cancelling_the_ask_while_its_person_is_asked_gives_the_turn_up(data_dir: Path) -> None:
    """Only the older revisions ask within the request; later ones have answered it by then."""
    made = data_dir.parent / "made"
    looking = asyncio.Event()

    async def person(context: Any, params: Any) -> Any:
        looking.set()
        await asyncio.Event().wait()

    async with serving(data_dir, env=ALLOW, mode="legacy", elicitation_callback=person) as server:
        agent = await operator(server)
        command = order("shell", command=f"touch {made}")
        await cancelled_by_client(lambda: server.ask(command, agent_id=agent), looking.wait())
        session = (await server.call("list_sessions"))["sessions"][0]["session_id"]
        async with asyncio.timeout(120):
            while await server.open_turn(session):
                pass
        reply = await server.call("get_reply", session_id=session)
        assert reply["status"] == "cancelled"
        assert (await server.ask("Hello", session_id=session))["status"] == "completed"
    assert not made.exists()


async def test_a_host_that_fails_to_ask_its_person_gets_the_command_instead(data_dir: Path) -> None:
    async def broken(context: Any, params: Any) -> Any:
        raise RuntimeError("no window")

    async with serving(data_dir, env=ALLOW, mode="legacy", elicitation_callback=broken) as server:
        agent = await operator(server)
        reply = await server.ask(order("shell", command="true"), agent_id=agent)
        assert reply["status"] == "input_required"
        assert "agent-mcp turns approve" in reply["question"]


async def test_a_question_of_a_repeated_keyed_request_is_asked_again_and_run_once(data_dir: Path, era: str) -> None:
    ran = data_dir.parent / "ran"
    async with serving(data_dir, env=ALLOW, mode=era) as server:
        await operator(server)
        prompt = order("shell", command=f"echo run >> {ran}")
        first = reply_of(await ask_keyed(server, "k", prompt, agent_id="operator"))
        assert first["status"] == "input_required"
    person = Person()
    async with serving(data_dir, env=ALLOW, mode=era, elicitation_callback=person) as server:
        for _ in range(2):
            again = reply_of(await ask_keyed(server, "k", prompt, agent_id="operator"))
            assert (again["turn_id"], again["status"]) == (first["turn_id"], "completed")
    assert len(person.asked) == 1
    assert ran.read_text() == "run\n"
