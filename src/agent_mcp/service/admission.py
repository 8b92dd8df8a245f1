"""What an ask must pass before it becomes a turn: session, agent, actor, life, budget. Blocking throughout."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from agent_mcp import agent_library
from agent_mcp.approval_words import APPROVED
from agent_mcp.config import Settings
from agent_mcp.domain import (
    MAX_PROMPT_BYTES,
    ActorId,
    AgentId,
    AgentSpec,
    Caller,
    SessionId,
    SessionMeta,
    TurnId,
    TurnRecord,
    is_issued,
    now,
)
from agent_mcp.errors import (
    ActorMismatch,
    AgentMcpError,
    AgentMismatch,
    AgentNotFound,
    BudgetExhausted,
    InvalidArgument,
    SessionExists,
    SessionExpired,
    TooLarge,
    ToolNotAllowed,
)
from agent_mcp.models import Models, parse_model
from agent_mcp.service.agent_cases import AgentCases
from agent_mcp.service.session_cases import SessionCases
from agent_mcp.service.stores import Stores
from agent_mcp.storage.store import Store
from agent_mcp.turn_steps import Admitted, Repeated, pending_error


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a caller asks, of whom; None = not said. The same `key` of the same actor is the same turn."""

    text: str
    agent_id: AgentId | None = None
    session_id: SessionId | None = None
    actor_id: ActorId | None = None
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Delegation:
    """The terms on which an agent is asked by another one: how deep, with how many tokens (0 = any number)."""

    depth: int
    token_limit: int


class Admission:
    """Admits asks: refuses what can be refused, then finds or begins the session and writes the turn's record."""

    def __init__(
        self, *, stores: Stores, settings: Settings, models: Models, agents: AgentCases, sessions: SessionCases
    ) -> None:
        self._stores = stores
        self._settings = settings
        self._models = models
        self._agents = agents
        self._sessions = sessions

    def admit(self, caller: Caller, prompt: Prompt, turn_id: TurnId, terms: Delegation | None) -> Admitted:
        """Finds or begins the session, and writes the turn's record. What can be refused is refused before."""
        store = self._stores.of(caller)
        actor = caller.actor_for(prompt.actor_id)
        meta = store.find_session(prompt.session_id) if prompt.session_id else None
        if meta is not None:
            self._check_session(store, meta, prompt, delegated=terms is not None)
        elif prompt.session_id is not None and (is_issued(prompt.session_id) or prompt.agent_id is None):
            raise self._sessions.not_found(prompt.session_id)
        agent_id = meta.agent_id if meta else prompt.agent_id or agent_library.DEFAULT_AGENT
        agent = self._agents.usable(store, self._asked_agent(store, agent_id, meta))
        model = self._models.choose(agent.model).ref
        new = meta is None
        if meta is None:
            meta = self._sessions.new_meta(store, actor, agent, session_id=prompt.session_id)
            try:
                store.create_session(meta)
            except SessionExists:
                if not store.has_session(meta.session_id):
                    raise  # It is an actor's for whom the caller may not act.
                # Somebody else began it at the same moment.
                return self.admit(caller, prompt, turn_id, terms)
        session_id = meta.session_id

        def token_limit() -> int:
            limit = self._token_limit(self._sessions.find(store, session_id), used=0)
            return min(limit or terms.token_limit, terms.token_limit) if terms and terms.token_limit else limit

        record = TurnRecord(
            turn_id=turn_id,
            session_id=meta.session_id,
            subject=caller.subject,
            agent_id=meta.agent_id,
            actor_id=meta.actor_id,
            status="queued",
            prompt=prompt.text,
            process=store.process,
            created_at=now(),
            new_session=new,
            model=str(model),
            session_usage=meta.usage,
            expires_at=meta.expires_at,
            fingerprint=fingerprint(prompt) if prompt.key is not None else None,
        )
        try:
            if not store.create_turn(record):
                raise Repeated(turn_id)
        except AgentMcpError:
            # The turn that there is may have come to this session: then it is its session.
            other = store.find_turn(turn_id)
            if new and (other is None or other.session_id != meta.session_id):
                store.remove_session(meta.session_id)
            raise
        return Admitted(
            store=store,
            caller=caller,
            spec=agent,
            model=model,
            record=record,
            token_limit=token_limit,
            depth=terms.depth if terms else 0,
        )

    def admit_again(self, caller: Caller, store: Store, record: TurnRecord, response: str) -> Admitted:
        """Lets a turn go on with the answer to what it waits for. Raises ToolNotAllowed, BudgetExhausted."""
        meta = self._sessions.find(store, record.session_id)
        spec = self._agents.usable(store, self._asked_agent(store, record.agent_id, meta))
        limit = self._token_limit(meta, used=record.usage.total_tokens)
        if response == APPROVED:
            _check_allowed(record, spec)
        return Admitted(
            store=store,
            caller=caller,
            spec=spec,
            model=parse_model(record.model) if record.model else self._models.choose(None).ref,
            record=record,
            response=response,
            token_limit=lambda: limit,
        )

    def delegate_session(self, parent: Admitted, agent_id: AgentId) -> SessionId:
        """The session in which one session's agent asks another agent: made at the first time. Blocking."""
        store = parent.store
        meta = self._sessions.find(store, parent.record.session_id)
        known = meta.delegates.get(agent_id)
        if known is not None and store.has_session(known):
            return known
        agent = self._agents.definition(store, agent_id)
        title = f"Asked by {meta.agent_id}: {meta.title}"[:200]
        made = self._sessions.new_meta(store, meta.actor_id, agent, session_id=None, title=title)
        store.create_session(made)

        def link(meta: SessionMeta) -> SessionMeta:
            if meta.delegates.get(agent_id) != known:
                return meta  # Another call in the same message was faster.
            return meta.model_copy(update={"delegates": {**meta.delegates, agent_id: made.session_id}})

        linked = store.change_session(meta.session_id, link, sync=True, index=False).delegates[agent_id]
        if linked != made.session_id:
            store.remove_session(made.session_id)
        return linked

    def _asked_agent(self, store: Store, agent_id: AgentId, meta: SessionMeta | None) -> AgentSpec:
        try:
            return self._agents.definition(store, agent_id)
        except AgentNotFound:
            if meta is None:
                raise
            raise AgentNotFound(
                f"There is no agent {agent_id!r} (any more), whose session this is. read_transcript shows what was "
                f"said, and start_session(continue_from={meta.session_id!r}, agent_id=...) goes on with another agent."
            ) from None

    def _check_session(self, store: Store, meta: SessionMeta, prompt: Prompt, *, delegated: bool) -> None:
        if prompt.agent_id is not None and prompt.agent_id != meta.agent_id:
            raise AgentMismatch(
                f"The session {meta.session_id!r} belongs to the agent {meta.agent_id!r} and can't change it: leave "
                "agent_id out, or begin a session with the other agent (continue_from takes the history along)."
            )
        if prompt.actor_id is not None and prompt.actor_id != meta.actor_id:
            raise ActorMismatch(
                f"The session {meta.session_id!r} belongs to another actor: leave session_id out to begin one for "
                f"{prompt.actor_id!r}."
            )
        if not delegated and self._sessions.is_expired(store, meta):
            raise SessionExpired(
                f"The session {meta.session_id!r} expired at {meta.expires_at:%Y-%m-%d %H:%M:%S} UTC, and nothing of "
                f"it is lost. update_session(session_id={meta.session_id!r}, ttl_seconds={meta.ttl_seconds}) revives "
                "it, read_transcript shows it, and without session_id a new one begins."
            )
        last = store.find_turn(meta.last_turn) if meta.last_turn else None
        if last is not None and last.is_pending and not last.is_overdue:
            raise pending_error(last)
        self._token_limit(meta, used=0)

    def _token_limit(self, meta: SessionMeta, *, used: int) -> int:
        """Tokens that a turn may use (0 = no limit) which has used some already; raises BudgetExhausted."""
        limits: list[int] = []
        ceiling = self._sessions.token_ceiling(meta)
        if ceiling:
            left = ceiling - meta.usage.total_tokens
            if left <= 0:
                raise BudgetExhausted(
                    f"The session {meta.session_id!r} has used {meta.usage.total_tokens} of its {ceiling} tokens: "
                    "raise token_budget with update_session where the operator allows more, or begin a new session."
                )
            limits.append(left)
        if self._settings.turn_tokens:
            limits.append(max(1, self._settings.turn_tokens - used))
        return min(limits, default=0)


def _check_allowed(record: TurnRecord, spec: AgentSpec) -> None:
    """Raises ToolNotAllowed where the tool that a person allows is not to be had: the yes would be lost."""
    tool = record.question.tool if record.question else None
    if tool is not None and tool not in spec.tools:
        raise ToolNotAllowed(
            f"The tool {tool!r} that the turn {record.turn_id} wants to use is not allowed here, and nothing was done: "
            "the agent lost it, or AGENT_MCP_ALLOW_TOOLS does not name it for this process. Set it as for the server "
            "that was asked."
        )


def fingerprint(prompt: Prompt) -> str:
    request = json.dumps([prompt.text, prompt.agent_id, prompt.session_id])
    return hashlib.sha256(request.encode()).hexdigest()


def check_prompt(text: str) -> None:
    if not text.strip():
        raise InvalidArgument("The prompt is empty: say what you want of the agent.")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidArgument("The prompt is not valid Unicode text: send it as UTF-8.") from None
    if size > MAX_PROMPT_BYTES:
        raise TooLarge(
            f"The prompt has {size} bytes, more than the {MAX_PROMPT_BYTES} allowed: shorten it or ask in parts."
        )
