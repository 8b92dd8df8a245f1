"""What callers do with turns: ask, follow, answer, cancel; and what agents ask of each other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import anyio.to_thread

from agent_mcp.approval_words import APPROVED, DENIED
from agent_mcp.config import Settings
from agent_mcp.domain import (
    DECISION_TIME,
    AgentId,
    Caller,
    Fact,
    PendingInput,
    Reply,
    SessionId,
    TurnId,
    TurnRecord,
    Usage,
    keyed_turn_id,
    new_turn_id,
    transcript_uri,
)
from agent_mcp.errors import (
    AgentNotFound,
    Forbidden,
    InvalidArgument,
    RateLimited,
    TurnConflict,
    TurnNotFound,
)
from agent_mcp.following import Followed, Following, Watching
from agent_mcp.models import Models
from agent_mcp.service.admission import Admission, Delegation, Prompt, check_prompt, fingerprint
from agent_mcp.service.agent_cases import AgentCases
from agent_mcp.service.session_cases import SessionCases
from agent_mcp.service.stores import Stores, threaded
from agent_mcp.storage.store import Store
from agent_mcp.turn_steps import Admitted, Ask, Repeated
from agent_mcp.turns import TurnEngine

MAX_DEPTH = 3
"""How many agents may wait for each other, the one that was asked first not counted."""
_CANCEL_SECONDS = 5.0
_HANDOVER_SECONDS = 1.0
"""How long an answer waits for the part of its turn that asked to leave the engine."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A turn that an ask led to. `is_new` is false where the ask was a repetition: then it is somebody else's."""

    followed: Followed
    is_new: bool


class DeletedSession(Fact):
    session_id: SessionId
    deleted: bool = True


class RepairedSession(Fact):
    """What was set aside ("from -> to") and what was made again, as paths below the data directory."""

    session_id: SessionId
    set_aside: tuple[str, ...]
    restored: tuple[str, ...]


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
        self._admission = Admission(stores=stores, settings=settings, models=models, agents=agents, sessions=sessions)

    async def ask(self, caller: Caller, prompt: Prompt) -> Asked:
        """Queues a turn and returns once it is accepted; raises what it is refused for, and then nothing has changed.

        The turn goes on whether or not it is followed. Cancelling this call cancels the turn. A `key` that was used
        leads to the turn that there is; raises TurnConflict if that was another request.
        """
        check_prompt(prompt.text)
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
        if followed.record().fingerprint != fingerprint(prompt):
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
        check_prompt(text)
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

    async def dismiss(self, caller: Caller, turn_id: TurnId, question: PendingInput) -> None:
        """A person saw what a turn waits for and closed it undecided: it waits on, for whoever else decides."""
        store, record = await anyio.to_thread.run_sync(self._find, caller, turn_id, None)
        if record.question == question:
            await self._engine.dismiss(store, record, question)

    async def delete_session(self, caller: Caller, session_id: SessionId) -> DeletedSession:
        """Deletes a session, its turns and what its tools wrote; a turn that runs in it is cancelled first."""
        store = await anyio.to_thread.run_sync(self._stores.of, caller)
        if not await anyio.to_thread.run_sync(store.has_session, session_id):
            raise self._sessions.not_found(session_id)
        await self._engine.delete_session(store, caller.subject, session_id)
        return DeletedSession(session_id=session_id)

    async def repair_session(self, caller: Caller, session_id: SessionId) -> RepairedSession:
        """Makes a damaged session one that can be asked; nothing is deleted. Raises SessionDamaged, SessionBusy."""
        store = await anyio.to_thread.run_sync(self._stores.of, caller)
        if not await anyio.to_thread.run_sync(store.has_session, session_id):
            raise self._sessions.not_found(session_id)
        done = await self._engine.repair_session(store, caller.subject, session_id)
        aside = tuple(f"{name} -> {to}" for name, to in done.aside)
        return RepairedSession(session_id=session_id, set_aside=aside, restored=tuple(done.restored))

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
        terms = Delegation(depth=parent.depth + 1, token_limit=token_limit)
        session_id = await anyio.to_thread.run_sync(self._admission.delegate_session, parent, agent_id)
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
        self, caller: Caller, prompt: Prompt, turn_id: TurnId, terms: Delegation | None = None
    ) -> Following:
        theirs = sum(turn.subject == caller.subject for turn in self._engine.turns())
        if terms is None and 0 < caller.max_turns <= theirs:
            raise RateLimited(
                f"{caller.max_turns} turns of yours are open, which is as many as may be at once, and nothing was "
                "asked: wait for one of them with get_reply, or cancel it with cancel_turn."
            )
        ask = Ask(
            turn_id=turn_id,
            subject=caller.subject,
            session_id=prompt.session_id,
            admit=lambda: self._admission.admit(caller, prompt, turn_id, terms),
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

        running = self._engine.get(record.turn_id)
        if running is not None:
            await running.ends_within(_HANDOVER_SECONDS)  # Its record says so already that it waits.
        ask = Ask(
            turn_id=record.turn_id,
            subject=caller.subject,
            session_id=record.session_id,
            admit=lambda: self._admission.admit_again(caller, store, record, response),
        )
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
