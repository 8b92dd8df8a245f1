"""What callers do with sessions: begin, list, read, change, delete."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from agent_mcp import agent_library, cursors, transcripts
from agent_mcp.config import Settings
from agent_mcp.domain import (
    ActorId,
    AgentId,
    AgentSpec,
    Caller,
    Fact,
    ListedSession,
    Message,
    OpenTurn,
    SessionId,
    SessionInfo,
    SessionMeta,
    SessionStatus,
    TurnRecord,
    is_issued,
    new_session_id,
    now,
    transcript_uri,
)
from agent_mcp.errors import ActorMismatch, InvalidArgument, NoModel, SessionDamaged, SessionNotFound
from agent_mcp.models import Models
from agent_mcp.service.agent_cases import AgentCases
from agent_mcp.service.stores import DEFAULT_PAGE, Stores, one_line, page_size, threaded
from agent_mcp.storage.history import History
from agent_mcp.storage.searching import Listed, Position
from agent_mcp.storage.store import Store

_MAX_TITLE = 200


class SessionPage(Fact):
    sessions: tuple[ListedSession, ...]
    next_cursor: str | None = None


class TranscriptPage(Fact):
    """Messages in order. `before` (an index) asks for what came before them; None: there is nothing."""

    session_id: SessionId
    messages: tuple[Message, ...]
    total: int
    before: int | None = None


IsRunning = Callable[[Store, TurnRecord], bool]
"""Whether a turn is open and somebody will end it."""


class SessionCases:
    """The use cases of sessions."""

    def __init__(
        self, *, stores: Stores, settings: Settings, models: Models, agents: AgentCases, is_running: IsRunning
    ) -> None:
        self._stores = stores
        self._settings = settings
        self._models = models
        self._agents = agents
        self._is_running = is_running

    @threaded
    def start(
        self,
        caller: Caller,
        *,
        agent_id: AgentId | None = None,
        actor_id: ActorId | None = None,
        title: str | None = None,
        session_id: SessionId | None = None,
        ttl_seconds: int | None = None,
        token_budget: int | None = None,
        continue_from: SessionId | None = None,
        at: int | None = None,
    ) -> SessionInfo:
        """Begins a session, or one with the history of `continue_from` up to message `at`.

        Raises SessionExists, AgentNotFound, SessionNotFound, ActorMismatch, InvalidArgument.
        """
        store = self._stores.of(caller)
        actor = caller.actor_for(actor_id)
        if session_id is not None and is_issued(session_id):
            raise InvalidArgument(
                f"Only the server gives ids that begin with 's-', such as {session_id!r}: leave session_id out, or "
                "choose another."
            )
        if continue_from is None:
            if at is not None:
                raise InvalidArgument("at says where continue_from is left: give continue_from too.")
            agent = self._agents.definition(store, agent_id or agent_library.DEFAULT_AGENT)
            meta = self.new_meta(store, actor, agent, session_id=session_id, title=title, ttl_seconds=ttl_seconds)
            meta = meta.model_copy(update={"token_budget": self._budget(token_budget)})
            store.create_session(meta)
            return self.info(store, meta)
        source = self.find(store, continue_from)
        if actor_id is not None and actor_id != source.actor_id:
            raise ActorMismatch(f"The session {continue_from!r} is another actor's: leave actor_id out.")
        agent = self._agents.definition(store, agent_id or source.agent_id)
        meta = self.new_meta(
            store,
            source.actor_id,
            agent,
            session_id=session_id,
            title=title or source.title,
            ttl_seconds=source.ttl_seconds if ttl_seconds is None else ttl_seconds,
        )
        history = store.history(source)
        total = history.count()
        count = _end_of_turn(history, total=total, at=at)
        meta = meta.model_copy(
            update={
                "token_budget": self._budget(token_budget),
                "continued_from": continue_from,
                "turns": sum(message.role == "user" for message in history.read(limit=count)),
            }
        )
        store.create_session(meta, source=history, count=count, whole=count == total)
        return self.info(store, meta)

    @threaded
    def get(self, caller: Caller, session_id: SessionId) -> SessionInfo:
        """Raises SessionNotFound, SessionDamaged."""
        store = self._stores.of(caller)
        return self.info(store, self.find(store, session_id))

    @threaded
    def update(
        self,
        caller: Caller,
        session_id: SessionId,
        *,
        title: str | None = None,
        ttl_seconds: int | None = None,
        token_budget: int | None = None,
    ) -> SessionInfo:
        """Changes what is given. `ttl_seconds` counts from now, and revives an expired session."""
        store = self._stores.of(caller)
        self.find(store, session_id)
        update: dict[str, object] = {}
        if title is not None:
            update["title"] = one_line(title, "title", longest=_MAX_TITLE)
        if ttl_seconds is not None:
            update |= {"ttl_seconds": ttl_seconds, "revived_at": now()}
        if token_budget is not None:
            update["token_budget"] = self._budget(token_budget)
        meta = store.change_session(session_id, lambda meta: meta.model_copy(update=update), sync=True)
        return self.info(store, meta)

    @threaded
    def list_sessions(
        self,
        caller: Caller,
        *,
        agent_id: AgentId | None = None,
        actor_id: ActorId | None = None,
        status: str = "all",
        query: str | None = None,
        limit: int = DEFAULT_PAGE,
        cursor: str | None = None,
    ) -> SessionPage:
        """Sessions, most recently active first; with `query` those that fit it, by relevance, with a snippet."""
        store = self._stores.of(caller)
        if actor_id is not None:
            caller.actor_for(actor_id)
        size = page_size(limit)
        if status == "damaged":
            store.refresh_all()  # Damage does not come through us: only a look at all files finds it.
        after = cursors.decode(cursor, (int, int, str)) if cursor else None
        rows = store.list_sessions(
            now=now(),
            limit=size + 1,
            agent_id=agent_id,
            actor_id=actor_id,
            status=status,
            query=query if query and query.strip() else None,
            after=Position(int(after[0]), int(after[1]), str(after[2])) if after else None,
        )
        shown = rows[:size]
        infos = [self._listed(store, row) for row in shown]
        more = len(rows) > size
        return SessionPage(
            sessions=tuple(info for info in infos if info is not None),
            next_cursor=cursors.encode(list(shown[-1].position)) if more else None,
        )

    @threaded
    def expired_before(self, caller: Caller, at: datetime) -> list[SessionId]:
        """The sessions that had expired at that time, by what their own files say: they are about to be deleted."""
        store = self._stores.of(caller)
        rows = store.list_sessions(now=at, limit=1_000_000, status="expired", exact=False)
        return [row.session_id for row in rows if self._had_expired(store, row.session_id, at)]

    @threaded
    def read(
        self,
        caller: Caller,
        session_id: SessionId,
        *,
        limit: int = DEFAULT_PAGE,
        before: int | None = None,
        offset: int | None = None,
    ) -> TranscriptPage:
        """The newest messages, or the newest in front of the index `before`; raises SessionNotFound, SessionDamaged.

        With `offset` just the one message in front of `before`, from that character on.
        """
        store = self._stores.of(caller)
        history = store.history(self.find(store, session_id))
        total = history.count()
        end = total if before is None else min(before, total)
        if offset is not None:
            if before is None or not end:
                raise InvalidArgument("offset goes on with one long message: give its index + 1 as before too.")
            messages = [transcripts.part(one, offset) for one in history.read(offset=end - 1, limit=1)]
        else:
            messages = transcripts.page(
                lambda start, count: history.read(offset=start, limit=count),
                before=end,
                since=max(0, end - page_size(limit)),
            )
        first = messages[0].index if messages else 0
        return TranscriptPage(session_id=session_id, messages=tuple(messages), total=total, before=first or None)

    @threaded
    def markdown(self, caller: Caller, session_id: SessionId, *, before: int | None = None) -> str:
        """The newest part of a transcript (in front of index `before`), at most 512 KiB of Markdown."""
        store = self._stores.of(caller)
        meta = self.find(store, session_id)
        history = store.history(meta)
        return transcripts.markdown(
            meta, lambda offset, count: history.read(offset=offset, limit=count), total=history.count(), before=before
        )

    @threaded
    def json(self, caller: Caller, session_id: SessionId) -> str:
        """The newest messages of a session as JSON, at most 512 KiB."""
        store = self._stores.of(caller)
        meta = self.find(store, session_id)
        history = store.history(meta)
        return transcripts.messages_json(
            meta, lambda offset, count: history.read(offset=offset, limit=count), total=history.count()
        )

    def _had_expired(self, store: Store, session_id: SessionId, at: datetime) -> bool:
        try:
            meta = store.find_session(session_id)
        except SessionDamaged:
            return False
        expires = meta.expires_at if meta else None
        return expires is not None and expires <= at and self.open_turn(store, session_id) is None

    # For the other use cases: blocking

    def find(self, store: Store, session_id: SessionId) -> SessionMeta:
        """Raises SessionNotFound, SessionDamaged."""
        meta = store.find_session(session_id)
        if meta is None:
            raise self.not_found(session_id)
        return meta

    @staticmethod
    def not_found(session_id: SessionId) -> SessionNotFound:
        return SessionNotFound(
            f"There is no session {session_id!r}: list_sessions shows those there are, start_session begins one, "
            "and an id of your own begins one too where ask_agent is given the agent with it."
        )

    def new_meta(
        self,
        store: Store,
        actor: ActorId,
        agent: AgentSpec,
        *,
        session_id: SessionId | None,
        title: str | None = None,
        ttl_seconds: int | None = None,
    ) -> SessionMeta:
        """The metadata of a session that is to be made."""
        at = now()
        return SessionMeta(
            session_id=session_id or new_session_id(),
            agent_id=agent.agent_id,
            actor_id=actor,
            title=one_line(title or "", "title", longest=_MAX_TITLE),
            created_at=at,
            last_active_at=at,
            ttl_seconds=self._settings.session_ttl if ttl_seconds is None else ttl_seconds,
            model=self._model_name(self._agents.usable(store, agent)),
        )

    def info(self, store: Store, meta: SessionMeta, *, damaged: bool = False) -> SessionInfo:
        """A session as callers see it."""
        turn = self.open_turn(store, meta.session_id)
        return SessionInfo(
            session_id=meta.session_id,
            agent_id=meta.agent_id,
            actor_id=meta.actor_id,
            title=meta.title,
            status="damaged" if damaged else self._status(meta, turn),
            model=meta.model,
            created_at=meta.created_at,
            last_active_at=meta.last_active_at,
            expires_at=None if turn else meta.expires_at,
            turns=meta.turns,
            usage=meta.usage,
            token_budget=meta.token_budget,
            continued_from=meta.continued_from,
            open_turn=OpenTurn(turn_id=turn.turn_id, status="input_required" if turn.is_pending else "working")
            if turn
            else None,
            transcript=transcript_uri(meta.session_id),
        )

    def is_expired(self, store: Store, meta: SessionMeta) -> bool:
        return self._status(meta, self.open_turn(store, meta.session_id)) == "expired"

    def open_turn(self, store: Store, session_id: SessionId) -> TurnRecord | None:
        """The session's latest turn that somebody will end: a server that lives, or a person within 7 days."""
        for turn in store.open_turns(session_id):
            if (turn.is_pending and not turn.is_overdue) or self._is_running(store, turn):
                return turn
        return None

    def token_ceiling(self, meta: SessionMeta) -> int:
        """Tokens that the whole session may use; 0 = no limit."""
        limits = [limit for limit in (meta.token_budget, self._settings.session_tokens) if limit]
        return min(limits, default=0)

    @staticmethod
    def _status(meta: SessionMeta, turn: TurnRecord | None) -> SessionStatus:
        expires = meta.expires_at
        return "active" if turn is not None or expires is None or expires > now() else "expired"

    def _budget(self, token_budget: int | None) -> int:
        ceiling = self._settings.session_tokens
        if token_budget and ceiling and token_budget > ceiling:
            raise InvalidArgument(f"The token_budget {token_budget} is over the operator's {ceiling}: give less.")
        return token_budget or 0

    def _model_name(self, agent: AgentSpec) -> str | None:
        try:
            return str(self._models.choose(agent.model).ref)
        except NoModel:
            return None  # An ask will say so; a session can wait for it.

    def _listed(self, store: Store, row: Listed) -> ListedSession | None:
        try:
            meta = store.find_session(row.session_id)
        except SessionDamaged:
            meta = store.unreadable_session(row.session_id)
        if meta is None:
            return None
        return ListedSession(**dict(self.info(store, meta, damaged=row.damaged)), snippet=row.snippet)


def _end_of_turn(history: History, *, total: int, at: int | None) -> int:
    """How many messages there are up to the end of the last whole turn that ends at the index `at` or before."""
    if at is not None and at >= total:
        last = f"its last message has the index {total - 1}" if total else "nothing was said in it yet: leave at out"
        raise InvalidArgument(f"at={at} is behind the end of the session; {last}.")
    end = total if at is None else at + 1
    while end > 0:
        last = history.read(offset=end - 1, limit=1)[0]
        if last.role == "assistant" and not last.tool_calls:
            return end
        end -= 1
    return 0


EXPIRED_FOR = timedelta(days=30)
"""How long a session has been expired when `sessions prune` deletes it."""
