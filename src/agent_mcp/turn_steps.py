"""The steps of a turn on disk: begin, resume, end. Blocking; all run under the session's turn lock."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_mcp.domain import (
    AgentSpec,
    Caller,
    Failure,
    SessionId,
    SessionMeta,
    ToolCall,
    TurnId,
    TurnRecord,
    Usage,
    now,
    title_of,
)
from agent_mcp.errors import AgentMcpError, SessionNotFound, TurnConflict, TurnPending
from agent_mcp.models import ModelRef
from agent_mcp.outcomes import Outcome
from agent_mcp.recovery import recover, refuse_pending
from agent_mcp.settle import INTERRUPTED, settle
from agent_mcp.storage.history import History
from agent_mcp.storage.store import Store

if TYPE_CHECKING:
    from agent_mcp.agents import SessionAgent

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """An ask that was found valid: where, with which agent and model, and the record that was written of it.

    `response` answers what the turn waits for, where it goes on rather than begins. `token_limit` is for this turn
    (0 = none), asked for when its time has come: the turns before it use tokens too. `depth` counts the agents that
    wait for this one.
    """

    store: Store
    caller: Caller
    spec: AgentSpec
    model: ModelRef
    record: TurnRecord
    response: str | None = None
    token_limit: Callable[[], int] = lambda: 0
    depth: int = 0


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request for a turn. `admit` is called off the loops, once the turn has its place in its session's queue.

    `session_id` is None where the session is still to be made, so that nobody can be waiting in it.
    """

    turn_id: TurnId
    subject: str
    session_id: SessionId | None
    admit: Callable[[], Admitted]


class Repeated(TurnConflict):
    """There is such a turn already: in this process, or by its record."""

    def __init__(self, turn_id: TurnId) -> None:
        super().__init__(f"The turn {turn_id} is in hand already, and nothing was done: get_reply says how it is.")


def begin(admitted: Admitted) -> TurnRecord:
    """Settles what was left in the session and writes that the turn works now; returns its record."""
    store, record = admitted.store, admitted.record
    meta = store.find_session(record.session_id)
    if meta is None:
        raise SessionNotFound(f"The session {record.session_id!r} was deleted while the ask waited.")
    left = store.find_turn(meta.last_turn) if meta.last_turn else None
    if left is not None and left.is_open:
        recover(store, left)
    elif left is not None and left.is_overdue:
        refuse_pending(store, left, note=INTERRUPTED)
    elif left is not None and left.is_pending:
        raise pending_error(left)
    history = store.history(meta)
    history.manager()
    changed = settle(history, saved=left.conversation if left else None)
    record = record.model_copy(
        update={"status": "working", "first_message": history.count(), "conversation": history.conversation()}
    )
    store.save_turn(record, sync=False)

    recount = _recount(meta, history, left)

    def mark(meta: SessionMeta) -> SessionMeta:
        return recount(meta).model_copy(update={"last_turn": record.turn_id})

    store.change_session(record.session_id, mark, sync=False, index=changed)
    return record


def resume(admitted: Admitted) -> TurnRecord:
    """Writes the answer to what the turn waits for; it works again once nothing is open. Raises TurnConflict."""
    store = admitted.store
    record = store.find_turn(admitted.record.turn_id)
    if record is None or record.question is None or record.question != admitted.record.question:
        raise TurnConflict(
            f"The turn {admitted.record.turn_id!r} does not wait for this answer (any more): get_reply says how it is."
        )
    answered = record.question.model_copy(update={"response": admitted.response})
    pending = tuple(answered if item == record.question else item for item in record.pending)
    record = record.model_copy(update={"pending": pending})
    if record.question is None:
        record = record.model_copy(update={"status": "working", "process": store.process})
    # Durable before anything runs: otherwise a kill would have it asked, and run, a second time.
    store.save_turn(record, sync=True)
    return record


def end(
    admitted: Admitted,
    record: TurnRecord,
    outcome: Outcome,
    *,
    agent: SessionAgent | None,
    partial: str,
    calls: dict[str, ToolCall],
) -> TurnRecord:
    """Settles, makes durable, and writes record, metadata and index; returns the record.

    `agent` is what ran (None: it could not be built), `partial` what the model wrote of a message that it did not
    complete, `calls` the uses of tools.
    """
    store = admitted.store
    usage = Usage()
    cycles = 0
    if agent is not None:
        agent.manager.fence()
        usage = agent.window.usage + agent.tokens.used
        cycles = agent.agent.event_loop_metrics.cycle_count
    history = store.history_of(record)
    first = record.first_message or 0
    waits = outcome.status == "input_required"
    if not waits:
        settle(history, note=outcome.note, partial=partial, saved=record.conversation)
    history.make_durable(since=first)
    said = history.read(offset=first)
    at = now()

    def change(meta: SessionMeta) -> SessionMeta:
        return meta.model_copy(
            update={
                "last_active_at": meta.last_active_at if agent is None else at,
                "turns": meta.turns + (bool(said) and not waits),
                "usage": meta.usage + usage,
                "model": str(admitted.model),
                "title": meta.title or (title_of(record.prompt) if said else ""),
            }
        )

    found = store.find_session(record.session_id)
    if found is None:
        raise SessionNotFound(f"The session {record.session_id!r} was deleted while the turn ran.")
    meta = change(found)
    record = record.model_copy(
        update={
            "status": outcome.status,
            "ended_at": None if waits else at,
            "response": outcome.response if outcome.response is not None else (said[-1].text if said else ""),
            "stop_reason": outcome.stop_reason,
            "usage": record.usage + usage,
            "session_usage": meta.usage,
            "tool_calls": calls,
            "expires_at": None if waits else meta.expires_at,
            "failure": _failure(outcome.failure),
            "pending": outcome.pending,
            "pending_since": at if waits else None,
            "model_calls": record.model_calls + cycles,
        }
    )
    store.save_turn(record, sync=True)
    store.change_session(record.session_id, change, sync=False)
    logger.info("turn %s in session %s: %s", record.turn_id, record.session_id, record.status)
    return record


def end_unbegun(admitted: Admitted, error: AgentMcpError | None) -> TurnRecord:
    """The record of a turn that was cancelled in the queue (None), or that an error kept from its end.

    One that has ended stays as it is, whatever failed behind that; so does one that still waits for somebody, and why
    it can't go on is raised. Where the record is gone with its session, none is written.
    """
    record = admitted.store.find_turn(admitted.record.turn_id)
    if isinstance(error, TurnConflict) or (record is not None and record.is_pending and error is not None):
        raise error  # An answer that did not count, whatever became of the turn since.
    if record is not None and not record.is_open:
        return record
    if record is not None and record.first_message is not None and admitted.store.has_session(record.session_id):
        # It broke off at its end, perhaps behind its last message: then it is kept, and completed as if by a kill.
        with suppress(AgentMcpError):
            record = recover(admitted.store, record)
            if record.status == "completed":
                return record
    status = "failed" if error else "cancelled"
    stop_reason = None if error else status
    ended = {"status": status, "ended_at": now(), "failure": _failure(error), "stop_reason": stop_reason}
    if record is None or not admitted.store.has_session(record.session_id):
        admitted.store.remove_turn(admitted.record.turn_id)  # Nothing of a deleted session is left behind.
        return admitted.record.model_copy(update=ended)
    record = record.model_copy(update=ended)
    admitted.store.save_turn(record, sync=True)
    return record


def _recount(meta: SessionMeta, history: History, left: TurnRecord | None) -> Callable[[SessionMeta], SessionMeta]:
    """Brings in what the turn before, `left`, had to write to the metadata behind its record, and perhaps could not."""
    if left is None or left.ended_at is None or left.ended_at <= meta.last_active_at:
        return lambda meta: meta
    prompts = history.prompts()

    def recounted(meta: SessionMeta) -> SessionMeta:
        update = {
            "turns": len(prompts),
            "usage": max(meta.usage, left.session_usage, key=lambda usage: usage.total_tokens),
            "title": meta.title or (title_of(prompts[0]) if prompts else ""),
        }
        return meta.model_copy(update=update)

    return recounted


def pending_error(record: TurnRecord) -> TurnPending:
    """The error for an ask in a session whose last turn waits for somebody's input, with both ways out."""
    return TurnPending(
        f"The turn {record.turn_id} in this session waits for input, and your prompt was not taken. {record.wanted} "
        "Have it decided first (a question: get_reply with answer), or give it up with cancel_turn, and ask again."
    )


def _failure(error: AgentMcpError | None) -> Failure | None:
    return Failure(code=error.code, message=error.message) if error else None
