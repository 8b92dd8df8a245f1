"""What callers do with turns: ask, follow, answer, cancel; and what agents ask of each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import anyio.to_thread

from agent_mcp import agent_library
from agent_mcp.approval_words import APPROVED, DENIED
from agent_mcp.config import Settings
from agent_mcp.domain import (
    DECISION_TIME,
    MAX_PROMPT_BYTES,
    ActorId,
    AgentId,
    AgentSpec,
    Caller,
    Fact,
    PendingInput,
    Reply,
    SessionId,
    SessionMeta,
    TurnId,
    TurnRecord,
    Usage,
    is_issued,
    keyed_turn_id,
    new_turn_id,
    now,
    transcript_uri,
)
from agent_mcp.errors import (
    ActorMismatch,
    AgentMcpError,
    AgentMismatch,
    AgentNotFound,
    BudgetExhausted,
    Forbidden,
    InvalidArgument,
    SessionExists,
    SessionExpired,
    TooLarge,
    ToolNotAllowed,
    TurnConflict,
    TurnNotFound,
)
from agent_mcp.following import Followed, Following, Watching
from agent_mcp.models import Models, parse_model
from agent_mcp.service.agent_cases import AgentCases
from agent_mcp.service.session_cases import SessionCases
from agent_mcp.service.stores import Stores, threaded
from agent_mcp.storage.store import Store
from agent_mcp.turn_steps import Admitted, Ask, Repeated, pending_error
from agent_mcp.turns import TurnEngine

MAX_DEPTH = 3
"""How many agents may wait for each other, the one that was asked first not counted."""
_CANCEL_SECONDS = 5.0
_HANDOVER_SECONDS = 1.0
"""How long an answer waits for the part of its turn that asked to leave the engine."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a caller asks, of whom; None = not said. The same `key` of the same actor is the same turn."""

    text: str
    agent_id: AgentId | None = None
    session_id: SessionId | None = None
    actor_id: ActorId | None = None
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A turn that an ask led to. `is_new` is false where the ask was a repetition: then it is somebody else's."""

    followed: Followed
    is_new: bool


class DeletedSession(Fact):
    session_id: SessionId
    deleted: bool = True


@dataclass(frozen=True, kw_only=True)
class _Delegation:
    """The terms on which an agent is asked by another one: how deep, with how many tokens (0 = any number)."""

    depth: int
    token_limit: int


class TurnCases:
    """The use cases of turns."""

    def __init__(
        self,
        *,
        stores: Stores,
        settings: Settings,
        models: Models,
        agents: AgentCases,
        sessions: SessionCases,
        engine: TurnEngine,
    ) -> None:
        self._stores = stores
        self._settings = settings
        self._models = models
        self._agents = agents
        self._sessions = sessions
        self._engine = engine

    async def ask(self, caller: Caller, prompt: Prompt) -> Asked:
        """Queues a turn and returns once it is accepted; raises what it is refused for, and then nothing has changed.

        The turn goes on whether or not it is followed. Cancelling this call cancels the turn. A `key` that was used
        leads to the turn that there is; raises TurnConflict if that was another request.
        """
        _check_prompt(prompt.text)
        if prompt.key is None:
            return Asked(followed=await self._begin(caller, prompt, new_turn_id()), is_new=True)
        if not 1 <= len(prompt.key) <= 255:
            raise InvalidArgument("An idempotency key has 1 to 255 characters: shorten it.")
        turn_id = keyed_turn_id(prompt.key, subject=caller.subject, actor_id=caller.actor_for(prompt.actor_id))
        while True:
            with suppress(Repeated):  # Another request, here or in another process, took it at the same moment.
                if (running := self._engine.get(turn_id)) is not None:
                    await running.admitted()
                elif not await self._has_record(caller, turn_id):
                    return Asked(followed=await self._begin(caller, prompt, turn_id), is_new=True)
                break
        followed = await self.follow(caller, turn_id=turn_id)
        if followed.record().fingerprint != _fingerprint(prompt):
            raise TurnConflict(
                "This idempotency key was used for another request: repeat that one word for word, or use a new key."
            )
        return Asked(followed=followed, is_new=False)

    async def follow(
        self, caller: Caller, *, turn_id: TurnId | None = None, session_id: SessionId | None = None
    ) -> Followed:
        """A turn by its id, or a session's latest one, whichever process runs it; raises TurnNotFound."""
        if (turn_id is None) == (session_id is None):
            raise InvalidArgument("Give either turn_id or session_id (for its latest turn).")
        store, record = await anyio.to_thread.run_sync(self._find, caller, turn_id, session_id)
        return self._engine.find(record.turn_id) or Watching(self._engine, store, record)

    async def cancel(
        self, caller: Caller, *, turn_id: TurnId | None = None, session_id: SessionId | None = None
    ) -> Reply:
        """Cancels a turn and returns its reply; a turn that has ended stays as it is. Raises TurnNotFound."""
        followed = await self.follow(caller, turn_id=turn_id, session_id=session_id)
        store = await anyio.to_thread.run_sync(self._stores.of, caller)
        # It may come to wait for somebody, or be answered, just as it is cancelled: then what it does now is ended.
        for _ in range(3):
            record = followed.record()
            if record.is_pending:
                record = await self._engine.refuse(store, record)
                followed = self._engine.find(record.turn_id) or Watching(self._engine, store, record)
            await anyio.to_thread.run_sync(followed.cancel)
            async for _ in followed.events(wait=_CANCEL_SECONDS):
                pass
            if not followed.record().is_pending:
                break
        return followed.reply()

    def abandon(self, caller: Caller, turn_id: TurnId) -> None:
        """Cancels a turn, also one that waits for a person. Does not wait, so that a cancelled request can call it."""
        self._engine.abandon(lambda: self._stores.of(caller), turn_id)

    async def answer(
        self, caller: Caller, text: str, *, turn_id: TurnId | None = None, session_id: SessionId | None = None
    ) -> Following:
        """Answers the question of an agent, and lets its turn go on; raises TurnConflict if there is none.

        Raises Forbidden where a person's approval is wanted: who calls here may be a model.
        """
        _check_prompt(text)
        store, record = await anyio.to_thread.run_sync(self._find, caller, turn_id, session_id)
        question = record.question
        if question is not None and question.kind == "approval":
            raise Forbidden(
                f"This is for a person to decide, and nothing was done: {record.wanted} cancel_turn gives the turn up."
            )
        return await self._go_on(caller, store, record, text)

    async def decide(
        self, caller: Caller, turn_id: TurnId, *, approve: bool, question: PendingInput | None = None
    ) -> Following:
        """A person's decision on the tool that a turn wants to use next; raises TurnConflict if it wants none.

        `question` is what the person saw: raises TurnConflict too if the turn has come to another one meanwhile.
        """
        store, record = await anyio.to_thread.run_sync(self._find, caller, turn_id, None)
        if question is not None and record.question != question:
            raise TurnConflict(f"The turn {turn_id} waits for this no more, and nothing was done: see get_reply.")
        if record.question is not None and record.question.kind != "approval":
            raise TurnConflict(
                f"The turn {turn_id} asks something: {record.question.text} Answer it with get_reply(answer=...)."
            )
        return await self._go_on(caller, store, record, APPROVED if approve else DENIED)

    async def delete_session(self, caller: Caller, session_id: SessionId) -> DeletedSession:
        """Deletes a session, its turns and what its tools wrote; a turn that runs in it is cancelled first."""
        store = await anyio.to_thread.run_sync(self._stores.of, caller)
        if not await anyio.to_thread.run_sync(store.has_session, session_id):
            raise self._sessions.not_found(session_id)
        await self._engine.delete_session(store, caller.subject, session_id)
        return DeletedSession(session_id=session_id)

    @threaded
    def list_turns(self, caller: Caller, session_id: SessionId | None = None) -> list[TurnRecord]:
        """The records of all turns that are kept (7 days), or of one session's, the latest first."""
        return self._stores.of(caller).list_turns(session_id)

    async def delegate(
        self, parent: Admitted, agent_id: AgentId, text: str, *, token_limit: int, spend: Callable[[Usage], None]
    ) -> str:
        """Asks an agent on behalf of another one's turn, in a session that belongs to that one's; raises its errors.

        `spend` is told what it used, whether or not it came to an answer.
        """
        if parent.depth >= MAX_DEPTH:
            raise InvalidArgument(
                f"{MAX_DEPTH} agents wait for each other already: answer yourself, without asking another one."
            )
        terms = _Delegation(depth=parent.depth + 1, token_limit=token_limit)
        session_id = await anyio.to_thread.run_sync(self._delegate_session, parent, agent_id)
        prompt = Prompt(text=text, agent_id=agent_id, session_id=session_id)
        following = await self._begin(parent.caller, prompt, new_turn_id(), terms)
        try:
            async for _ in following.events(wait=self._settings.turn_timeout + 60):
                pass
        except BaseException:
            following.cancel()
            raise
        spend(following.record().usage)
        reply = following.reply()
        if reply.status != "completed":
            await self.cancel(parent.caller, turn_id=reply.turn_id)
            raise InvalidArgument(f"The agent {agent_id!r} gave no answer (its turn is {reply.status}).")
        return f"{reply.response}\n\n[{transcript_uri(session_id)}]"

    def describe(self, caller: Caller, agent_id: AgentId) -> str:
        """What an agent is for. Blocking."""
        try:
            return self._agents.definition(self._stores.of(caller), agent_id).description
        except AgentNotFound:
            return ""

    async def _begin(
        self, caller: Caller, prompt: Prompt, turn_id: TurnId, terms: _Delegation | None = None
    ) -> Following:
        ask = Ask(
            turn_id=turn_id,
            subject=caller.subject,
            session_id=prompt.session_id,
            admit=lambda: self._admit(caller, prompt, turn_id, terms),
        )
        return await self._submitted(ask)

    async def _go_on(self, caller: Caller, store: Store, record: TurnRecord, response: str) -> Following:
        if record.question is None:
            raise TurnConflict(f"The turn {record.turn_id} waits for nothing: get_reply says how it is.")
        if record.is_overdue:
            await self._engine.refuse(store, record)
            raise TurnConflict(
                f"The turn {record.turn_id} waited for more than {DECISION_TIME.days} days, which counts as a no, and "
                "was ended: ask again."
            )

        def admit() -> Admitted:
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

        running = self._engine.get(record.turn_id)
        if running is not None:
            await running.ends_within(_HANDOVER_SECONDS)  # Its record says so already that it waits.
        ask = Ask(turn_id=record.turn_id, subject=caller.subject, session_id=record.session_id, admit=admit)
        return await self._submitted(ask)

    async def _submitted(self, ask: Ask) -> Following:
        following = self._engine.submit(ask)
        try:
            await following.admitted()
        except BaseException as error:
            if not isinstance(error, Exception):
                following.cancel()
            raise
        return following

    async def _has_record(self, caller: Caller, turn_id: TurnId) -> bool:
        store = await anyio.to_thread.run_sync(self._stores.of, caller)
        return await anyio.to_thread.run_sync(store.find_turn, turn_id) is not None

    def _find(self, caller: Caller, turn_id: TurnId | None, session_id: SessionId | None) -> tuple[Store, TurnRecord]:
        store = self._stores.of(caller)
        if turn_id is not None:
            record = store.find_turn(turn_id)
            if record is None:
                raise TurnNotFound(
                    f"There is no turn {turn_id!r} (records are kept for 7 days): "
                    "get_reply(session_id=...) finds a session's latest one, read_transcript what was said."
                )
            return store, record
        assert session_id is not None
        self._sessions.find(store, session_id)
        record = store.latest_turn(session_id)
        if record is None:
            raise TurnNotFound(f"Nothing was asked in the session {session_id!r} in the last 7 days: call ask_agent.")
        return store, record

    def _admit(self, caller: Caller, prompt: Prompt, turn_id: TurnId, terms: _Delegation | None) -> Admitted:
        """Finds or begins the session, and writes the turn's record. What can be refused is refused before."""
        store = self._stores.of(caller)
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
            actor = caller.actor_for(prompt.actor_id)
            meta = self._sessions.new_meta(store, actor, agent, session_id=prompt.session_id)
            try:
                store.create_session(meta)
            except SessionExists:
                # Somebody else began it at the same moment.
                return self._admit(caller, prompt, turn_id, terms)
        session_id = meta.session_id

        def token_limit() -> int:
            limit = self._token_limit(self._sessions.find(store, session_id), used=0)
            return min(limit or terms.token_limit, terms.token_limit) if terms and terms.token_limit else limit

        record = TurnRecord(
            turn_id=turn_id,
            session_id=meta.session_id,
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
            fingerprint=_fingerprint(prompt) if prompt.key is not None else None,
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

    def _delegate_session(self, parent: Admitted, agent_id: AgentId) -> SessionId:
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


def _check_allowed(record: TurnRecord, spec: AgentSpec) -> None:
    """Raises ToolNotAllowed where the tool that a person allows is not to be had: the yes would be lost."""
    tool = record.question.tool if record.question else None
    if tool is not None and tool not in spec.tools:
        raise ToolNotAllowed(
            f"The tool {tool!r} that the turn {record.turn_id} wants to use is not allowed here, and nothing was done: "
            "the agent lost it, or AGENT_MCP_ALLOW_TOOLS does not name it for this process. Set it as for the server "
            "that was asked."
        )


def _fingerprint(prompt: Prompt) -> str:
    request = json.dumps([prompt.text, prompt.agent_id, prompt.session_id])
    return hashlib.sha256(request.encode()).hexdigest()


def _check_prompt(text: str) -> None:
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
