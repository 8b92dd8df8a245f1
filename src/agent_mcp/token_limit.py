"""A ceiling on the tokens of one turn, those of agents that it asks included."""

from __future__ import annotations

from typing import Any

from strands import Agent
from strands.hooks import AgentInitializedEvent, BeforeModelCallEvent, HookProvider, HookRegistry

from agent_mcp.domain import Usage


class TokenLimit(HookProvider):
    """Counts the tokens of one agent's run, and ends it before a model call once `limit` are used (0 = never).

    Strands' own limit does not see what agents use that are asked as tools; they are counted with `spend`.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._agent: Agent | None = None
        self._spent = Usage()
        self.is_exceeded = False

    def spend(self, usage: Usage) -> None:
        """Counts what was used elsewhere on behalf of this run."""
        self._spent += usage

    @property
    def used(self) -> Usage:
        """What was used so far, as Strands counts it."""
        if self._agent is None:
            return self._spent
        used = self._agent.event_loop_metrics.accumulated_usage
        return self._spent + Usage(
            input_tokens=used["inputTokens"], output_tokens=used["outputTokens"], total_tokens=used["totalTokens"]
        )

    @property
    def left(self) -> int:
        """Tokens that may still be used: 0 = no limit, at least 1 where there is one."""
        return max(1, self._limit - self.used.total_tokens) if self._limit else 0

    @property
    def note(self) -> str:
        return f"[Stopped: this turn reached its limit of {self._limit} tokens.]"

    def register_hooks(self, registry: HookRegistry, **kwargs: Any) -> None:
        registry.add_callback(AgentInitializedEvent, self._initialized)
        registry.add_callback(BeforeModelCallEvent, self._before_model_call)

    def _initialized(self, event: AgentInitializedEvent) -> None:
        self._agent = event.agent

    def _before_model_call(self, event: BeforeModelCallEvent) -> None:
        if self._limit and self.used.total_tokens >= self._limit:
            self.is_exceeded = True
            event.cancel = self.note
