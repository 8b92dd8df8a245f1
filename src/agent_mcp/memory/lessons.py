"""Learning from turns: by the agent's own model where the memory is embedded, by AgentCore where it is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from agent_mcp.domain import TurnRecord, parse_turn_id
from agent_mcp.errors import InvalidArgument
from agent_mcp.late import load_strands
from agent_mcp.memory.agentcore import AgentCoreFacts
from agent_mcp.memory.facts import Origin
from agent_mcp.memory.local import LocalFacts
from agent_mcp.memory.queue import Job
from agent_mcp.memory.room import Facts
from agent_mcp.models import Models, parse_model
from agent_mcp.storage.store import Store

logger = logging.getLogger(__name__)

_KNOWN = 12
"""Facts that the model is shown, so that it does not write them down again."""


class Lessons:
    """What turns teach of their actors. `reads_outside` tells by a tool's name whether it brings in what others wrote:
    facts from such a turn are not confirmed."""

    def __init__(self, *, models: Models, reads_outside: Callable[[str], bool]) -> None:
        self._models = models
        self._reads_outside = reads_outside

    def note(self, facts: Facts, record: TurnRecord) -> None:
        """Puts a turn among those to be learnt from. Only its id is kept: its words stay in its record. Blocking."""
        kind = "event" if isinstance(facts, AgentCoreFacts) else "learn"
        facts.queue.put(Job(key=record.turn_id, kind=kind, actor=record.actor_id))

    async def do(self, store: Store, facts: Facts, job: Job) -> None:
        """Does one job of a queue. Raises what the model or the service raises."""
        record = None
        if job.kind in ("learn", "event"):
            record = await asyncio.to_thread(store.find_turn, parse_turn_id(job.key))
        if isinstance(facts, AgentCoreFacts):
            confirmed = record is None or self._origin(record).confirmed
            await asyncio.to_thread(facts.do, job, record, confirmed=confirmed)
        elif record is None or record.status != "completed":
            await asyncio.to_thread(facts.queue.finish, job.key)
        else:
            await self._learn(facts, job, record)

    async def _learn(self, facts: LocalFacts, job: Job, record: TurnRecord) -> None:
        await asyncio.to_thread(load_strands)
        from agent_mcp.memory.learning import learn

        model = await asyncio.to_thread(self._models.build, parse_model(record.model or ""))
        known = await asyncio.to_thread(facts.brief, job.actor, record.prompt, limit=_KNOWN)
        texts = await learn(model, record, [memory.text for memory in known])
        try:
            await asyncio.to_thread(facts.keep_lesson, job, texts, self._origin(record))
        except InvalidArgument as full:
            logger.warning("turn %s taught nothing: %s", record.turn_id, full)
            await asyncio.to_thread(facts.queue.finish, job.key)

    def _origin(self, record: TurnRecord) -> Origin:
        outside = any(self._reads_outside(call.name) for call in record.tool_calls.values())
        return Origin.of(record, confirmed=not outside)
