"""The use cases: what every door calls, and nothing below them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio.to_thread

from agent_mcp.config import Settings
from agent_mcp.domain import LOCAL_SUBJECT, Caller
from agent_mcp.errors import InvalidArgument
from agent_mcp.memory.room import MemoryRoom
from agent_mcp.memory.worker import Worker
from agent_mcp.models import Models
from agent_mcp.service.admission import Prompt
from agent_mcp.service.agent_cases import AgentCases, AgentDraft
from agent_mcp.service.change_cases import ChangeCases
from agent_mcp.service.erasure import Erasure
from agent_mcp.service.memory_cases import MemoryCases
from agent_mcp.service.session_cases import SessionCases
from agent_mcp.service.stores import Stores
from agent_mcp.service.suggestions import SuggestionCases
from agent_mcp.service.turn_cases import TurnCases
from agent_mcp.storage.agent_files import AgentDirectory
from agent_mcp.storage.store import Store
from agent_mcp.tally import Tally
from agent_mcp.toolbox import Toolbox
from agent_mcp.turns import TurnEngine

__all__ = ["AgentDraft", "Prompt", "Service"]


@dataclass(frozen=True, kw_only=True)
class Gauges:
    """Turns that wait for their time and that run, agents that are held for them, and stores that are open."""

    waiting: int
    running: int
    agents: int
    stores: int


class Service:
    """The use cases over one data directory, one attribute for each noun. Any event loop may call them."""

    def __init__(
        self,
        *,
        settings: Settings,
        models: Models,
        toolbox: Toolbox,
        engine: TurnEngine,
        room: MemoryRoom,
        worker: Worker,
        tally: Tally,
        directories: Sequence[AgentDirectory] = (),
        at_end: Callable[[], None] | None = None,
    ) -> None:
        self.settings = settings
        self.models = models
        self.toolbox = toolbox
        self._engine = engine
        self._room = room
        self._worker = worker
        self.tally = tally
        self._at_end = at_end
        self._stores = Stores(settings, opened=worker.keep_up)
        self.agents = AgentCases(stores=self._stores, models=models, toolbox=toolbox, directories=directories)
        self.memories = MemoryCases(stores=self._stores, room=room, worker=worker)
        self.sessions = SessionCases(
            stores=self._stores, settings=settings, models=models, agents=self.agents, is_running=engine.is_running
        )
        self.changes = ChangeCases(stores=self._stores)
        self.suggestions = SuggestionCases(stores=self._stores, agents=self.agents, sessions=self.sessions)
        self.turns = TurnCases(
            stores=self._stores,
            settings=settings,
            models=models,
            agents=self.agents,
            sessions=self.sessions,
            engine=engine,
        )

        self.erasure = Erasure(stores=self._stores, room=room, turns=self.turns)

    def keep_up(self) -> None:
        """Has this process do what others left to be learnt or sent, as a server does that is here to stay."""
        self._worker.keeps_up = True

    def store(self, caller: Caller) -> Store:
        """The caller's store, for those who look at the directory itself. Blocking; raises StorageFailed."""
        return self._stores.of(caller)

    async def check_subject(self, caller: Caller) -> None:
        """Raises InvalidArgument if nothing was ever kept for this subject: its name is mistyped, perhaps."""
        subjects = await anyio.to_thread.run_sync(self._stores.subjects)
        if caller.subject not in (LOCAL_SUBJECT, *subjects):
            known = f"the first are {', '.join(sorted(subjects)[:20])}" if subjects else "it has none but the local one"
            raise InvalidArgument(
                f"Nothing is kept of the subject {caller.subject[:200]!r} in this directory: {known}."
            )

    def gauges(self) -> Gauges:
        """How much of everything there is in this process now."""
        turns = self._engine.turns()
        running = sum(turn.is_running for turn in turns)
        return Gauges(
            waiting=len(turns) - running,
            running=running,
            agents=sum(turn.has_agent for turn in turns),
            stores=self._stores.count(),
        )

    async def drain(self, *, grace: float) -> None:
        """Ends open turns: within `grace` seconds by themselves, then cancelled and closed."""
        await self._engine.close(grace=grace)

    async def close(self, *, grace: float) -> None:
        """Ends open turns, and gives everything back."""
        await self._engine.close(grace=grace)
        self._worker.close()
        if self.models.is_connected:
            await self._engine.run(self.models.close())
        self._room.close()
        await anyio.to_thread.run_sync(self.toolbox.close)
        self._stores.close()
        self._engine.stop()
        if self._at_end is not None:
            await anyio.to_thread.run_sync(self._at_end)
