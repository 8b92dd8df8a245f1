"""From a turn to the answer of a request: progress while it runs, a person's yes where one is needed, the reply."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from typing import Any

import anyio
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult

from agent_mcp.domain import Reply, TurnRecord
from agent_mcp.errors import AgentMcpError, TurnConflict
from agent_mcp.events import Event, Retrying, StillWorking, TextWritten, ToolEnded, ToolStarted
from agent_mcp.following import Followed
from agent_mcp.server.tool_table import APPROVAL_KEY, HANDSHAKE_LAST, Call, Context, Decision

logger = logging.getLogger(__name__)

_MOST_ROUNDS = 8
"""Questions to a person within one request; clients give up after ten."""
_LOOK_SECONDS = 2
"""How often it is looked whether somebody decided elsewhere while a person is asked."""
_BEAT_SECONDS = 10
_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"allow": {"type": "boolean", "title": "Allow this once", "default": False}},
    "required": ["allow"],
}


async def finish(call: Call, followed: Followed, wait_seconds: float | None) -> Reply | InputRequiredResult:
    """Follows a turn until it ends or the wait is over; asks the host's person where a tool needs approval.

    Returns the reply, or on 2026-07-28 what the client has to ask the person before it repeats the request.
    """
    wait = call.service.settings.wait_seconds if wait_seconds is None else wait_seconds
    if call.task_after is not None and wait > call.task_after:
        wait, call.is_task = call.task_after, True
    for round_number in range(_MOST_ROUNDS):
        await _follow(call, followed, wait)
        record = followed.record()
        question = record.question
        if question is None or question.kind != "approval" or not (call.may_ask and can_elicit(call.context)):
            break
        if call.context.protocol_version > HANDSHAKE_LAST:
            if call.round_number + round_number >= _MOST_ROUNDS:
                break
            return InputRequiredResult(
                input_requests={APPROVAL_KEY: approval_request(record)},
                request_state=json.dumps([record.turn_id, question_digest(record), call.round_number + 1]),
            )
        if not call.context.session.can_send_request:
            break
        result = await _ask_person(call, record)
        if result is None:
            followed = await call.service.turns.follow(call.caller, turn_id=record.turn_id)
            if question_digest(followed.record()) == question_digest(record):
                break
            continue  # Somebody decided elsewhere meanwhile.
        if result.action == "cancel":
            break
        followed = await _decide(call, record, approve=is_yes(result))
    return followed.reply()


async def _ask_person(call: Call, record: TurnRecord) -> ElicitResult | None:
    """Asks the person at a host with a handshake; None if the host failed to, or somebody decided elsewhere meanwhile.

    The request would run into the host's time limit while the person thinks: signs of life go on.
    """
    result: ElicitResult | None = None

    async def stay_alive() -> None:
        for seconds in itertools.count(_LOOK_SECONDS, _LOOK_SECONDS):
            await anyio.sleep(_LOOK_SECONDS)
            if seconds % _BEAT_SECONDS == 0:
                call.step += 1
                text = f"Waits for a person's decision ({seconds} s)"
                await call.context.session.report_progress(call.step, message=text)
            try:
                current = (await call.service.turns.follow(call.caller, turn_id=record.turn_id)).record()
            except AgentMcpError:
                break  # What is wrong is said by whoever looks at the turn next.
            if question_digest(current) != question_digest(record):
                break
        asking.cancel_scope.cancel()

    async with anyio.create_task_group() as asking:
        asking.start_soon(stay_alive)
        try:
            result = await call.context.session.elicit_form(
                _message(record), _FORM, related_request_id=call.context.request_id
            )
        except MCPError:
            logger.warning("the host could not ask its person about turn %s", record.turn_id, exc_info=True)
        asking.cancel_scope.cancel()
    return result


async def decided(call: Call, decision: Decision) -> Followed:
    """Carries out a person's decision that a repeated request brings, and returns the turn to follow."""
    turns = call.service.turns
    followed = await turns.follow(call.caller, turn_id=decision.turn_id)
    record = followed.record()
    if question_digest(record) != decision.digest:
        return followed  # Somebody else decided meanwhile.
    if decision.approve is None:
        call.may_ask = False
        return followed
    return await _decide(call, record, approve=decision.approve)


async def _decide(call: Call, record: TurnRecord, *, approve: bool) -> Followed:
    """Decides on just what the person saw. Where somebody else was faster, it is their turn that goes on."""
    turns = call.service.turns
    try:
        return await turns.decide(call.caller, record.turn_id, approve=approve, question=record.question)
    except TurnConflict:
        return await turns.follow(call.caller, turn_id=record.turn_id)


def question_digest(record: TurnRecord) -> str:
    """Names just this question of this turn, so that no yes is ever taken for another one."""
    question = record.question
    # With the moment: a model may want the same use twice in one turn, even under one id. Files keep milliseconds.
    moment = record.pending_since.isoformat(timespec="milliseconds") if record.pending_since else ""
    text = "\0".join((record.turn_id, question.interrupt_id, question.text, moment)) if question else ""
    return hashlib.sha256(text.encode()).hexdigest()


def is_yes(result: ElicitResult) -> bool:
    """Whether a person allowed it: nothing but an explicit yes counts."""
    return result.action == "accept" and (result.content or {}).get("allow") is True


async def _follow(call: Call, followed: Followed, wait: float) -> None:
    async for event in followed.events(wait=wait):
        call.step += 1
        await call.context.session.report_progress(call.step, message=_text(event))


def _text(event: Event) -> str:
    match event:
        case TextWritten(text):
            return text
        case ToolStarted(name):
            return f"Uses the tool {name}"
        case ToolEnded(name, status):
            return f"The tool {name} {'is done' if status == 'success' else 'failed'}"
        case Retrying(seconds):
            return f"The model is busy; tried again in {seconds:g} s"
        case StillWorking(seconds):
            return f"Still working ({seconds:g} s)"


def can_elicit(context: Context) -> bool:
    """Whether the client can put a form to a person."""
    capabilities = context.session.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    # A client that declares elicitation without saying which modes means forms.
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)


def _message(record: TurnRecord) -> str:
    question = record.question
    return f"The agent {record.agent_id} wants to use the tool {question.text if question else ''}. Allow it?"


def approval_request(record: TurnRecord) -> ElicitRequest:
    """What the host asks its person about the use of a tool that a turn waits for."""
    return ElicitRequest(params=ElicitRequestFormParams(message=_message(record), requested_schema=_FORM))
