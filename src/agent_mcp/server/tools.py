"""The tools. Each is a plain function over the service; they are put into the table at the end."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import anyio
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints

from agent_mcp.domain import (
    ActorId,
    AgentId,
    Reply,
    SessionId,
    SessionInfo,
    TurnId,
    parse_actor_id,
    parse_agent_id,
    parse_session_id,
    parse_turn_id,
)
from agent_mcp.events import Retrying, StillWorking, TextWritten, ToolEnded, ToolStarted
from agent_mcp.server.tool_table import Call, ToolTable
from agent_mcp.service import (
    DEFAULT_PAGE,
    MAX_PAGE,
    AgentPage,
    CreatedAgent,
    Followed,
    NewAgent,
    Prompt,
    SessionPage,
    TranscriptPage,
)

_T = TypeVar("_T")
_AgentId = Annotated[AgentId, AfterValidator(parse_agent_id)]
_SessionId = Annotated[SessionId, AfterValidator(parse_session_id)]
_ActorId = Annotated[ActorId, AfterValidator(parse_actor_id)]
_TurnId = Annotated[TurnId, AfterValidator(parse_turn_id)]
_Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
_Limit = Annotated[int, Field(ge=1, le=MAX_PAGE)]
_Cursor = Annotated[str, Field(description="next_cursor of the page before")]


def _listed(value: object) -> object:
    """Some hosts send a list as the text of one, or as names between commas."""
    if isinstance(value, str):
        return [name.strip().strip("\"'") for name in value.strip().strip("[]").split(",") if name.strip()]
    return value


async def create_agent(
    call: Call,
    name: Annotated[str, Field(description="For people; the agent_id is made from it")],
    system_prompt: Annotated[str | None, Field(description="Who the agent is and how it works")] = None,
    description: Annotated[str | None, Field(description="What to use it for, for list_agents")] = None,
    model: Annotated[
        str | None,
        Field(description='"provider:model_id", such as a Bedrock model id; default: the server\'s'),
    ] = None,
    tools: Annotated[
        list[str] | None,
        BeforeValidator(_listed),
        Field(description="Names of allowed tools, such as calculator; an unknown one is refused with the list"),
    ] = None,
    agent_id: Annotated[_AgentId | None, Field(description="An id of your own")] = None,
    example: Annotated[
        str | None, Field(description="Fills what is not given from an example; list_agents names them")
    ] = None,
) -> CreatedAgent:
    """Make an agent: a stored definition that remembers what is said in each of its sessions. Not needed for ordinary
    questions: ask_agent has a built-in agent. The same definition again gives the agent there is."""
    new = NewAgent(
        name=name,
        system_prompt=system_prompt,
        description=description,
        model=model,
        tools=tuple(tools) if tools is not None else None,
        agent_id=agent_id,
        example=example,
    )
    return await call.service.create_agent(call.caller, new)


async def list_agents(
    call: Call,
    query: Annotated[str | None, Field(description="Words in id, name or description")] = None,
    limit: _Limit = DEFAULT_PAGE,
    cursor: _Cursor | None = None,
) -> AgentPage:
    """List the agents that can be asked, and the examples that create_agent can start from."""
    return await call.service.list_agents(call.caller, query=query, limit=limit, cursor=cursor)


async def start_session(
    call: Call,
    agent_id: Annotated[_AgentId | None, Field(description="Default: assistant")] = None,
    actor_id: Annotated[_ActorId | None, Field(description="The person on whose behalf; default: local")] = None,
    title: Annotated[str | None, Field(description="Default: the first prompt")] = None,
    session_id: Annotated[_SessionId | None, Field(description="An id of your own, lower case")] = None,
    ttl_seconds: Annotated[
        int | None, Field(ge=0, le=10 * 365 * 86400, description="Idle life in seconds; 0 = never expires")
    ] = None,
) -> SessionInfo:
    """Begin a conversation with an agent before asking, to give it a title, an id or a life of your own. Otherwise just
    call ask_agent: it begins a session by itself. Keep the session_id: it is the key to the agent's memory."""
    return await call.service.start_session(
        call.caller,
        agent_id=agent_id,
        actor_id=actor_id,
        title=title,
        session_id=session_id,
        ttl_seconds=ttl_seconds,
    )


async def ask_agent(
    call: Call,
    prompt: Annotated[str, Field(description="What you say to the agent; it sees only this session, not your chat")],
    agent_id: Annotated[
        _AgentId | None, Field(description="Whom to ask, for a new session; default: assistant")
    ] = None,
    session_id: Annotated[
        _SessionId | None,
        Field(description="From an earlier reply: the agent remembers. Without it: a fresh start"),
    ] = None,
    actor_id: Annotated[_ActorId | None, Field(description="The person on whose behalf; default: local")] = None,
    wait_seconds: Annotated[
        _Seconds | None, Field(description="How long to wait before a reply with status working; default: 45")
    ] = None,
) -> Reply:
    """Ask an agent. The same session_id goes on with a conversation, also days and restarts later; the reply gives it.
    If status is "working", the turn goes on: call get_reply with its turn_id, do not ask again."""
    following = await call.service.ask(
        call.caller, Prompt(text=prompt, agent_id=agent_id, session_id=session_id, actor_id=actor_id)
    )
    try:
        await _follow(call, following, wait_seconds)
    except anyio.get_cancelled_exc_class():
        following.cancel()
        raise
    return following.reply()


async def get_reply(
    call: Call,
    turn_id: Annotated[_TurnId | None, Field(description="From a reply")] = None,
    session_id: Annotated[_SessionId | None, Field(description="Instead: its latest turn")] = None,
    wait_seconds: Annotated[_Seconds | None, Field(description="How long to wait for its end; default: 45")] = None,
) -> Reply:
    """Get the reply to an earlier ask_agent: one that was "working", or one whose answer you missed."""
    followed = await call.service.follow(call.caller, turn_id=turn_id, session_id=session_id)
    await _follow(call, followed, wait_seconds)
    return followed.reply()


async def cancel_turn(
    call: Call,
    turn_id: Annotated[_TurnId | None, Field(description="From a reply")] = None,
    session_id: Annotated[_SessionId | None, Field(description="Instead: its latest turn")] = None,
) -> Reply:
    """Stop a turn that is still working. What it wrote so far is kept; a prompt without any answer is withdrawn. A turn
    that has ended stays as it is."""
    return await call.service.cancel_turn(call.caller, turn_id=turn_id, session_id=session_id)


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
    """List conversations, the most recently active first, or search everything that was ever said in them."""
    return await call.service.list_sessions(
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
) -> TranscriptPage:
    """Read what was said in a session, the newest messages first in reach; pass the returned before to go further back.
    Nothing is asked of the agent."""
    return await call.service.read_transcript(call.caller, session_id, limit=limit, before=before)


async def _follow(call: Call, followed: Followed, wait_seconds: float | None) -> None:
    """Reports what happens in a turn as progress, until it ends or the wait is over."""
    wait = call.service.settings.wait_seconds if wait_seconds is None else wait_seconds
    step = 0
    async for event in followed.events(wait=wait):
        step += 1
        match event:
            case TextWritten(text):
                message = text
            case ToolStarted(name):
                message = f"Uses the tool {name}"
            case ToolEnded(name, status):
                message = f"The tool {name} {'is done' if status == 'success' else 'failed'}"
            case Retrying(seconds):
                message = f"The model is busy; tried again in {seconds:g} s"
            case StillWorking(seconds):
                message = f"Still working ({seconds:g} s)"
        await call.context.session.report_progress(step, message=message)


def _reply_text(result: BaseModel) -> str:
    """What the model reads of a reply: the answer, and the ids that it needs to go on."""
    assert isinstance(result, Reply)
    ids = f"[session_id: {result.session_id}, agent_id: {result.agent_id}, turn_id: {result.turn_id}]"
    match result.status:
        case "working":
            return f"{result.response}\n\nStill working: call get_reply with the turn_id. {ids}".strip()
        case "cancelled":
            return f"{result.response}\n\nThe turn was cancelled. {ids}".strip()
        case "completed":
            return f"{result.response}\n\n{ids}"


def tool_table() -> ToolTable:
    """All tools, in the order in which a reader meets them."""
    table = ToolTable()
    table.add(ask_agent, title="Ask an agent", text=_reply_text, open_world=True)
    table.add(get_reply, title="Get a reply", text=_reply_text, reads=True)
    table.add(cancel_turn, title="Cancel a turn", text=_reply_text, destroys=True, repeats=True)
    table.add(list_sessions, title="List or search sessions", reads=True)
    table.add(read_transcript, title="Read a transcript", reads=True)
    table.add(start_session, title="Start a session")
    table.add(list_agents, title="List agents", reads=True)
    table.add(create_agent, title="Create an agent", repeats=True)
    return table
