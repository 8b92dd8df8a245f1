"""REST: asking agents, and the turns that come of it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.responses import StreamingResponse

from agent_mcp.domain import Reply
from agent_mcp.following import Followed
from agent_mcp.http.forms import AgentKey, AnswerForm, InvokeForm, TurnKey, TurnQuery
from agent_mcp.http.parts import API, TheCaller, TheService
from agent_mcp.http.problems import problems
from agent_mcp.http.streams import streamed, wants_stream
from agent_mcp.service import Prompt, Service

router = APIRouter(prefix=API, tags=["turns"])

_SLACK_SECONDS = 60.0
"""Beyond the limit of a turn, so that one that came to its limit can say so."""

_FAILURES = ("model_error", "no_model", "session_damaged", "turn_interrupted", "turn_timeout")
_FOLLOWING: dict[int | str, dict[str, Any]] = {
    202: {"model": Reply, "description": "The turn still works, or waits for an answer or an approval"},
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Reply,
        "description": "The reply. With `Accept: text/event-stream` the events text, tool and, last, reply or error",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.post(
    "/agents/{agent_id}/invoke",
    response_model=Reply,
    responses={
        **_STREAM,
        **_FOLLOWING,
        **problems(
            "agent_not_found",
            "session_not_found",
            "agent_mismatch",
            "actor_mismatch",
            "session_busy",
            "turn_pending",
            "budget_exhausted",
            "session_expired",
            "turn_conflict",
            *_FAILURES,
        ),
    },
)
async def invoke(
    agent_id: AgentKey,
    form: InvokeForm,
    request: Request,
    response: Response,
    service: TheService,
    caller: TheCaller,
    idempotency_key: Annotated[
        str | None, Header(max_length=255, description="The same key and request is the same turn, for 7 days")
    ] = None,
) -> Reply | StreamingResponse:
    """Ask an agent. The reply's session_id goes on with the conversation; without one a new conversation begins."""
    prompt = Prompt(
        text=form.prompt,
        agent_id=agent_id,
        session_id=form.session_id,
        actor_id=form.actor_id,
        key=idempotency_key or None,
    )
    asked = await service.turns.ask(caller, prompt)
    wait = _limit(service) if form.wait_seconds is None else form.wait_seconds
    if wants_stream(request):
        return streamed(asked.followed, wait)
    return await _reply(asked.followed, wait, response)


@router.get("/turns/{turn_id}", responses={**_FOLLOWING, **problems("turn_not_found", *_FAILURES)})
async def get_turn(
    turn_id: TurnKey, query: Annotated[TurnQuery, Query()], response: Response, service: TheService, caller: TheCaller
) -> Reply:
    """The reply of a turn, or how far it has come. A turn that failed gives its error."""
    return await _reply(await service.turns.follow(caller, turn_id=turn_id), query.wait, response)


@router.post(
    "/turns/{turn_id}/answer",
    responses={
        **_FOLLOWING,
        **problems("turn_not_found", "turn_conflict", "budget_exhausted", "agent_not_found", *_FAILURES),
    },
)
async def answer_turn(
    turn_id: TurnKey, form: AnswerForm, response: Response, service: TheService, caller: TheCaller
) -> Reply:
    """Answer the question that a turn waits with. Approvals are for a person in a shell: they are refused here."""
    followed = await service.turns.answer(caller, form.answer, turn_id=turn_id)
    return await _reply(followed, _limit(service) if form.wait_seconds is None else form.wait_seconds, response)


@router.post("/turns/{turn_id}/cancel", responses={**_FOLLOWING, **problems("turn_not_found", *_FAILURES)})
async def cancel_turn(turn_id: TurnKey, response: Response, service: TheService, caller: TheCaller) -> Reply:
    """Stop a turn. What it wrote is kept; one that has ended stays as it is."""
    return _with_status(await service.turns.cancel(caller, turn_id=turn_id), response)


def _limit(service: Service) -> float:
    return service.settings.turn_timeout + _SLACK_SECONDS


async def _reply(followed: Followed, wait: float, response: Response) -> Reply:
    """Waits for the end of a turn. A request that is dropped only stops waiting: the turn is the server's."""
    async for _ in followed.events(wait=wait):
        pass
    return _with_status(followed.reply(), response)


def _with_status(reply: Reply, response: Response) -> Reply:
    if reply.status in ("working", "input_required"):
        response.status_code = 202
    return reply
