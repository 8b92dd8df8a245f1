"""The use cases, one method each. Every door calls these and nothing below them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

import anyio.to_thread

from agent_mcp import agent_library, cursors, transcripts
from agent_mcp.config import Settings
from agent_mcp.domain import (
    MAX_PROMPT_BYTES,
    ActorId,
    AgentId,
    AgentSpec,
    Caller,
    Fact,
    ListedSession,
    Message,
    OpenTurn,
    Reply,
    SessionId,
    SessionInfo,
    SessionMeta,
    SessionStatus,
    TurnId,
    TurnRecord,
    is_issued,
    new_session_id,
    new_turn_id,
    now,
    slug,
    transcript_uri,
)
from agent_mcp.errors import (
    ActorMismatch,
    AgentExists,
    AgentMcpError,
    AgentMismatch,
    AgentNotFound,
    InvalidArgument,
    NoModel,
    SessionDamaged,
    SessionExists,
    SessionExpired,
    SessionNotFound,
    TooLarge,
    TurnNotFound,
)
from agent_mcp.models import Models, parse_model
from agent_mcp.storage.agent_files import render
from agent_mcp.storage.store import Store
from agent_mcp.toolbox import Toolbox
from agent_mcp.turns import Admitted, Ask, Following, TurnEngine, Watching

P = ParamSpec("P")
T = TypeVar("T")

Followed = Following | Watching
"""A turn as a request sees it: `events()` while it runs, then `reply()`."""

DEFAULT_PAGE = 50
MAX_PAGE = 200
_MAX_NAME = 100
_MAX_DESCRIPTION = 2_000
_MAX_SYSTEM_PROMPT = 100_000
_MAX_TOOLS = 64
_CANCEL_SECONDS = 5.0


def _threaded(
    method: Callable[Concatenate[Service, P], T],
) -> Callable[Concatenate[Service, P], Awaitable[T]]:
    """Makes a blocking method one that is awaited while a thread runs it, so that no door can block its loop."""

    @functools.wraps(method)
    async def run(self: Service, *args: P.args, **kwargs: P.kwargs) -> T:
        return await anyio.to_thread.run_sync(functools.partial(method, self, *args, **kwargs))

    return run


class AgentPage(Fact):
    """Part of the list of agents. `examples` are names for create_agent, `warnings` name files that can't be read."""

    agents: tuple[AgentSpec, ...]
    examples: tuple[str, ...]
    warnings: tuple[str, ...]
    next_cursor: str | None = None


class SessionPage(Fact):
    sessions: tuple[ListedSession, ...]
    next_cursor: str | None = None


class TranscriptPage(Fact):
    """Messages in order. `before` (an index) asks for what came before them; None: there is nothing."""

    session_id: SessionId
    messages: tuple[Message, ...]
    total: int
    before: int | None = None


class CreatedAgent(AgentSpec):
    created: bool


@dataclass(frozen=True, kw_only=True)
class NewAgent:
    """What a caller says of an agent; None = not said."""

    name: str
    system_prompt: str | None = None
    description: str | None = None
    model: str | None = None
    tools: tuple[str, ...] | None = None
    agent_id: AgentId | None = None
    example: str | None = None


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a caller asks, of whom; None = not said."""

    text: str
    agent_id: AgentId | None = None
    session_id: SessionId | None = None
    actor_id: ActorId | None = None


class Service:
    """The use cases over one data directory. Its methods may be called on any event loop."""

    def __init__(self, *, settings: Settings, models: Models, toolbox: Toolbox, engine: TurnEngine) -> None:
        self.settings = settings
        self.models = models
        self.toolbox = toolbox
        self._engine = engine
        self._stores: dict[str, Store] = {}
        self._opening = threading.Lock()

    def store(self, caller: Caller) -> Store:
        """The store of the caller's subject. Blocking at first; raises StorageFailed."""
        with self._opening:
            store = self._stores.get(caller.subject)
            if store is None:
                settings = self.settings
                store = Store(settings.data_dir, sync=settings.fsync, default_ttl=settings.session_ttl)
                self._stores[caller.subject] = store
            store.open()
            return store

    async def drain(self, *, grace: float) -> None:
        """Ends open turns: within `grace` seconds by themselves, then cancelled and closed."""
        await self._engine.close(grace=grace)

    async def close(self, *, grace: float) -> None:
        """Ends open turns, within `grace` seconds by themselves, and gives everything back."""
        await self._engine.close(grace=grace)
        for store in self._stores.values():
            store.close()
        self._engine.stop()

    # Agents

    @_threaded
    def create_agent(self, caller: Caller, new: NewAgent) -> CreatedAgent:
        """Makes an agent; the same definition again is the agent there is, with `created` false.

        Raises AgentExists, ToolNotAllowed, InvalidArgument, AgentNotFound (for an unknown example).
        """
        store = self.store(caller)
        spec = self._spec(new)
        there = agent_library.built_in().get(spec.agent_id) or store.agents.find(spec.agent_id)
        if there is None:
            try:
                store.agents.create(spec)
                return CreatedAgent(**spec.model_dump(), created=True)
            except AgentExists:
                there = store.agents.find(spec.agent_id)
        if there is None or not there.same_definition(spec):
            raise AgentExists(
                f"There is another agent {spec.agent_id!r} already, and it was left as it is: "
                "choose another name or agent_id."
            )
        return CreatedAgent(**there.model_dump(), created=False)

    @_threaded
    def list_agents(
        self,
        caller: Caller,
        *,
        query: str | None = None,
        limit: int = DEFAULT_PAGE,
        cursor: str | None = None,
    ) -> AgentPage:
        """All agents by id, the caller's own before the built-in ones of the same id."""
        own, warnings = self.store(caller).agents.list_all()
        agents = {**agent_library.built_in(), **{agent.agent_id: agent for agent in own}}
        after = str(cursors.decode(cursor, (str,))[0]) if cursor else ""
        words = (query or "").lower().split()
        found = [
            self._usable(agent)
            for agent_id, agent in sorted(agents.items())
            if agent_id > after and all(w in f"{agent_id} {agent.name} {agent.description}".lower() for w in words)
        ]
        shown = found[: _page_size(limit)]
        return AgentPage(
            agents=tuple(shown),
            examples=tuple(agent_library.examples()),
            warnings=(*warnings, *self.toolbox.warnings),
            next_cursor=cursors.encode([shown[-1].agent_id]) if len(shown) < len(found) else None,
        )

    @_threaded
    def get_agent(self, caller: Caller, agent_id: AgentId) -> AgentSpec:
        """Raises AgentNotFound, InvalidArgument (naming a file that can't be read)."""
        return self._agent(self.store(caller), agent_id)

    @_threaded
    def agent_markdown(self, caller: Caller, agent_id: AgentId) -> str:
        """The agent's file; raises as `get_agent`."""
        return render(self._agent(self.store(caller), agent_id))

    # Sessions

    @_threaded
    def start_session(
        self,
        caller: Caller,
        *,
        agent_id: AgentId | None = None,
        actor_id: ActorId | None = None,
        title: str | None = None,
        session_id: SessionId | None = None,
        ttl_seconds: int | None = None,
    ) -> SessionInfo:
        """Begins a session; raises SessionExists, AgentNotFound, InvalidArgument."""
        store = self.store(caller)
        if session_id is not None and is_issued(session_id):
            raise InvalidArgument(
                f"Only the server gives ids that begin with 's-', such as {session_id!r}: leave session_id out, or "
                "choose another."
            )
        agent = self._agent(store, agent_id or agent_library.DEFAULT_AGENT)
        meta = self._new_session(
            caller.actor_for(actor_id), agent, session_id=session_id, title=title, ttl_seconds=ttl_seconds
        )
        store.create_session(meta)
        return self._info(store, meta)

    @_threaded
    def get_session(self, caller: Caller, session_id: SessionId) -> SessionInfo:
        """Raises SessionNotFound, SessionDamaged."""
        store = self.store(caller)
        return self._info(store, self._session(store, session_id))

    @_threaded
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
        """Sessions, most recently active first; with `query` those in which something fits it, with a snippet."""
        store = self.store(caller)
        size = _page_size(limit)
        position = cursors.decode(cursor, (int, str)) if cursor else None
        rows = store.list_sessions(
            now=now(),
            limit=size + 1,
            agent_id=agent_id,
            actor_id=actor_id,
            status=status,
            query=query if query and query.strip() else None,
            after=(int(position[0]), str(position[1])) if position else None,
        )
        shown = rows[:size]
        infos = [self._listed(store, row[0], damaged=row[1], snippet=row[3]) for row in shown]
        more = len(rows) > size
        return SessionPage(
            sessions=tuple(info for info in infos if info is not None),
            next_cursor=cursors.encode([shown[-1][2], shown[-1][0]]) if more else None,
        )

    @_threaded
    def read_transcript(
        self, caller: Caller, session_id: SessionId, *, limit: int = DEFAULT_PAGE, before: int | None = None
    ) -> TranscriptPage:
        """The newest messages, or the newest in front of the index `before`; raises SessionNotFound, SessionDamaged."""
        store = self.store(caller)
        history = store.history(self._session(store, session_id))
        total = history.count()
        end = total if before is None else min(before, total)
        messages = transcripts.newest(
            lambda offset, count: history.read(offset=offset, limit=count),
            before=end,
            since=max(0, end - _page_size(limit)),
            max_bytes=transcripts.MAX_BYTES,
            size=lambda message: len(message.model_dump_json().encode()),
        )
        first = messages[0].index if messages else 0
        return TranscriptPage(session_id=session_id, messages=tuple(messages), total=total, before=first or None)

    @_threaded
    def transcript_markdown(self, caller: Caller, session_id: SessionId, *, before: int | None = None) -> str:
        """The newest part of a transcript (in front of index `before`), at most 512 KiB of Markdown."""
        store = self.store(caller)
        meta = self._session(store, session_id)
        history = store.history(meta)
        return transcripts.markdown(
            meta,
            lambda offset, count: history.read(offset=offset, limit=count),
            total=history.count(),
            before=before,
        )

    @_threaded
    def transcript_json(self, caller: Caller, session_id: SessionId) -> str:
        """The newest messages of a session as JSON, at most 512 KiB."""
        store = self.store(caller)
        meta = self._session(store, session_id)
        history = store.history(meta)
        return transcripts.messages_json(
            meta, lambda offset, count: history.read(offset=offset, limit=count), total=history.count()
        )

    # Turns

    async def ask(self, caller: Caller, prompt: Prompt) -> Following:
        """Queues a turn and returns once it is accepted; raises what it is refused for, and then nothing has changed.

        The turn goes on whether or not it is followed. Cancelling this call cancels the turn.
        """
        _check_prompt(prompt.text)
        turn_id = new_turn_id()
        following = self._engine.submit(
            Ask(
                turn_id=turn_id,
                subject=caller.subject,
                session_id=prompt.session_id,
                admit=lambda: self._admit(caller, prompt, turn_id),
            )
        )
        try:
            await following.admitted()
        except BaseException as error:
            if not isinstance(error, Exception):
                following.cancel()
            raise
        return following

    async def follow(
        self, caller: Caller, *, turn_id: TurnId | None = None, session_id: SessionId | None = None
    ) -> Followed:
        """A turn by its id, or a session's latest one, whichever process runs it; raises TurnNotFound."""
        if (turn_id is None) == (session_id is None):
            raise InvalidArgument("Give either turn_id or session_id (for its latest turn).")
        store, record = await anyio.to_thread.run_sync(self._find_turn, caller, turn_id, session_id)
        return self._engine.find(record.turn_id) or Watching(self._engine, store, record)

    async def cancel_turn(
        self, caller: Caller, *, turn_id: TurnId | None = None, session_id: SessionId | None = None
    ) -> Reply:
        """Cancels a turn and returns its reply; a turn that has ended stays as it is. Raises TurnNotFound."""
        followed = await self.follow(caller, turn_id=turn_id, session_id=session_id)
        await anyio.to_thread.run_sync(followed.cancel)
        async for _ in followed.events(wait=_CANCEL_SECONDS):
            pass
        return followed.reply()

    def _find_turn(
        self, caller: Caller, turn_id: TurnId | None, session_id: SessionId | None
    ) -> tuple[Store, TurnRecord]:
        store = self.store(caller)
        if turn_id is not None:
            record = store.find_turn(turn_id)
            if record is None:
                raise TurnNotFound(
                    f"There is no turn {turn_id!r} (records are kept for 7 days): "
                    "get_reply(session_id=...) finds a session's latest one, read_transcript what was said."
                )
            return store, record
        assert session_id is not None
        self._session(store, session_id)
        record = store.latest_turn(session_id)
        if record is None:
            raise TurnNotFound(f"Nothing was asked in the session {session_id!r} in the last 7 days: call ask_agent.")
        return store, record

    def _admit(self, caller: Caller, prompt: Prompt, turn_id: TurnId) -> Admitted:
        """Finds or begins the session, and writes the turn's record. What can be refused is refused before."""
        store = self.store(caller)
        meta = store.find_session(prompt.session_id) if prompt.session_id else None
        if meta is not None:
            self._check_session(store, meta, prompt)
        elif prompt.session_id is not None and (is_issued(prompt.session_id) or prompt.agent_id is None):
            raise self._no_session(prompt.session_id)
        agent_id = meta.agent_id if meta else prompt.agent_id or agent_library.DEFAULT_AGENT
        agent = self._usable(self._agent(store, agent_id))
        model = self.models.choose(agent.model).ref
        new = meta is None
        if meta is None:
            meta = self._new_session(caller.actor_for(prompt.actor_id), agent, session_id=prompt.session_id)
            try:
                store.create_session(meta)
            except SessionExists:
                # Somebody else began it at the same moment.
                return self._admit(caller, prompt, turn_id)
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
        )
        try:
            store.save_turn(record, sync=False)
        except AgentMcpError:
            if new:
                store.remove_session(meta.session_id)
            raise
        return Admitted(store=store, spec=agent, model=model, record=record)

    def _check_session(self, store: Store, meta: SessionMeta, prompt: Prompt) -> None:
        if prompt.agent_id is not None and prompt.agent_id != meta.agent_id:
            raise AgentMismatch(
                f"The session {meta.session_id!r} belongs to the agent {meta.agent_id!r} and can't change it: leave "
                "agent_id out, or leave session_id out to begin a session with the other agent."
            )
        if prompt.actor_id is not None and prompt.actor_id != meta.actor_id:
            raise ActorMismatch(
                f"The session {meta.session_id!r} belongs to another actor: leave session_id out to begin one for "
                f"{prompt.actor_id!r}."
            )
        if self._status(store, meta) == "expired":
            raise SessionExpired(
                f"The session {meta.session_id!r} expired at {meta.expires_at:%Y-%m-%d %H:%M:%S} UTC. "
                "read_transcript still shows it; ask without session_id to begin a new one."
            )

    # Shared steps

    def _spec(self, new: NewAgent) -> AgentSpec:
        base = agent_library.example(new.example) if new.example else None
        name = _line(new.name, "name", longest=_MAX_NAME)
        if not name:
            raise InvalidArgument("The name is empty: give the agent one.")
        if new.model is not None:
            parse_model(new.model)
        tools = new.tools if new.tools is not None else (base.tools if base else ())
        if len(tools) > _MAX_TOOLS:
            raise InvalidArgument(f"{len(tools)} tools are too many for one agent: give it at most {_MAX_TOOLS}.")
        self.toolbox.check(tools)
        prompt = new.system_prompt if new.system_prompt is not None else (base.system_prompt if base else "")
        if len(prompt) > _MAX_SYSTEM_PROMPT:
            raise InvalidArgument(f"The system_prompt is longer than {_MAX_SYSTEM_PROMPT} characters: shorten it.")
        description = new.description if new.description is not None else (base.description if base else "")
        made = now()
        return AgentSpec(
            agent_id=new.agent_id or slug(name),
            name=name,
            description=_line(description, "description", longest=_MAX_DESCRIPTION),
            system_prompt=prompt.replace("\r\n", "\n").replace("\r", "\n"),
            model=new.model or (base.model if base else None),
            tools=tuple(dict.fromkeys(tools)),
            created_at=made,
            updated_at=made,
        )

    def _agent(self, store: Store, agent_id: AgentId) -> AgentSpec:
        agent = store.agents.find(agent_id) or agent_library.built_in().get(agent_id)
        if agent is None:
            raise AgentNotFound(
                f"There is no agent {agent_id!r}: list_agents shows those there are, create_agent makes one."
            )
        return agent

    def _usable(self, agent: AgentSpec) -> AgentSpec:
        """The agent without what a hand-written file asks for and can't have, with a warning for each."""
        allowed = set(self.toolbox.names())
        warnings = [
            f"{agent.agent_id}: the tool {tool!r} is unknown or not allowed, and left out"
            for tool in agent.tools
            if tool not in allowed
        ]
        model = agent.model if agent.model != "inherit" else None
        try:
            if model is not None:
                parse_model(model)
        except InvalidArgument:
            warnings.append(f"{agent.agent_id}: the model {model!r} is unknown, the default is used")
            model = None
        tools = tuple(tool for tool in agent.tools if tool in allowed)
        return agent.model_copy(update={"tools": tools, "model": model, "warnings": tuple(warnings)})

    def _new_session(
        self,
        actor: ActorId,
        agent: AgentSpec,
        *,
        session_id: SessionId | None,
        title: str | None = None,
        ttl_seconds: int | None = None,
    ) -> SessionMeta:
        at = now()
        return SessionMeta(
            session_id=session_id or new_session_id(),
            agent_id=agent.agent_id,
            actor_id=actor,
            title=_line(title or "", "title", longest=200),
            created_at=at,
            last_active_at=at,
            ttl_seconds=self.settings.session_ttl if ttl_seconds is None else ttl_seconds,
            model=self._model_name(self._usable(agent)),
        )

    def _model_name(self, agent: AgentSpec) -> str | None:
        try:
            return str(self.models.choose(agent.model).ref)
        except NoModel:
            return None  # An ask will say so; a session can wait for it.

    def _session(self, store: Store, session_id: SessionId) -> SessionMeta:
        meta = store.find_session(session_id)
        if meta is None:
            raise self._no_session(session_id)
        return meta

    @staticmethod
    def _no_session(session_id: SessionId) -> SessionNotFound:
        return SessionNotFound(
            f"There is no session {session_id!r}: list_sessions shows those there are, start_session begins one, "
            "and ask_agent with an agent_id and an id of your own does too."
        )

    def _status(self, store: Store, meta: SessionMeta) -> SessionStatus:
        expires = meta.expires_at
        if expires is None or expires > now() or self._open_turn(store, meta.session_id):
            return "active"
        return "expired"

    def _open_turn(self, store: Store, session_id: SessionId) -> TurnRecord | None:
        return next((turn for turn in store.open_turns(session_id) if self._engine.is_running(store, turn)), None)

    def _listed(
        self, store: Store, session_id: SessionId, *, damaged: bool, snippet: str | None
    ) -> ListedSession | None:
        try:
            meta = store.find_session(session_id)
        except SessionDamaged:
            meta, damaged = store.unreadable_session(session_id), True
        if meta is None:
            return None
        return ListedSession(**dict(self._info(store, meta, damaged=damaged)), snippet=snippet)

    def _info(self, store: Store, meta: SessionMeta, *, damaged: bool = False) -> SessionInfo:
        turn = self._open_turn(store, meta.session_id)
        return SessionInfo(
            session_id=meta.session_id,
            agent_id=meta.agent_id,
            actor_id=meta.actor_id,
            title=meta.title,
            status="damaged" if damaged else self._status(store, meta),
            model=meta.model,
            created_at=meta.created_at,
            last_active_at=meta.last_active_at,
            expires_at=meta.expires_at,
            turns=meta.turns,
            usage=meta.usage,
            open_turn=OpenTurn(turn_id=turn.turn_id, status="working") if turn else None,
            transcript=transcript_uri(meta.session_id),
        )


def _page_size(limit: int) -> int:
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidArgument(f"The limit {limit} can't be used: give 1 to {MAX_PAGE}.")
    return limit


def _line(text: str, what: str, *, longest: int) -> str:
    """`text` on one line; raises InvalidArgument if it is too long."""
    joined = " ".join(text.split())
    if len(joined) > longest:
        raise InvalidArgument(f"The {what} has {len(joined)} characters: shorten it to {longest}.")
    return joined


def _check_prompt(text: str) -> None:
    if not text.strip():
        raise InvalidArgument("The prompt is empty: say what you want of the agent.")
    size = len(text.encode())
    if size > MAX_PROMPT_BYTES:
        raise TooLarge(
            f"The prompt has {size} bytes, more than the {MAX_PROMPT_BYTES} allowed: shorten it or ask in parts."
        )
