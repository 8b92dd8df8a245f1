"""REST: sessions and what was said in them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from agent_mcp.domain import SessionInfo
from agent_mcp.http.forms import MessageQuery, SessionChanges, SessionForm, SessionKey, SessionQuery, SessionSearch
from agent_mcp.http.parts import API, TheCaller, TheService
from agent_mcp.http.problems import problems
from agent_mcp.service.session_cases import SessionPage, TranscriptPage
from agent_mcp.service.turn_cases import DeletedSession

router = APIRouter(prefix=f"{API}/sessions", tags=["sessions"])

_FOUND = problems("session_not_found", "session_damaged")


@router.post(
    "",
    status_code=201,
    responses=problems("agent_not_found", "session_not_found", "session_exists", "actor_mismatch", "session_damaged"),
)
async def start_session(
    query: Annotated[SessionSearch, Query()], service: TheService, caller: TheCaller, form: SessionForm | None = None
) -> SessionInfo:
    """Begin a session. Its arguments may stand in the query or in the body; where in both, the body's count."""
    given = query.model_dump(exclude_unset=True) | (form.model_dump(exclude_none=True) if form else {})
    return await service.sessions.start(caller, **given)


@router.get("", responses=problems())
async def list_sessions(query: Annotated[SessionQuery, Query()], service: TheService, caller: TheCaller) -> SessionPage:
    """List sessions, the most recently active first, or search everything that was ever said in them."""
    return await service.sessions.list_sessions(
        caller,
        agent_id=query.agent_id,
        actor_id=query.actor_id,
        status=query.status,
        query=query.query,
        limit=query.limit,
        cursor=query.cursor,
    )


@router.get("/{session_id}", responses=_FOUND)
async def get_session(session_id: SessionKey, service: TheService, caller: TheCaller) -> SessionInfo:
    """A session: its agent, actor, life, use, and the turn that is open."""
    return await service.sessions.get(caller, session_id)


@router.patch("/{session_id}", responses=_FOUND)
async def update_session(
    session_id: SessionKey, changes: SessionChanges, service: TheService, caller: TheCaller
) -> SessionInfo:
    """Change a session's title, life or budget. `ttl_seconds` counts from now and revives an expired session."""
    return await service.sessions.update(
        caller,
        session_id,
        title=changes.title,
        ttl_seconds=changes.ttl_seconds,
        token_budget=changes.token_budget,
    )


@router.delete("/{session_id}", responses=problems("session_not_found", "session_busy"))
async def delete_session(session_id: SessionKey, service: TheService, caller: TheCaller) -> DeletedSession:
    """Delete a session and all that was said in it, for good. A turn that still works is cancelled."""
    return await service.turns.delete_session(caller, session_id)


@router.get("/{session_id}/messages", responses=_FOUND)
async def read_messages(
    session_id: SessionKey, query: Annotated[MessageQuery, Query()], service: TheService, caller: TheCaller
) -> TranscriptPage:
    """The newest messages of a session, or the newest in front of the index `before`. A long text comes in pieces."""
    return await service.sessions.read(caller, session_id, limit=query.limit, before=query.before, offset=query.offset)
