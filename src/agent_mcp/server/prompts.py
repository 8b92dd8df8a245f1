"""Prompts: what a person picks in a host to begin, to go on, or to pass a conversation to another agent."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from mcp_types import GetPromptResult, Prompt, PromptArgument, PromptMessage, TextContent

from agent_mcp.domain import Caller, SessionInfo, parse_agent_id, parse_session_id
from agent_mcp.errors import AgentMcpError, InvalidArgument
from agent_mcp.server import icons
from agent_mcp.server.resources import protocol_error, transcript_link
from agent_mcp.service import Service

_LONGEST = 100_000
"""Characters of an argument. A host sends what it gets back to its model."""


@dataclass(frozen=True, kw_only=True)
class _Text:
    """What a prompt says, and the session whose transcript it links to."""

    text: str
    session: SessionInfo | None = None


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """One prompt: how it is listed, and how its text is made of its arguments."""

    title: str
    description: str
    write: Callable[[Service, Caller, Mapping[str, str]], Awaitable[_Text]]
    needed: Mapping[str, str] = field(default_factory=dict[str, str])
    possible: Mapping[str, str] = field(default_factory=dict[str, str])


class Prompts:
    """The prompts over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def list_prompts(self) -> list[Prompt]:
        return [
            Prompt(
                name=name,
                title=recipe.title,
                description=recipe.description,
                arguments=[
                    *(PromptArgument(name=key, description=text, required=True) for key, text in recipe.needed.items()),
                    *(PromptArgument(name=key, description=text) for key, text in recipe.possible.items()),
                ],
                icons=icons.ASK,
            )
            for name, recipe in _RECIPES.items()
        ]

    async def get(self, caller: Caller, name: str, arguments: Mapping[str, str]) -> GetPromptResult:
        """A prompt's text; raises MCPError for what can't be used."""
        try:
            recipe = _RECIPES.get(name)
            if recipe is None:
                raise InvalidArgument(f"There is no prompt {name[:60]!r}. There are: {', '.join(_RECIPES)}.")
            written = await recipe.write(self._service, caller, _checked(name, recipe, arguments))
        except AgentMcpError as error:
            raise protocol_error(error) from None
        messages = [PromptMessage(role="user", content=TextContent(type="text", text=written.text))]
        if written.session is not None:
            messages.append(PromptMessage(role="user", content=transcript_link(written.session)))
        return GetPromptResult(description=recipe.description, messages=messages)


def _checked(name: str, recipe: _Recipe, arguments: Mapping[str, str]) -> dict[str, str]:
    known = [*recipe.needed, *recipe.possible]
    for key, value in arguments.items():
        if key not in known:
            raise InvalidArgument(
                f"The prompt {name} has no argument {key[:60]!r}. Its arguments are: {', '.join(known)}."
            )
        if len(value) > _LONGEST:
            raise InvalidArgument(f"The argument {key!r} has {len(value)} characters: shorten it to {_LONGEST}.")
    given = {key: value.strip() for key, value in arguments.items() if value.strip()}
    missing = [key for key in recipe.needed if key not in given]
    if missing:
        raise InvalidArgument(f"The prompt {name} needs the argument {missing[0]!r}: {recipe.needed[missing[0]]}.")
    return given


async def _delegate(service: Service, caller: Caller, given: Mapping[str, str]) -> _Text:
    agent_id = parse_agent_id(given.get("agent_id", "assistant"))
    agent = await service.agents.get(caller, agent_id)
    purpose = f" ({agent.description})" if agent.description else ""
    return _Text(
        text=f"""Have an agent do this, and tell me what it says:

{given["task"]}

Call ask_agent with agent_id {json.dumps(agent_id)}{purpose}, without a session_id: a new conversation begins. The agent
does not see ours, so put everything it needs into the prompt: what I want, what is known, what the answer should look
like. If the reply's status is "working", call get_reply with its turn_id until it is done. If the agent asks something,
answer it with get_reply(answer=...) where you can, and ask me where you can't. In the end tell me the session_id: with
it the conversation goes on another day."""
    )


async def _continue_session(service: Service, caller: Caller, given: Mapping[str, str]) -> _Text:
    session = await service.sessions.get(caller, parse_session_id(given["session_id"]))
    message = given.get("message")
    steps = _before_asking(session)
    if message is None:
        steps.append("Tell me in two or three sentences where the conversation stands, and ask me how to go on.")
    else:
        steps.append(
            f"Then call ask_agent with session_id {json.dumps(session.session_id)} and say to the agent what stands "
            "below; it remembers all that was said. Tell me its answer."
        )
    tail = f"\n\n{message}" if message else ""
    return _Text(
        text=f"Go on with {_named(session)}. Call read_transcript with its session_id to see the last messages. "
        + " ".join(steps)
        + tail,
        session=session,
    )


async def _hand_over(service: Service, caller: Caller, given: Mapping[str, str]) -> _Text:
    session = await service.sessions.get(caller, parse_session_id(given["session_id"]))
    agent = await service.agents.get(caller, parse_agent_id(given["agent_id"]))
    message = given.get("message", "Take over this conversation: say in a few sentences where it stands, and go on.")
    return _Text(
        text=f"""Pass {_named(session)} on to the agent {json.dumps(agent.agent_id)}.

Call start_session with continue_from {json.dumps(session.session_id)} and agent_id {json.dumps(agent.agent_id)}: it
begins a new session that has the whole history (give at, the index of a message in read_transcript, to take it only up
to there). The old session stays as it is. Then call ask_agent with the new session_id and this prompt, and tell me the
answer and the new session_id:

{message}""",
        session=session,
    )


def _named(session: SessionInfo) -> str:
    """A session in words. A title is what somebody wrote, so it stands in quotes."""
    title = f" ({json.dumps(session.title, ensure_ascii=False)})" if session.title else ""
    return (
        f"the session {session.session_id}{title} with the agent {session.agent_id}, "
        f"last active {session.last_active_at:%Y-%m-%d %H:%M} UTC"
    )


def _before_asking(session: SessionInfo) -> list[str]:
    """What has to be done in a session before it can be asked in."""
    steps: list[str] = []
    if session.status == "expired":
        steps.append(
            f"It has expired: revive it with update_session(session_id={json.dumps(session.session_id)}, "
            "ttl_seconds=2592000), which gives it 30 days."
        )
    if session.open_turn is not None:
        steps.append(f"Its last turn has not ended: call get_reply(turn_id={json.dumps(session.open_turn.turn_id)}).")
    return steps


_RECIPES: dict[str, _Recipe] = {
    "delegate": _Recipe(
        title="Delegate a task",
        description="Have an agent do something in a conversation of its own",
        write=_delegate,
        needed={"task": "What is to be done"},
        possible={"agent_id": "Whom to ask; default: assistant"},
    ),
    "continue_session": _Recipe(
        title="Continue a conversation",
        description="Go on with an earlier conversation: the agent remembers it",
        write=_continue_session,
        needed={"session_id": "Which one: an id, or words that were said in it"},
        possible={"message": "What to say to the agent; without it: a summary of where things stand"},
    ),
    "hand_over": _Recipe(
        title="Hand a conversation over",
        description="Go on with a conversation with another agent, which gets its history",
        write=_hand_over,
        needed={"session_id": "Which one: an id, or words that were said in it", "agent_id": "Who takes over"},
        possible={"message": "What to say to the new agent"},
    ),
}
