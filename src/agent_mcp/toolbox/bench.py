"""What tools work with in one turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_mcp.ids import AgentId

if TYPE_CHECKING:
    from agent_mcp.sandboxes import Container, Remote, Workspace


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What tools work with in one turn.

    `search` looks through the whole transcript of the session, `ask` asks another agent on behalf of this one and
    returns its answer, `describe` says what another agent is for. `may_interrupt` is whether there is somebody to turn
    to: an agent that is called as a tool has nobody. `sandbox` is where the session's tools run
    code. `subject` is for whom the turn is: not everybody may use every MCP server of the operator.
    """

    search: Callable[[str], str]
    ask: Callable[[AgentId, str], Awaitable[str]]
    describe: Callable[[AgentId], str]
    sandbox: Callable[[], Workspace | Container | Remote]
    may_interrupt: bool
    subject: str
