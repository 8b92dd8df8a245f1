"""The composition root: settings become a service. Only this module knows how the rooms are put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from agent_mcp.config import Settings
from agent_mcp.domain import AgentId, SessionId, TurnRecord
from agent_mcp.late import load_strands
from agent_mcp.memory.facts import Origin
from agent_mcp.memory.lessons import Lessons
from agent_mcp.memory.queue import Job
from agent_mcp.memory.room import MemoryRoom
from agent_mcp.memory.worker import Worker
from agent_mcp.models import Models
from agent_mcp.service import Service
from agent_mcp.storage.agent_files import AgentDirectory
from agent_mcp.storage.store import Store
from agent_mcp.tally import Tally
from agent_mcp.toolbox import Bench, Toolbox, reads_outside
from agent_mcp.toolbox.internet import Internet
from agent_mcp.turn_steps import Admitted
from agent_mcp.turns import Limits, TurnEngine

if TYPE_CHECKING:
    from agent_mcp.agents import SessionAgent

_HITS = 8


def build_service(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    authenticated: bool = False,
    internet: Internet | None = None,
    at_end: Callable[[], None] | None = None,
) -> Service:
    """A service over `settings.data_dir`; `environ` is where model providers' credentials are looked for.

    `authenticated` says that its callers have shown who they are, so that defaults are those for strangers. `internet`
    is what web tools see instead of the real one, `at_end` is called when everything is closed.
    """
    tally = Tally()
    models = Models(
        default=settings.model,
        environ=environ,
        allowed=settings.allow_models,
        authenticated=authenticated,
        tally=tally,
    )
    room = MemoryRoom(sync=settings.fsync, agentcore=settings.agentcore_memory_id)
    toolbox = Toolbox(
        modules=settings.tools,
        allowed=settings.allow_tools,
        unapproved=settings.approve,
        files=[str(path) for path in settings.files],
        internet=internet or Internet(domains=settings.web_domains),
        servers=str(settings.mcp_servers) if settings.mcp_servers else None,
        environ=environ,
    )

    def build(admitted: Admitted) -> SessionAgent:
        # Strands takes half a second to import: nobody waits for it before the first turn.
        load_strands()
        from agent_mcp.agents import AgentFactory
        from agent_mcp.memory.actor_store import ActorStore, memory_manager
        from agent_mcp.outside import Outside
        from agent_mcp.sandboxes import sandbox_for
        from agent_mcp.token_limit import TokenLimit

        store, session_id = admitted.store, admitted.record.session_id
        tokens = TokenLimit(admitted.token_limit())

        async def ask(agent_id: AgentId, prompt: str) -> str:
            return await service.turns.delegate(admitted, agent_id, prompt, token_limit=tokens.left, spend=tokens.spend)

        bench = Bench(
            search=lambda query: _search(store, session_id, query),
            ask=ask,
            describe=lambda agent_id: service.turns.describe(admitted.caller, agent_id),
            sandbox=lambda: sandbox_for(
                settings.sandbox, workspace=str(store.workspace(session_id)), session=f"{store.subject}/{session_id}"
            ),
            may_interrupt=admitted.depth == 0,
            subject=admitted.caller.subject,
        )
        outside = Outside(reads_outside, before=[call.name for call in admitted.record.tool_calls.values()])
        known = ActorStore(
            room.of(store, admitted.caller.subject),
            admitted.record.actor_id,
            origin=lambda: Origin.of(admitted.record, confirmed=not outside.seen),
            executor=room.executor,
        )
        return AgentFactory(models=models, toolbox=toolbox).build(
            admitted.spec,
            turn_id=admitted.record.turn_id,
            model=admitted.model,
            history=store.history_of(admitted.record),
            bench=bench,
            tokens=tokens,
            memory=memory_manager(known) if admitted.spec.memory != "off" else None,
            hooks=[outside],
        )

    lessons = Lessons(models=models, reads_outside=reads_outside)

    async def do(store: Store, subject: str, job: Job) -> None:
        await lessons.do(store, room.of(store, subject), job)

    def ended(admitted: Admitted, record: TurnRecord) -> None:
        # What another agent says for an actor is not the actor's word.
        if record.status == "completed" and admitted.spec.memory == "auto" and admitted.depth == 0:
            lessons.note(room.of(admitted.store, admitted.caller.subject), record)
            worker.start(admitted.store, admitted.caller.subject)
        elif admitted.spec.memory != "off":  # The agent itself may have noted what could not be sent.
            worker.keep_up(admitted.store, admitted.caller.subject)

    limits = Limits(seconds=settings.turn_timeout, calls=settings.max_calls)
    engine = TurnEngine(build=build, ended=ended, limits=limits, tally=tally)
    worker = Worker(room=room, submit=engine.beside, do=do)
    directories = [AgentDirectory(path) for path in settings.agents_path]
    service = Service(
        settings=settings,
        models=models,
        toolbox=toolbox,
        engine=engine,
        room=room,
        worker=worker,
        directories=directories,
        tally=tally,
        at_end=at_end,
    )
    return service


def warm_up() -> None:
    """Imports what the first turn needs, so that it does not wait for it. Takes half a second: run it in a thread."""
    load_strands()
    import agent_mcp.agents  # noqa: F401  # pyright: ignore[reportUnusedImport] imported for its time


def _search(store: Store, session_id: SessionId, query: str) -> str:
    """What the tool `search_session` tells the model."""
    hits = store.search(session_id, query, limit=_HITS)
    if not hits:
        return f"Nothing in this session fits {query!r}. Try fewer or other words."
    return "\n\n".join(f"[message {index}, {role}] {text}" for index, role, text in hits)
