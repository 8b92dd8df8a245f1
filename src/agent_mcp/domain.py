"""The nouns: ids, callers, agents, sessions, turns, replies. Facts without behaviour, parsed once at the edge."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from agent_mcp.errors import Forbidden
from agent_mcp.ids import (
    ActorId as ActorId,
    AgentId as AgentId,
    MemoryId as MemoryId,
    SessionId as SessionId,
    TurnId as TurnId,
    is_issued as is_issued,
    keyed_turn_id as keyed_turn_id,
    new_memory_id as new_memory_id,
    new_session_id as new_session_id,
    new_turn_id as new_turn_id,
    parse_actor_id as parse_actor_id,
    parse_agent_id as parse_agent_id,
    parse_memory_id as parse_memory_id,
    parse_session_id as parse_session_id,
    parse_turn_id as parse_turn_id,
    slug as slug,
)
from agent_mcp.model_params import ModelParams

DEFAULT_ACTOR = ActorId("local")
MAX_PROMPT_BYTES = 1024 * 1024
LONGEST_LIFE = 10 * 365 * 86400
"""The longest idle life of a session in seconds, if it has an end at all."""
DECISION_TIME = timedelta(days=7)
"""How long a turn waits for a person before it counts as refused."""
RECORDS_KEPT = timedelta(days=7)
"""How long the record of a turn is kept after its end."""


def now() -> datetime:
    return datetime.now(UTC)


def title_of(prompt: str) -> str:
    """The title of a session that begins with this prompt: its first line with words, cut at 80 characters."""
    line = next((line.strip() for line in prompt.splitlines() if line.strip()), "")
    return line if len(line) <= 80 else line[:77].rstrip() + "..."


Timestamp = Annotated[
    datetime,
    # One form everywhere, milliseconds and Z, so that texts sort as times do.
    PlainSerializer(
        lambda at: at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        return_type=str,
    ),
]
"""A time in UTC."""


class Fact(BaseModel):
    """Base of what is passed between rooms and kept in files."""

    model_config = ConfigDict(frozen=True, extra="ignore")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who calls: `subject` is authenticated and owns everything, `actor` is who it acts for where none is named.

    `act_as` are the other actors it may act for, as patterns: an id, or a beginning and `*`. None = all. `max_turns`
    is how many turns of the subject may be open at once; 0 = any number.
    """

    subject: str
    actor: ActorId = DEFAULT_ACTOR
    act_as: tuple[str, ...] | None = None
    max_turns: int = 0

    @property
    def actors(self) -> tuple[str, ...] | None:
        """Patterns of all actors that it may act for; None = all."""
        return None if self.act_as is None else (self.actor, *self.act_as)

    def may_act_for(self, actor: ActorId) -> bool:
        return (
            self.act_as is None
            or actor == self.actor
            or any(actor.startswith(p[:-1]) if p.endswith("*") else actor == p for p in self.act_as)
        )

    def actor_for(self, requested: ActorId | None) -> ActorId:
        """The actor of one call: the one that was named, else the caller's own. Raises Forbidden."""
        if requested is not None and not self.may_act_for(requested):
            covered = ", ".join(self.act_as or ())
            raise Forbidden(
                f"You may not act for the actor {requested!r}, and nothing was done: leave actor_id out to act "
                f"for {self.actor!r}{f', or name one that is covered by {covered}' if covered else ''}."
            )
        return requested or self.actor


LOCAL_SUBJECT = "local"
"""The one subject there is where nobody authenticates."""


class Usage(Fact):
    """Tokens, as the model's provider counts them."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
        )


MemoryMode = Literal["off", "explicit", "auto"]
"""Whether an agent sees what is remembered of its actor; `auto` learns from each turn too."""
MEMORY_MODES: tuple[MemoryMode, ...] = ("off", "explicit", "auto")


class AgentSpec(Fact):
    """An agent's definition, as its file holds it."""

    agent_id: AgentId
    name: str
    description: str = ""
    system_prompt: str = ""
    model: str | None = None
    model_params: ModelParams = {}
    tools: tuple[str, ...] = ()
    memory: MemoryMode = "off"
    source: str = "own"
    created_at: Timestamp | None = None
    updated_at: Timestamp | None = None
    warnings: tuple[str, ...] = ()

    def same_definition(self, other: "AgentSpec") -> bool:
        """Whether both would behave alike; dates, source and warnings don't count."""
        fields = {"name", "description", "system_prompt", "model", "model_params", "tools", "memory"}
        return self.model_dump(include=fields) == other.model_dump(include=fields)


SessionStatus = Literal["active", "expired", "damaged"]
TurnStatus = Literal["queued", "working", "input_required", "completed", "cancelled", "failed"]
ReplyStatus = Literal["completed", "working", "input_required", "cancelled"]


class SessionMeta(Fact):
    """What `metadata.json` keeps of a session beside the conversation.

    `turns` and `usage` can be counted again. `revived_at` is when its life was last set anew, `token_budget` a ceiling
    for all its turns (0 = none), `continued_from` the session whose history it began with, `delegates` the sessions in
    which its agent asks others.
    """

    session_id: SessionId
    agent_id: AgentId
    actor_id: ActorId
    title: str = ""
    created_at: Timestamp
    last_active_at: Timestamp
    ttl_seconds: int = Field(ge=0, le=LONGEST_LIFE)
    last_turn: TurnId | None = None
    turns: int = 0
    usage: Usage = Usage()
    model: str | None = None
    revived_at: Timestamp | None = None
    token_budget: int = 0
    continued_from: SessionId | None = None
    delegates: dict[AgentId, SessionId] = {}

    @property
    def expires_at(self) -> datetime | None:
        """When the session expires if nothing more is asked; None = never."""
        if not self.ttl_seconds:
            return None
        return max(self.last_active_at, self.revived_at or self.last_active_at) + timedelta(seconds=self.ttl_seconds)


class OpenTurn(Fact):
    turn_id: TurnId
    status: Literal["working", "input_required"]


class SessionInfo(Fact):
    """A session as callers see it."""

    session_id: SessionId
    agent_id: AgentId
    actor_id: ActorId
    title: str
    status: SessionStatus
    model: str | None
    created_at: Timestamp
    last_active_at: Timestamp
    expires_at: Timestamp | None
    turns: int
    usage: Usage
    token_budget: int = 0
    continued_from: SessionId | None = None
    open_turn: OpenTurn | None = None
    transcript: str


class ListedSession(SessionInfo):
    """A session in a list. `snippet` is the piece of it that fits the query."""

    snippet: str | None = None


class ToolCall(Fact):
    """One use of a tool: its name, the arguments that the model gave, and how it ended (None: no result yet)."""

    name: str
    arguments: dict[str, Any] = {}
    status: Literal["success", "error"] | None = None


class Message(Fact):
    """One message of a transcript. `role` is `tool` for what tools returned to the model.

    `cut_at` is where the rest of a text begins that is too long for one answer: what read_transcript takes as `offset`,
    with the message's index + 1 as `before`.
    """

    index: int
    role: Literal["user", "assistant", "tool"]
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    created_at: Timestamp | None = None
    cut_at: int | None = None


class Failure(Fact):
    """A failed turn's error, kept so that every later question about the turn gets the same answer."""

    code: str
    message: str


class PendingInput(Fact):
    """Something that a turn waits for: the answer to the agent's question, or a person's yes to the use of `tool`.

    `dismissed` says that a person saw it in a task and closed it undecided: a task does not ask for it again.
    """

    interrupt_id: str
    kind: Literal["question", "approval"]
    text: str
    tool: str | None = None
    response: str | None = None
    dismissed: bool = False


class TurnRecord(Fact):
    """One turn as `turns/<turn_id>.json` keeps it.

    `first_message` is the number of messages in the session when the turn began, `conversation` Strands' conversation
    manager's state at that moment: both are what a withdrawn turn goes back to. `process` names the server that runs
    it; whether that one lives is told by a lock. `tool_calls` are by the model's id of the use. `fingerprint` is of the
    request, where it came with an idempotency key.
    """

    turn_id: TurnId
    session_id: SessionId
    subject: str = LOCAL_SUBJECT
    agent_id: AgentId
    actor_id: ActorId
    status: TurnStatus
    prompt: str
    process: str
    created_at: Timestamp
    ended_at: Timestamp | None = None
    new_session: bool = False
    first_message: int | None = None
    conversation: dict[str, Any] | None = None
    model: str | None = None
    response: str = ""
    stop_reason: str | None = None
    usage: Usage = Usage()
    session_usage: Usage = Usage()
    tool_calls: dict[str, ToolCall] = {}
    expires_at: Timestamp | None = None
    failure: Failure | None = None
    pending: tuple[PendingInput, ...] = ()
    pending_since: Timestamp | None = None
    worked_seconds: float = 0
    model_calls: int = 0
    fingerprint: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether a process has it in hand."""
        return self.status in ("queued", "working")

    @property
    def is_pending(self) -> bool:
        """Whether it waits for somebody's input. After 7 days without any it counts as refused."""
        return self.status == "input_required"

    @property
    def is_overdue(self) -> bool:
        return self.is_pending and self.pending_since is not None and now() - self.pending_since > DECISION_TIME

    @property
    def question(self) -> PendingInput | None:
        """What is wanted next."""
        return next((item for item in self.pending if item.response is None), None) if self.is_pending else None

    @property
    def wanted(self) -> str | None:
        """What is wanted next, in words for whoever can give it."""
        question = self.question
        if question is None or question.kind == "question":
            return question.text if question else None
        which = self.turn_id + ("" if self.subject == LOCAL_SUBJECT else f" --subject {shlex.quote(self.subject)}")
        return (
            f"The agent {self.agent_id} wants to use the tool {question.text}. A person must allow it with "
            f"`agent-mcp turns approve {which}`, or refuse it with `agent-mcp turns deny {which}`."
        )


class Reply(Fact):
    """The answer to an ask, or how far the turn has come."""

    session_id: SessionId
    agent_id: AgentId
    actor_id: ActorId
    turn_id: TurnId
    status: ReplyStatus
    response: str
    stop_reason: str | None
    usage: Usage
    session_usage: Usage
    model: str | None
    tool_calls: tuple[ToolCall, ...]
    question: str | None
    new_session: bool
    expires_at: Timestamp | None
    transcript: str


def transcript_uri(session_id: SessionId) -> str:
    return f"session://{session_id}/transcript"


def reply_of(record: TurnRecord, *, text_so_far: str = "") -> Reply:
    """The reply that a record gives; `text_so_far` is what a turn that still works has written."""
    status: Mapping[TurnStatus, ReplyStatus] = {
        "completed": "completed",
        "cancelled": "cancelled",
        "input_required": "input_required",
    }
    return Reply(
        session_id=record.session_id,
        agent_id=record.agent_id,
        actor_id=record.actor_id,
        turn_id=record.turn_id,
        status=status.get(record.status, "working"),
        response=record.response or text_so_far,
        stop_reason=record.stop_reason,
        usage=record.usage,
        session_usage=record.session_usage,
        model=record.model,
        tool_calls=tuple(record.tool_calls.values()),
        question=record.wanted,
        new_session=record.new_session,
        expires_at=record.expires_at,
        transcript=transcript_uri(record.session_id),
    )
