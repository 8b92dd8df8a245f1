"""Ends of turns that the system refused to write: tried again until they can be, for nobody else will end them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agent_mcp.agent_loop import AgentLoop
from agent_mcp.domain import TurnId, TurnRecord
from agent_mcp.storage.store import Store
from agent_mcp.turn_steps import Admitted

logger = logging.getLogger(__name__)

_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 8.0

Step = Callable[[Store, TurnRecord], TurnRecord]
"""Ends a turn by its record as it is now. Blocking; the session's lock is held where the turn came to its session."""


class Unkept:
    """Turns of this process that are over though their records don't say so. Used on one event loop only.

    Other processes take such a turn for one that runs, as long as this process lives. There are never more of them than
    records on disk, and none once that takes writes again.
    """

    def __init__(self, loop: AgentLoop, put_to_end: Callable[[Store, TurnRecord, Step], Awaitable[TurnRecord]]) -> None:
        self._loop = loop
        self._put_to_end = put_to_end
        self._steps: dict[TurnId, tuple[Admitted, Step]] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, admitted: Admitted, step: Step) -> None:
        """Takes `step` later, again and again until it is done."""
        self._steps[admitted.record.turn_id] = admitted, step
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def step(self, turn_id: TurnId) -> Step | None:
        """How a turn is to be ended; None where nothing is left to be done."""
        found = self._steps.get(turn_id)
        return found[1] if found is not None else None

    async def _run(self) -> None:
        pause = _FIRST_SECONDS
        while self._steps:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_SECONDS)
            for turn_id, (admitted, step) in list(self._steps.items()):
                try:
                    record = await self._put_to_end(admitted.store, admitted.record, step)
                    if not record.is_open or await self._loop.in_thread(admitted.store.find_turn, turn_id) is None:
                        del self._steps[turn_id]
                except Exception as error:
                    logger.warning("the end of turn %s can't be kept yet: %s", turn_id, error)
