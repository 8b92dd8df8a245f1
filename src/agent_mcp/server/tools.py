"""The tools. Each is a plain function over the service; they are put into the table at the end."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import anyio
from mcp_types import InputRequiredResult, ResourceLink
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints, WithJsonSchema

from agent_mcp.domain import (
    LONGEST_LIFE,
    ActorId,
    AgentId,
    AgentSpec,
    MemoryMode,
    Reply,
    SessionId,
    SessionInfo,
    TurnId,
    parse_actor_id,
    parse_agent_id,
    parse_session_id,
    parse_turn_id,
)
from agent_mcp.following import Followed
from agent_mcp.model_params import ModelParams, params_schema
from agent_mcp.server import icons
from agent_mcp.server.memory_tools import forget, recall, remember
from agent_mcp.server.progress import decided, finish
from agent_mcp.server.resources import reply_link
from agent_mcp.server.tool_table import Call, ToolTable
from agent_mcp.service.admission import Prompt
from agent_mcp.service.agent_cases import AgentDraft, AgentPage, CreatedAgent, DeletedAgent
from agent_mcp.service.session_cases import SessionPage, TranscriptPage
from agent_mcp.service.stores import DEFAULT_PAGE, MAX_PAGE
from agent_mcp.service.turn_cases import Asked, DeletedSession

_AgentId = Annotated[AgentId, AfterValidator(parse_agent_id)]
_SessionId = Annotated[SessionId, AfterValidator(parse_session_id)]
_ActorId = Annotated[ActorId, AfterValidator(parse_actor_id)]
_TurnId = Annotated[TurnId, AfterValidator(parse_turn_id)]
_Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
_Limit = Annotated[int, Field(ge=1, le=MAX_PAGE)]
_Life = Annotated[int, Field(ge=0, le=LONGEST_LIFE, description="Idle life in seconds; 0 = never expires")]
_Budget = Annotated[int, Field(ge=0, description="Tokens that the whole session may use; 0 = no limit")]
_Cursor = Annotated[str, Field(description="next_cursor of the page before")]


def _listed(value: object) -> object:
    """Some hosts send a list as the text of one, or as names between commas."""
    if isinstance(value, str):
        return [name.strip().strip("\"'") for name in value.strip().strip("[]").split(",") if name.strip()]
    return value


def _read(value: object) -> object:
    """Some hosts send an object as its JSON."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


_SystemPrompt = Annotated[str, Field(description="Who the agent is and how it works")]
_Memory = Annotated[
    MemoryMode,
    Field(description="explicit: sees facts about its actor from all sessions; auto: learns them from each turn too"),
]
_Description = Annotated[str, Field(description="What to use it for, for list_agents")]
_Model = Annotated[str, Field(description='"provider:model_id", such as a Bedrock model id; default: the server\'s')]
_ModelParams = Annotated[ModelParams, BeforeValidator(_read), WithJsonSchema(params_schema())]
_Tools = Annotated[
    list[str],
    BeforeValidator(_listed),
    Field(description="Names of allowed tools, such as calculator; an unknown one is refused with the list"),
]


async def create_agent(
    call: Call,
    name: Annotated[str, Field(description="For people; the agent_id is made from it")],
    system_prompt: _SystemPrompt | None = None,
    description: _Description | None = None,
    model: _Model | None = None,
    model_params: _ModelParams | None = None,
    tools: _Tools | None = None,
    memory: _Memory | None = None,
    agent_id: Annotated[_AgentId | None, Field(description="An id of your own")] = None,
    example: Annotated[
        str | None, Field(description="Fills what is not given from an example; list_agents names them")
    ] = None,
) -> CreatedAgent:
    """Make an agent with a system prompt, model or tools of its own; then ask it with ask_agent(agent_id). Not needed
    for ordinary questions: ask_agent has a built-in agent. The same definition again gives the agent there is."""
    draft = _draft(name, system_prompt, description, model, model_params, tools, memory)
    return await call.service.agents.create(call.caller, draft, agent_id=agent_id, example=example)


async def update_agent(
    call: Call,
    agent_id: _AgentId,
    name: str | None = None,
    system_prompt: _SystemPrompt | None = None,
    description: _Description | None = None,
    model: _Model | None = None,
    model_params: _ModelParams | None = None,
    tools: _Tools | None = None,
    memory: _Memory | None = None,
) -> AgentSpec:
    """Change an agent: what is given is replaced, the rest stays. Its sessions go on with the new definition. To go on
    with another agent instead: start_session(continue_from)."""
    draft = _draft(name, system_prompt, description, model, model_params, tools, memory)
    return await call.service.agents.update(call.caller, agent_id, draft)


async def delete_agent(call: Call, agent_id: _AgentId) -> DeletedAgent:
    """Delete an agent. Its sessions stay readable, and can be continued with another agent."""
    return await call.service.agents.delete(call.caller, agent_id)


async def list_agents(
    call: Call,
    query: Annotated[str | None, Field(description="Words in id, name or description")] = None,
    limit: _Limit = DEFAULT_PAGE,
    cursor: _Cursor | None = None,
) -> AgentPage:
    """List the agents that can be asked, and the examples that create_agent can start from."""
    return await call.service.agents.list_agents(call.caller, query=query, limit=limit, cursor=cursor)


async def start_session(
    call: Call,
    agent_id: Annotated[_AgentId | None, Field(description="Default: assistant")] = None,
    actor_id: Annotated[_ActorId | None, Field(description="The person on whose behalf; default: local")] = None,
    title: Annotated[str | None, Field(description="Default: the first prompt")] = None,
    session_id: Annotated[_SessionId | None, Field(description="An id of your own, lower case")] = None,
    ttl_seconds: _Life | None = None,
    token_budget: _Budget | None = None,
    continue_from: Annotated[_SessionId | None, Field(description="Begin with this session's history")] = None,
    at: Annotated[int | None, Field(ge=0, description="Take it up to this message only (index, inclusive)")] = None,
) -> SessionInfo:
    """Begin a conversation before asking in it: to give it a title, an id or a life of your own, or with the history of
    another one (continue_from), whole or up to a message (at), with the same or another agent (agent_id). Then call
    ask_agent with the session_id that this returns. Otherwise just call ask_agent: it begins a session by itself."""
    return await call.service.sessions.start(
        call.caller,
        agent_id=agent_id,
        actor_id=actor_id,
        title=title,
        session_id=session_id,
        ttl_seconds=ttl_seconds,
        token_budget=token_budget,
        continue_from=continue_from,
        at=at,
    )


async def update_session(
    call: Call,
    session_id: _SessionId,
    title: str | None = None,
    ttl_seconds: _Life | None = None,
    token_budget: _Budget | None = None,
) -> SessionInfo:
    """Change a session's title, life or budget. ttl_seconds counts from now and revives an expired session
    (session_expired), so that ask_agent goes on in it with all that was said."""
    return await call.service.sessions.update(
        call.caller, session_id, title=title, ttl_seconds=ttl_seconds, token_budget=token_budget
    )


async def delete_session(call: Call, session_id: _SessionId) -> DeletedSession:
    """Delete a session and all that was said in it, for good. A turn that still works is cancelled."""
    return await call.service.turns.delete_session(call.caller, session_id)


async def ask_agent(
    call: Call,
    prompt: Annotated[str, Field(description="What you say to the agent; it sees only this session, not your chat")],
    agent_id: Annotated[
        _AgentId | None, Field(description="Whom to ask, for a new session; default: assistant")
    ] = None,
    session_id: Annotated[
        _SessionId | None, Field(description="From an earlier reply: the agent remembers. Without it: a fresh start")
    ] = None,
    actor_id: Annotated[_ActorId | None, Field(description="The person on whose behalf; default: local")] = None,
    wait_seconds: Annotated[
        _Seconds | None, Field(description="How long to wait before a reply with status working; default: 45")
    ] = None,
) -> Reply | InputRequiredResult:
    """Say something to an agent and get its reply. Without session_id a new conversation (session) begins, and the
    reply gives its session_id: keep it. With it the agent remembers all that was said there, also days and restarts
    later (lost it? list_sessions finds it). The reply's status: "completed"; "working": the turn goes on, call
    get_reply with its turn_id, do not ask again; "input_required": question says what is wanted, answer an agent's
    question with get_reply(turn_id, answer)."""
    if call.decision is not None:
        asked = Asked(followed=await decided(call, call.decision), is_new=True)
    else:
        asked = await call.service.turns.ask(
            call.caller,
            Prompt(text=prompt, agent_id=agent_id, session_id=session_id, actor_id=actor_id, key=call.idempotency_key),
        )
    if not asked.is_new:
        return await finish(call, asked.followed, wait_seconds)
    call.cancels.started(call.context, call.caller, asked.followed.turn_id)
    try:
        result = await finish(call, asked.followed, wait_seconds)
    except anyio.get_cancelled_exc_class():
        call.cancels.interrupted(call.context, call.caller, asked.followed.turn_id)
        raise
    call.cancels.answered(call.context, call.caller)
    return result


async def get_reply(
    call: Call,
    turn_id: Annotated[_TurnId | None, Field(description="From a reply")] = None,
    session_id: Annotated[_SessionId | None, Field(description="Instead: its latest turn")] = None,
    wait_seconds: Annotated[_Seconds | None, Field(description="How long to wait for its end; default: 45")] = None,
    answer: Annotated[
        str | None, Field(description="To the question of a turn that is input_required; not for approvals")
    ] = None,
) -> Reply | InputRequiredResult:
    """Wait for the reply to an earlier ask_agent: one that was "working" (still so? call again), or one that you
    missed. With answer: answer the agent's question of a turn that is "input_required", and get what it says then."""
    turns = call.service.turns
    if call.decision is not None:
        followed: Followed = await decided(call, call.decision)
    elif answer is not None:
        followed = await turns.answer(call.caller, answer, turn_id=turn_id, session_id=session_id)
    else:
        followed = await turns.follow(call.caller, turn_id=turn_id, session_id=session_id)
    return await finish(call, followed, wait_seconds)


async def cancel_turn(
    call: Call,
    turn_id: Annotated[_TurnId | None, Field(description="From a reply")] = None,
    session_id: Annotated[_SessionId | None, Field(description="Instead: its latest turn")] = None,
) -> Reply:
    """Stop a turn that is still working, or give up one that waits for input. What it wrote so far is kept; a prompt
    without any answer is withdrawn. A turn that has ended stays as it is."""
    return await call.service.turns.cancel(call.caller, turn_id=turn_id, session_id=session_id)


async def list_sessions(
    call: Call,
    agent_id: Annotated[_AgentId | None, Field(description="Only with this agent")] = None,
    actor_id: Annotated[_ActorId | None, Field(description="Only of this person")] = None,
    status: Literal["active", "expired", "damaged", "all"] = "all",
    query: Annotated[
        str | None,
        StringConstraints(max_length=1000),
        Field(description="Words that were said; gives a snippet each"),
    ] = None,
    limit: _Limit = DEFAULT_PAGE,
    cursor: _Cursor | None = None,
) -> SessionPage:
    """Find earlier conversations (sessions) and their session_id: the most recently active first, or with query those
    in which words were said, however long ago. Then go on with ask_agent(session_id), or look with read_transcript."""
    return await call.service.sessions.list_sessions(
        call.caller,
        agent_id=agent_id,
        actor_id=actor_id,
        status=status,
        query=query,
        limit=limit,
        cursor=cursor,
    )


async def read_transcript(
    call: Call,
    session_id: _SessionId,
    limit: _Limit = DEFAULT_PAGE,
    before: Annotated[int | None, Field(ge=0, description="Only messages in front of this index")] = None,
    offset: Annotated[
        int | None, Field(ge=0, description="Only the message in front of before, from this character on: its cut_at")
    ] = None,
) -> TranscriptPage:
    """Read what was said in a session, also in an expired one; nothing is asked of the agent. Gives the newest
    messages, each with its index and time; pass the returned before to go further back."""
    return await call.service.sessions.read(call.caller, session_id, limit=limit, before=before, offset=offset)


def _reply_text(result: BaseModel) -> str:
    """What the model reads of a reply: the answer, and the ids that it needs to go on."""
    assert isinstance(result, Reply)
    ids = f"[session_id: {result.session_id}, agent_id: {result.agent_id}, turn_id: {result.turn_id}]"
    match result.status:
        case "working":
            return f"{result.response}\n\nStill working: call get_reply with the turn_id. {ids}".strip()
        case "input_required":
            return f"{result.response}\n\nInput is required. {result.question} {ids}".strip()
        case "cancelled":
            return f"{result.response}\n\nThe turn was cancelled. {ids}".strip()
        case "completed":
            return f"{result.response}\n\n{ids}"


def _draft(
    name: str | None,
    system_prompt: str | None,
    description: str | None,
    model: str | None,
    model_params: ModelParams | None,
    tools: list[str] | None,
    memory: MemoryMode | None,
) -> AgentDraft:
    return AgentDraft(
        name=name,
        system_prompt=system_prompt,
        description=description,
        model=model,
        model_params=model_params,
        tools=tuple(tools) if tools is not None else None,
        memory=memory,
    )


def _reply_link(result: BaseModel) -> ResourceLink:
    assert isinstance(result, Reply)
    return reply_link(result.transcript, f"Transcript with {result.agent_id}")


def tool_table() -> ToolTable:
    """All tools, in the order in which a reader meets them."""
    table = ToolTable()
    for function, title, hints in (
        (ask_agent, "Ask an agent", {"open_world": True}),
        (get_reply, "Get a reply", {"repeats": True}),
        (cancel_turn, "Cancel a turn", {"destroys": True, "repeats": True}),
    ):
        table.add(function, title=title, text=_reply_text, link=_reply_link, icons=icons.ASK, **hints)
    table.add(list_sessions, title="List or search sessions", reads=True, icons=icons.SESSION)
    table.add(read_transcript, title="Read a transcript", reads=True, icons=icons.SESSION)
    table.add(start_session, title="Start a session", icons=icons.SESSION)
    table.add(list_agents, title="List agents", reads=True, icons=icons.AGENT)
    table.add(create_agent, title="Create an agent", repeats=True, icons=icons.AGENT)
    table.add(update_agent, title="Change an agent", destroys=True, repeats=True, icons=icons.AGENT)
    table.add(delete_agent, title="Delete an agent", destroys=True, icons=icons.AGENT)
    table.add(update_session, title="Change a session", repeats=True, icons=icons.SESSION)
    table.add(delete_session, title="Delete a session", destroys=True, icons=icons.SESSION)
    table.add(remember, title="Remember a fact", repeats=True, icons=icons.MEMORY)
    table.add(recall, title="Recall facts", reads=True, icons=icons.MEMORY)
    table.add(forget, title="Forget a fact", destroys=True, icons=icons.MEMORY)
    return table
