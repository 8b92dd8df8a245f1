"""Whatever breaks a turn in whichever phase: the same table for all, and each time the session goes on."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent_mcp.offline import SUMMARY_MARKER
from bedrock_server import (
    Answer,
    BedrockServer,
    Control,
    Fault,
    Gate,
    Received,
    Reply,
    Script,
    StreamFault,
    Text,
    fail,
    say,
    use_tool,
)
from engine import NOTE, Served, ToolDesk, bedrock_env, reached, record_of, serving, tools_env

WITHDRAWN: list[str] = []
KEPT = ["user", "assistant"]
KEPT_WITH_TOOL = ["user", "assistant", "tool", "assistant"]
TOO_LONG = fail("ValidationException", "Input is too long for requested model.")


@dataclass(frozen=True)
class Phase:
    """A moment of a turn: does it come behind a use of a tool, and has the model written half of a text?"""

    later: bool
    text: bool

    @property
    def kept(self) -> list[str]:
        """The roles that are left of a turn that broke here."""
        return KEPT_WITH_TOOL if self.later else KEPT if self.text else WITHDRAWN


PHASES = {
    "before the text": Phase(later=False, text=False),
    "in the text": Phase(later=False, text=True),
    "between a tool and the next call": Phase(later=True, text=False),
    "in the text behind a tool": Phase(later=True, text=True),
}
FAULTS: dict[str, tuple[Fault, StreamFault]] = {
    "fails": (fail("AccessDeniedException", "Not for you."), StreamFault("internalServerException", "It broke.")),
    "is busy to the end": (fail("ThrottlingException", "Slow down."), StreamFault("throttlingException", "Slow down.")),
}
"""What the model does: instead of an answer, and in the middle of one."""


def breaking(phase: Phase, how: Fault | StreamFault | Gate, *, tool: Reply | None = None) -> Script:
    """A model that answers every prompt but `Break`; there it breaks, or waits at a gate, in the phase."""

    def script(received: Received) -> Reply:
        if SUMMARY_MARKER in received.system:
            return say("SUMMARY")
        if received.last_text == "Break" and phase.later:
            return tool or use_tool("calculator", {"expression": "6 * 7"})
        if received.last_text not in ("Break", ""):
            return say(f"You said: {received.last_text}")
        if isinstance(how, Fault):
            return how
        control: Control = how
        return say("Half of ", control, "it.") if phase.text else Answer([Text("Late.")], before=[_gate(how)])

    return script


def _gate(how: StreamFault | Gate) -> Gate:
    assert isinstance(how, Gate)
    return how


@asynccontextmanager
async def asked_once(data_dir: Path, model: BedrockServer, **settings: str) -> AsyncGenerator[Served]:
    """A server with the session `mine`, in which one turn was answered."""
    async with serving(data_dir, env=bedrock_env(model, **tools_env(), **settings)) as server:
        await server.call("create_agent", name="User", tools=["calculator", "py:hold"])
        assert (await server.ask("Hi", session_id="mine", agent_id="user"))["status"] == "completed"
        yield server


async def goes_on(server: Served, model: BedrockServer, kept: list[str], session: str = "mine") -> None:
    """What is left of the turn is as it must be, and the next ask is answered, over a history that a model takes."""
    before = await messages(server, session)
    assert [message["role"] for message in before][2:] == kept
    if kept:
        assert NOTE in before[-1]["text"]
    reply = await server.ask("Go on", session_id=session)
    assert (reply["status"], reply["response"]) == ("completed", "You said: Go on")
    assert (await messages(server, session))[: len(before)] == before
    assert model.violations == []


async def messages(server: Served, session: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await server.call("read_transcript", session_id=session))["messages"]
    return found


@pytest.mark.parametrize("phase", PHASES)
async def test_a_turn_that_is_cancelled_in_any_phase_is_withdrawn_or_closed(data_dir: Path, phase: str) -> None:
    gate = Gate()
    with BedrockServer(breaking(PHASES[phase], gate)) as model:
        async with asked_once(data_dir, model) as server:
            turn = await server.ask("Break", session_id="mine", wait_seconds=0)
            await reached(gate)
            reply = await server.call("cancel_turn", turn_id=turn["turn_id"])
            assert (reply["status"], reply["stop_reason"]) == ("cancelled", "cancelled")
            assert reply["response"].startswith("Half of\n") == PHASES[phase].text
            await goes_on(server, model, PHASES[phase].kept)


@pytest.mark.parametrize("phase", [*PHASES, "in a tool", "queued"])
async def test_a_turn_whose_client_is_gone_in_any_phase_is_withdrawn_or_closed(data_dir: Path, phase: str) -> None:
    gate = Gate()
    with ToolDesk() as desk:
        in_tool = phase == "in a tool"
        where = PHASES.get(phase, Phase(later=in_tool, text=not in_tool))
        with BedrockServer(
            breaking(where, gate, tool=use_tool("hold", {"port": desk.port}) if in_tool else None)
        ) as model:
            async with asked_once(data_dir, model) as server:
                turn = await server.ask("Break", session_id="mine", wait_seconds=0)
                await (desk.started() if in_tool else reached(gate))
                if phase == "queued":
                    turn = await server.ask("Queued", session_id="mine", wait_seconds=0)
            assert record_of(data_dir, turn["turn_id"])["status"] == "cancelled"
            async with serving(data_dir, env=bedrock_env(model)) as again:
                await goes_on(again, model, where.kept)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_turn_over_its_time_in_any_phase_is_withdrawn_or_closed(data_dir: Path, phase: str) -> None:
    gate = Gate()
    with BedrockServer(breaking(PHASES[phase], gate)) as model:
        async with asked_once(data_dir, model, AGENT_MCP_TURN_TIMEOUT="3") as server:
            error = await server.refused("ask_agent", prompt="Break", session_id="mine")
            assert error.endswith("[turn_timeout]")
            await goes_on(server, model, PHASES[phase].kept)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_model_that_fails_in_any_phase_leaves_a_turn_that_is_withdrawn_or_closed(
    data_dir: Path, phase: str
) -> None:
    how = FAULTS["fails"][PHASES[phase].text]
    with BedrockServer(breaking(PHASES[phase], how)) as model:
        async with asked_once(data_dir, model) as server:
            error = await server.refused("ask_agent", prompt="Break", session_id="mine")
            assert error.endswith("[model_error]")
            await goes_on(server, model, PHASES[phase].kept)


async def test_a_model_that_is_busy_to_the_end_of_the_retries_leaves_turns_that_are_withdrawn_or_closed(
    data_dir: Path,
) -> None:
    """All phases at once, for the retries take half a minute. Of what calls wrote only the last one's text is kept."""
    calls: dict[str, int] = dict.fromkeys(PHASES, 0)

    def script(received: Received) -> Reply:
        prompts = [block["text"] for message in received.messages for block in message["content"] if "text" in block]
        name = prompts[-1].removeprefix("Break ")
        if name not in PHASES:
            return say(f"You said: {prompts[-1]}")
        phase = PHASES[name]
        if phase.later and received.last_text:
            return use_tool("calculator", {"expression": "6 * 7"})
        calls[name] += 1
        before, inside = FAULTS["is busy to the end"]
        return say("Half of ", inside) if phase.text else before

    with BedrockServer(script) as model:
        async with asked_once(data_dir, model) as server:
            sessions = {name: f"busy-{number}" for number, name in enumerate(PHASES)}
            for session in sessions.values():
                await server.ask("Hi", session_id=session, agent_id="user")
            arguments = [{"prompt": f"Break {name}", "session_id": session} for name, session in sessions.items()]
            errors = await asyncio.gather(*(server.refused("ask_agent", **given) for given in arguments))
            assert all(error.endswith("[model_error]") for error in errors), errors
            assert all("Slow down." in error for error in errors), errors
            assert set(calls.values()) == {6}, calls
            for name, session in sessions.items():
                await goes_on(server, model, PHASES[name].kept, session)
                assert str(await messages(server, session)).count("Half of") == PHASES[name].text


@pytest.mark.parametrize("phase", [name for name, phase in PHASES.items() if not phase.text])
async def test_a_context_that_overflows_whatever_is_left_out_leaves_a_turn_that_is_withdrawn_or_closed(
    data_dir: Path, phase: str
) -> None:
    with BedrockServer(breaking(PHASES[phase], TOO_LONG)) as model:
        async with asked_once(data_dir, model) as server:
            error = await server.refused("ask_agent", prompt="Break", session_id="mine")
            assert error.endswith("[model_error]")
            assert "too long for the model" in error
            await goes_on(server, model, PHASES[phase].kept)


@pytest.mark.parametrize(("limit", "reason"), [("CALLS", "limit_turns"), ("TOKENS", "limit_total_tokens")])
async def test_a_turn_at_its_limit_behind_a_tool_is_completed_and_closed(
    data_dir: Path, limit: str, reason: str
) -> None:
    settings = {"AGENT_MCP_MAX_CALLS": "1"} if limit == "CALLS" else {"AGENT_MCP_TURN_TOKENS": "1000"}

    def script(received: Received) -> Reply:
        if received.last_text == "Break":
            return Answer(use_tool("calculator", {"expression": "1 + 1"}).blocks, usage=(2000, 5))
        return say(f"You said: {received.last_text}")

    with BedrockServer(script) as model:
        async with asked_once(data_dir, model, **settings) as server:
            reply = await server.ask("Break", session_id="mine")
            assert (reply["status"], reply["stop_reason"]) == ("completed", reason)
            before = await messages(server, "mine")
            assert [message["role"] for message in before][2:] == KEPT_WITH_TOOL
            assert before[-1]["text"] == reply["response"]
            assert (await server.ask("Go on", session_id="mine"))["response"] == "You said: Go on"
            assert model.violations == []
