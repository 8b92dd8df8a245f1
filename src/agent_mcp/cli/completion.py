"""`agent-mcp completion`, and the ids that complete: agents, sessions, turns."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from agent_mcp.cli.common import acting, use_service
from agent_mcp.errors import AgentMcpError
from agent_mcp.service import Service
from agent_mcp.service.stores import MAX_PAGE

_HOW = {
    "bash": 'put  eval "$(agent-mcp completion bash)"  into ~/.bashrc',
    "zsh": 'put  eval "$(agent-mcp completion zsh)"  into ~/.zshrc, behind compinit',
    "fish": "agent-mcp completion fish > ~/.config/fish/completions/agent-mcp.fish",
}
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
_Named = list[tuple[str, str]]


@click.command(epilog="To set it up: " + "; ".join(_HOW.values()) + ".")
@click.argument("shell", type=click.Choice(list(_HOW)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script with which a shell completes commands, flags and ids."""
    kind = get_completion_class(shell)
    assert kind is not None  # click has the three that are chosen from
    root = context.find_root()
    click.echo(kind(root.command, {}, "agent-mcp", "_AGENT_MCP_COMPLETE").source())


def agent_ids(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    return _complete(context, begun, _agents)


def session_ids(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    return _complete(context, begun, _sessions)


def turn_ids(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    return _complete(context, begun, _turns)


async def _agents(service: Service) -> _Named:
    page = await service.agents.list_agents(acting(), limit=MAX_PAGE)
    return [(agent.agent_id, agent.description or agent.name) for agent in page.agents]


async def _sessions(service: Service) -> _Named:
    page = await service.sessions.list_sessions(acting(), limit=MAX_PAGE)
    return [(session.session_id, session.title) for session in page.sessions]


async def _turns(service: Service) -> _Named:
    return [
        (turn.turn_id, f"{turn.status} {turn.session_id}") for turn in await service.turns.list_turns(acting(), None)
    ]


def _complete(
    context: click.Context, begun: str, named: Callable[[Service], Coroutine[Any, Any, _Named]]
) -> list[CompletionItem]:
    """The ids that begin so. A shell that completes is told of no error: there is nothing to complete then."""
    try:
        found = use_service(context, named)
    except AgentMcpError:
        return []
    return [CompletionItem(name, help=" ".join(about.split())[:60]) for name, about in found if name.startswith(begun)]
