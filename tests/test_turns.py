"""Turns: their order, waiting for them, and what becomes of those that fail."""

import asyncio
from pathlib import Path

import pytest

from bedrock_server import (
    Answer,
    BedrockServer,
    CutOff,
    Fault,
    Gate,
    Received,
    Reply,
    StreamFault,
    Text,
    fail,
    in_turn,
    say,
    use_tool,
)
from engine import (
    NOTE,
    ToolDesk,
    bedrock_env,
    by_prompt,
    reached,
    record_of,
    requests,
    roles,
    said,
    serving,
    tools_env,
)


async def test_an_ask_that_does_not_wait_gives_working_and_get_reply_gives_the_rest(data_dir: Path, era: str) -> None:
    gate = Gate()
    with BedrockServer(by_prompt({"Begin": say("The beginning ", gate, "and the end.")})) as model:
        async with serving(data_dir, env=bedrock_env(model), mode=era) as server:
            asked = await server.ask("Begin", wait_seconds=0)
            session = asked["session_id"]
            assert (asked["status"], asked["new_session"], asked["stop_reason"]) == ("working", True, None)
            await reached(gate)

            by_session = await server.call("get_reply", session_id=session, wait_seconds=0.5)
            assert (by_session["turn_id"], by_session["status"]) == (asked["turn_id"], "working")
            assert by_session["response"] == "The beginning "
            assert await server.open_turn(session) == {"turn_id": asked["turn_id"], "status": "working"}

            gate.release()
            done = await server.call("get_reply", turn_id=asked["turn_id"])
            assert (done["status"], done["response"]) == ("completed", "The beginning and the end.")
            assert await server.call("get_reply", session_id=session) == done
            assert await server.open_turn(session) is None
        assert model.violations == []


async def test_a_turn_that_nobody_follows_comes_to_its_end(data_dir: Path) -> None:
    gate = Gate()
    with BedrockServer(by_prompt({"Work": say("Done ", gate, "alone.")})) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            asked = await server.ask("Work", wait_seconds=0)
            await reached(gate)
            gate.release()
            # The next ask of the session waits for the turn; nobody else does.
            after = await server.ask("And?", session_id=asked["session_id"])
            assert said(model.requests[-1]) == ["Work", "Done alone.", "And?"]
            assert after["session_usage"]["total_tokens"] > after["usage"]["total_tokens"]
    assert record_of(data_dir, asked["turn_id"])["status"] == "completed"


async def test_pipelined_asks_of_one_session_take_turns_in_order_of_arrival(data_dir: Path, era: str) -> None:
    prompts = [f"Prompt {n}" for n in range(8)]
    with BedrockServer(lambda received: say(f"Reply to {received.last_text}")) as model:
        async with serving(data_dir, env=bedrock_env(model), mode=era) as server:
            session = await server.start_session("pipeline")
            replies = await asyncio.gather(*(server.ask(prompt, session_id=session) for prompt in prompts))
        seen = model.requests
        assert model.violations == []
    assert [reply["response"] for reply in replies] == [f"Reply to {prompt}" for prompt in prompts]
    assert [received.last_text for received in seen] == prompts
    assert [roles(received) for received in seen] == ["u" + "au" * n for n in range(8)]
    assert said(seen[-1])[:-1:2] == prompts[:-1]


async def test_other_sessions_run_meanwhile(data_dir: Path) -> None:
    one, two = Gate(), Gate()
    replies = {"One": say("First ", one, "session"), "Two": say("Second ", two, "session")}
    with BedrockServer(by_prompt(replies)) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            asking = [asyncio.create_task(server.ask(prompt)) for prompt in replies]
            await reached(one)
            await reached(two)  # both are in the middle of their answers now
            two.release()
            assert (await asking[1])["response"] == "Second session"
            assert not asking[0].done()
            one.release()
            assert (await asking[0])["response"] == "First session"


async def test_the_protocol_answers_while_as_many_turns_hang_as_there_are_threads(data_dir: Path) -> None:
    """Streams hold threads. Also when none is left, other work of the server goes on: asks are taken, turns end."""
    gate = Gate()
    with BedrockServer(lambda _: say("Held ", gate, "up")) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            for _ in range(66):
                await server.ask("Hang", wait_seconds=0)
            await requests(model, 64)
            await reached(gate)
            async with asyncio.timeout(5):
                assert (await server.client.list_tools()).tools
            async with asyncio.timeout(10):
                late = await server.ask("One more", wait_seconds=0)
                assert (await server.call("cancel_turn", turn_id=late["turn_id"]))["status"] == "cancelled"
            gate.release()
            listed = await server.call("list_sessions", limit=100)
            turns = [s["open_turn"]["turn_id"] for s in listed["sessions"] if s["open_turn"]]
            replies = await asyncio.gather(*(server.call("get_reply", turn_id=turn) for turn in turns))
            assert {reply["response"] for reply in replies} <= {"Held up"}
        assert model.violations == []


async def test_the_thirty_third_ask_that_would_wait_is_refused_and_leaves_nothing(data_dir: Path) -> None:
    gate = Gate()
    with BedrockServer(by_prompt({"Run": Answer([Text("Running.")], before=[gate])})) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            session = await server.start_session("busy")
            running = await server.ask("Run", session_id=session, wait_seconds=0)
            await reached(gate)
            waiting = [await server.ask(f"Wait {n}", session_id=session, wait_seconds=0) for n in range(32)]
            error = await server.refused("ask_agent", prompt="Too much", session_id=session)
            assert error.endswith("[session_busy]")
            assert "get_reply" in error
            assert {reply["status"] for reply in [running, *waiting]} == {"working"}
            # One that gives its place up makes room for another.
            await server.call("cancel_turn", turn_id=waiting[5]["turn_id"])
            last = await server.ask("There is room", session_id=session, wait_seconds=0)
            gate.release()
            assert (await server.call("get_reply", turn_id=last["turn_id"]))["status"] == "completed"
        assert model.violations == []
        prompts = [received.last_text for received in model.requests]
    assert prompts == ["Run", *(f"Wait {n}" for n in range(32) if n != 5), "There is room"]


FAILURES: dict[str, tuple[Reply, str]] = {
    "access is denied": (fail("AccessDeniedException", "You don't have access."), "You don't have access."),
    "the service fails": (Fault(500, "InternalServerException", "It broke."), "It broke."),
    "a fault before any text": (Answer([StreamFault("internalServerException", "No luck.")]), "No luck."),
}
FAILURES_MID_TEXT: dict[str, tuple[Reply, str]] = {
    "a fault in the text": (say("Half of ", StreamFault("internalServerException", "It broke.")), "It broke."),
    "cut off in the text": (say("Half of ", CutOff()), ""),
    "ended in good order in the text": (say("Half of ", CutOff(orderly=True)), "broke off"),
}


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_model_that_fails_before_any_text_gives_one_line_and_the_prompt_is_withdrawn(
    data_dir: Path, kind: str
) -> None:
    failure, reason = FAILURES[kind]
    with BedrockServer(in_turn(say("Hello."), failure, say("Here."))) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            session = (await server.ask("Hi"))["session_id"]
            error = await server.refused("ask_agent", prompt="Fail", session_id=session)
            assert error.endswith("[model_error]")
            assert reason in error
            assert await server.refused("get_reply", session_id=session) == error
            assert (await server.ask("Again", session_id=session))["response"] == "Here."
        assert model.violations == []
        assert said(model.requests[-1]) == ["Hi", "Hello.", "Again"]


PASSING: dict[str, Reply] = {
    "cut off": Answer([CutOff()]),
    "ended in good order": Answer([CutOff(orderly=True)]),
    "the stream failed": Answer([StreamFault("modelStreamErrorException")]),
    "throttled in the stream": Answer([StreamFault("throttlingException")]),
    "throttled": fail("ThrottlingException"),
    "not available": fail("ServiceUnavailableException"),
    "too slow": fail("ModelTimeoutException"),
}


@pytest.mark.parametrize("trouble", PASSING)
async def test_what_may_pass_by_itself_is_tried_again_before_any_text(data_dir: Path, trouble: str) -> None:
    with BedrockServer(in_turn(PASSING[trouble], say("Here."))) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            assert (await server.ask("Hi"))["response"] == "Here."
        assert model.violations == []
        assert [said(received) for received in model.requests] == [["Hi"], ["Hi"]]


@pytest.mark.parametrize("kind", FAILURES_MID_TEXT)
async def test_a_model_that_fails_in_the_middle_of_its_text_gives_one_line_and_the_text_is_kept_with_a_note(
    data_dir: Path, kind: str
) -> None:
    failure, reason = FAILURES_MID_TEXT[kind]
    with BedrockServer(in_turn(failure, say("Here."))) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            session = await server.start_session("mine")
            error = await server.refused("ask_agent", prompt="Fail", session_id=session)
            assert error.endswith("[model_error]")
            assert reason in error
            assert (await server.ask("Again", session_id=session))["response"] == "Here."
        assert model.violations == []
        prompt, kept, again = said(model.requests[-1])
    assert (prompt, again) == ("Fail", "Again")
    assert kept.startswith("Half of\n")
    assert NOTE in kept


async def test_an_answer_cut_by_max_tokens_is_completed_and_says_so(data_dir: Path) -> None:
    with BedrockServer(in_turn(say("As far as it we", stop_reason="max_tokens"), say("nt."))) as model:
        async with serving(data_dir, env=bedrock_env(model)) as server:
            cut = await server.ask("Long, please")
            assert (cut["status"], cut["stop_reason"]) == ("completed", "max_tokens")
            assert cut["response"] == "As far as it we"
            assert (await server.ask("Go on", session_id=cut["session_id"]))["response"] == "nt."
        assert model.violations == []
        assert said(model.requests[-1]) == ["Long, please", "As far as it we", "Go on"]


@pytest.mark.parametrize("tool", [False, True], ids=["in the text", "in a tool"])
async def test_a_turn_that_takes_too_long_is_ended_by_the_clock(data_dir: Path, tool: bool) -> None:
    gate = Gate()
    with ToolDesk() as desk:
        slow = use_tool("hold", {"port": desk.port}) if tool else say("Slowly ", gate, "now.")
        with BedrockServer(by_prompt({"Slow": slow})) as model:
            env = bedrock_env(model, AGENT_MCP_TURN_TIMEOUT="1", **tools_env())
            async with serving(data_dir, env=env) as server:
                await server.call("create_agent", name="Slow", tools=["py:hold"])
                session = await server.start_session("slow", agent_id="slow")
                error = await server.refused("ask_agent", prompt="Slow", session_id=session)
                assert error.endswith("[turn_timeout]")
                gate.release()
                desk.release()
                again = await server.ask("Again", session_id=session)
                assert again["response"] == "You said: Again"
            assert model.violations == []
            last = model.requests[-1]
    assert roles(last) == ("uauau" if tool else "uau")
    assert NOTE in said(last)[-2]


async def test_a_model_that_calls_tools_without_end_is_stopped_and_its_history_closed(data_dir: Path) -> None:
    def script(received: Received) -> Reply:
        return say("Enough.") if received.last_text == "Stop" else use_tool("calculator", {"expression": "1 + 1"})

    with BedrockServer(script) as model:
        async with serving(data_dir, env=bedrock_env(model, AGENT_MCP_MAX_CALLS="2")) as server:
            await server.call("create_agent", name="Counter", tools=["calculator"])
            reply = await server.ask("Count", agent_id="counter")
            assert (reply["status"], reply["stop_reason"]) == ("completed", "limit_turns")
            assert "2 model calls" in reply["response"]
            assert [call["status"] for call in reply["tool_calls"]] == ["success"] * 2
            assert (await server.ask("Stop", session_id=reply["session_id"]))["response"] == "Enough."
        assert model.violations == []
        assert [roles(received) for received in model.requests] == ["u", "uau", "uauauau"]
        assert said(model.requests[-1])[-2] == reply["response"]


TOOLS_THAT_RAISE_WHAT_IS_NO_EXCEPTION = {
    "give_up": ("error", "CancelledError"),
    "leave": ("error", "SystemExit"),
    "leave_behind": ("success", "left"),
}


@pytest.mark.parametrize("name", TOOLS_THAT_RAISE_WHAT_IS_NO_EXCEPTION)
async def test_a_tool_that_calls_for_the_end_of_everything_ends_only_its_own_call(data_dir: Path, name: str) -> None:
    status, result = TOOLS_THAT_RAISE_WHAT_IS_NO_EXCEPTION[name]
    with BedrockServer(by_prompt({"Use it": use_tool(name)})) as model:
        async with serving(data_dir, env=bedrock_env(model, **tools_env())) as server:
            await server.call("create_agent", name="User", tools=[f"py:{name}"])
            async with asyncio.timeout(15):
                used = await server.ask("Use it", agent_id="user")
                other = await server.ask("Elsewhere")
        assert model.violations == []
        assert result in model.requests[1].tool_results[0]
    assert [call["status"] for call in used["tool_calls"]] == [status]
    assert other["response"] == "You said: Elsewhere"


async def test_many_first_calls_at_once_find_strands_whole(data_dir: Path) -> None:
    """The threads of the first calls all need Strands, by different modules, and import it at the same moment."""
    async with serving(data_dir, env=tools_env()) as server:
        calls = [server.call("create_agent", name=f"Agent {n}", tools=["py:hold"]) for n in range(3)]
        asks = [server.ask("My name is Ada") for _ in range(3)]
        starts = [server.start_session(f"own-{n}") for n in range(3)]
        await asyncio.gather(*calls, *asks, *starts)
