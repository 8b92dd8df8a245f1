"""A definition and a session become a Strands agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from strands import Agent
from strands.hooks import HookProvider
from strands.memory import MemoryManager
from strands.types.exceptions import SessionException

from agent_mcp.approvals import Approvals
from agent_mcp.context import SummarizingWindow, budget_of
from agent_mcp.domain import AgentSpec, TurnId
from agent_mcp.models import ModelRef, Models
from agent_mcp.models.guarded import Patience
from agent_mcp.storage.fenced import FencedSessionManager
from agent_mcp.storage.history import UNREADABLE, History
from agent_mcp.token_limit import TokenLimit
from agent_mcp.toolbox import Bench, Toolbox

RETRIES = 5
FIRST_DELAY_SECONDS = 1
"""How often a model call is made again at most, and after how long at first: each wait is twice the one before."""


@dataclass(frozen=True, kw_only=True)
class SessionAgent:
    """A Strands agent with a session's history, and what was put around it for one turn."""

    agent: Agent
    window: SummarizingWindow
    manager: FencedSessionManager
    tokens: TokenLimit


class AgentFactory:
    """Builds agents for turns."""

    def __init__(self, *, models: Models, toolbox: Toolbox) -> None:
        self._models = models
        self._toolbox = toolbox

    def build(
        self,
        spec: AgentSpec,
        *,
        turn_id: TurnId,
        model: ModelRef,
        history: History,
        bench: Bench,
        tokens: TokenLimit,
        memory: MemoryManager | None = None,
        hooks: Sequence[HookProvider] = (),
    ) -> SessionAgent:
        """An agent that remembers what `history` holds, and knows of its actor what `memory` brings.

        Blocking; the session exists and its turn lock is held.

        Raises SessionDamaged where Strands can't restore the history.
        """
        built = self._models.build(model, spec.model_params)
        window = SummarizingWindow(budget=budget_of(built.context_window_limit))
        tools = self._toolbox.build(spec.tools, bench)
        approvals = Approvals(tools.approve, may_interrupt=bench.may_interrupt)
        manager = history.manager()
        try:
            agent = Agent(
                model=built,
                system_prompt=spec.system_prompt if spec.system_prompt.strip() else None,  # a blank one is refused
                tools=[*tools.tools],
                agent_id=spec.agent_id,
                name=spec.name,
                description=spec.description or None,
                session_manager=manager,
                conversation_manager=window,
                hooks=[approvals, tokens, *hooks],
                memory_manager=memory,
                sandbox=bench.sandbox() if tools.run_code else None,
                retry_strategy=Patience(max_attempts=1 + RETRIES, initial_delay=FIRST_DELAY_SECONDS),
                trace_attributes={"agent_mcp.turn_id": turn_id},
                callback_handler=None,  # Strands' default prints to stdout, which on stdio is the protocol's.
            )
        except (SessionException, *UNREADABLE) as error:
            raise history.find_damage() or error from error
        return SessionAgent(agent=agent, window=window, manager=manager, tokens=tokens)
