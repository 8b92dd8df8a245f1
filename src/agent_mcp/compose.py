"""The composition root: settings become a service. Only this module knows how the rooms are put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent_mcp.config import Settings
from agent_mcp.domain import AgentSpec, SessionId
from agent_mcp.models import ModelRef, Models
from agent_mcp.service import Service
from agent_mcp.storage.history import History
from agent_mcp.storage.store import Store
from agent_mcp.strands_import import import_strands
from agent_mcp.toolbox import Toolbox
from agent_mcp.turns import Limits, TurnEngine

if TYPE_CHECKING:
    from agent_mcp.agents import SessionAgent

_HITS = 8


def build_service(settings: Settings, environ: Mapping[str, str]) -> Service:
    """A service over `settings.data_dir`; `environ` is where model providers' credentials are looked for."""
    models = Models(default=settings.model, environ=environ)
    toolbox = Toolbox(modules=settings.tools)

    def build(spec: AgentSpec, model: ModelRef, history: History, store: Store) -> SessionAgent:
        # Strands takes half a second to import: nobody waits for it before the first turn.
        import_strands()
        from agent_mcp.agents import AgentFactory

        return AgentFactory(models=models, toolbox=toolbox).build(
            spec, model=model, history=history, search=lambda query: _search(store, history.session_id, query)
        )

    engine = TurnEngine(build=build, limits=Limits(seconds=settings.turn_timeout, calls=settings.max_calls))
    return Service(settings=settings, models=models, toolbox=toolbox, engine=engine)


def warm_up() -> None:
    """Imports what the first turn needs, so that it does not wait for it. Takes half a second: run it in a thread."""
    import_strands()
    import agent_mcp.agents  # noqa: F401  # pyright: ignore[reportUnusedImport] imported for its time


def _search(store: Store, session_id: SessionId, query: str) -> str:
    """What the tool `search_session` tells the model."""
    hits = store.search(session_id, query, limit=_HITS)
    if not hits:
        return f"Nothing in this session fits {query!r}. Try fewer or other words."
    return "\n\n".join(f"[message {index}, {role}] {text}" for index, role, text in hits)
