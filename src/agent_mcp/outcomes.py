"""What the end of a Strands run, or its exception, means for the turn."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_mcp.domain import PendingInput, TurnStatus
from agent_mcp.errors import AgentMcpError, ModelFailed, StorageFailed, TurnTimeout
from agent_mcp.settle import INTERRUPTED

if TYPE_CHECKING:
    from strands.agent import AgentResult
    from strands.interrupt import Interrupt

    from agent_mcp.agents import SessionAgent

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended. `response` is None where the last message that was kept is the answer; `note` closes a history
    that was left open; `pending` is what the turn waits for."""

    status: TurnStatus
    stop_reason: str | None = None
    response: str | None = None
    note: str = INTERRUPTED
    failure: AgentMcpError | None = None
    pending: tuple[PendingInput, ...] = ()


CANCELLED = Outcome(status="cancelled", stop_reason="cancelled")


def timed_out(seconds: float) -> Outcome:
    text = f"The turn was stopped after {seconds:g} s. What it had done is kept; ask again."
    return Outcome(status="failed", failure=TurnTimeout(text))


def completed(result: AgentResult, built: SessionAgent, *, max_calls: int) -> Outcome:
    """The outcome of a run that Strands brought to an end."""
    reason = str(result.stop_reason)
    if reason == "interrupt":
        return Outcome(status="input_required", stop_reason=reason, pending=_pending(result))
    if built.tokens.is_exceeded:
        return Outcome(status="completed", stop_reason="limit_total_tokens", response=built.tokens.note)
    if reason == "limit_turns":
        note = f"[Stopped: this turn used its {max_calls} model calls. Ask again to go on.]"
        return Outcome(status="completed", stop_reason=reason, note=note, response=note)
    if not result.message["content"]:
        return Outcome(status="failed", failure=ModelFailed("The model's answer broke off without a word: ask again."))
    text = "\n".join(block["text"] for block in result.message["content"] if "text" in block)
    return Outcome(status="completed", stop_reason=reason, response=text)


def failed(error: Exception) -> Outcome:
    """The outcome of a run that ended in an exception."""
    from strands.types.exceptions import (
        ContextWindowOverflowException,
        EventLoopException,
        MaxTokensReachedException,
        ModelThrottledException,
        SessionException,
    )

    from agent_mcp.models.guarded import Again

    while isinstance(error, EventLoopException):
        error = error.original_exception
    if isinstance(error, Again):
        error = error.failure
    if isinstance(error, AgentMcpError):
        return Outcome(status="failed", failure=error)
    if isinstance(error, MaxTokensReachedException):
        return Outcome(status="completed", stop_reason="max_tokens")
    logger.warning("a turn failed in the model or in Strands", exc_info=error)
    if isinstance(error, SessionException):
        text = "The conversation can't be kept, and the server's log says why: have that mended, and ask again."
        return Outcome(status="failed", failure=StorageFailed(text))
    if isinstance(error, ContextWindowOverflowException):
        text = "The prompt and what must stay of the conversation are too long for the model: ask something shorter."
    elif isinstance(error, ModelThrottledException):
        text = "The model's service turned the request down as one too many, also when tried again: ask later."
    else:
        reason = " ".join(str(error).split())[:500] or "no reason given"
        text = f"The model could not answer ({type(error).__name__}: {reason}). The session is usable: ask again."
    return Outcome(status="failed", failure=ModelFailed(text))


def _pending(result: AgentResult) -> tuple[PendingInput, ...]:
    from agent_mcp.approvals import NAME_PREFIX

    def wanted(interrupt: Interrupt) -> PendingInput:
        text = str(interrupt.reason)
        if not interrupt.name.startswith(NAME_PREFIX):
            return PendingInput(interrupt_id=interrupt.id, kind="question", text=text)
        return PendingInput(interrupt_id=interrupt.id, kind="approval", text=text, tool=text.partition(" ")[0])

    return tuple(wanted(interrupt) for interrupt in result.interrupts or ())
