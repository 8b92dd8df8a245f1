"""`agent-mcp agents`."""

from __future__ import annotations

import sys

import click

from agent_mcp.cli.common import acting, command, json_option, print_json, use_service
from agent_mcp.cli.completion import agent_ids
from agent_mcp.cli.terminal import print_table, say
from agent_mcp.domain import MEMORY_MODES, AgentSpec, MemoryMode, parse_agent_id
from agent_mcp.model_params import ModelParams, parse_params
from agent_mcp.service import Service
from agent_mcp.service.agent_cases import AgentDraft, AgentPage
from agent_mcp.service.stores import MAX_PAGE

_PARAM_HELP = f"A parameter of its model ({', '.join(ModelParams.__annotations__)}); can be given several times."


@click.group()
def agents() -> None:
    """List, show, create and delete agents."""


@command(agents, "list")
@click.option("--query", help="Only agents with these words in id, name or description.")
@json_option
def list_agents(context: click.Context, query: str | None, as_json: bool) -> None:
    """List the agents that can be asked; files that can't be read are named on stderr."""
    found, page = use_service(context, lambda service: _all(service, query))
    for warning in page.warnings:
        say(f"warning: {warning}", err=True)
    if as_json:
        print_json(found)
    else:
        print_table(
            ("id", "source", "model", "description"),
            ((agent.agent_id, agent.source, agent.model or "", agent.description) for agent in found),
        )


async def _all(service: Service, query: str | None) -> tuple[list[AgentSpec], AgentPage]:
    found: list[AgentSpec] = []
    cursor: str | None = None
    while True:
        page = await service.agents.list_agents(acting(), query=query, limit=MAX_PAGE, cursor=cursor)
        found += page.agents
        cursor = page.next_cursor
        if cursor is None:
            return found, page


@command(agents)
@click.argument("agent_id", shell_complete=agent_ids)
@json_option
def show(context: click.Context, agent_id: str, as_json: bool) -> None:
    """Print an agent's file."""
    parsed = parse_agent_id(agent_id)
    if as_json:
        print_json(use_service(context, lambda service: service.agents.get(acting(), parsed)))
    else:
        text = use_service(context, lambda service: service.agents.markdown(acting(), parsed))
        say(text, nl=False)


@command(agents)
@click.argument("name")
@click.option("--system-prompt", help='Who the agent is and how it works; "-" reads it from stdin.')
@click.option("--description", help="What to use it for.")
@click.option("--model", "--agent-model", "agent_model", help="Its model, as provider:model_id.", metavar="MODEL")
@click.option("--param", "params", multiple=True, help=_PARAM_HELP, metavar="NAME=VALUE")
@click.option("--tool", "--tools", "tools", multiple=True, help="A tool that it may use; can be given several times.")
@click.option("--memory", type=click.Choice(MEMORY_MODES), help="Whether it sees what is remembered of its actor.")
@click.option("--id", "agent_id", help="An id of your own.")
@click.option("--example", help="Fill what is not given from an example.")
@json_option
def create(
    context: click.Context,
    name: str,
    system_prompt: str | None,
    description: str | None,
    agent_model: str | None,
    params: tuple[str, ...],
    tools: tuple[str, ...],
    memory: MemoryMode | None,
    agent_id: str | None,
    example: str | None,
    as_json: bool,
) -> None:
    """Create an agent."""
    if system_prompt == "-":
        system_prompt = sys.stdin.read()
    draft = AgentDraft(
        name=name,
        system_prompt=system_prompt,
        description=description,
        model=agent_model,
        model_params=parse_params(params) if params else None,
        tools=tools or None,
        memory=memory,
    )
    own_id = parse_agent_id(agent_id) if agent_id else None
    made = use_service(
        context, lambda service: service.agents.create(acting(), draft, agent_id=own_id, example=example)
    )
    if as_json:
        print_json(made)
    else:
        click.echo(f"{made.agent_id} {'created' if made.created else 'was there already'}")


@command(agents)
@click.argument("agent_id", shell_complete=agent_ids)
@json_option
def delete(context: click.Context, agent_id: str, as_json: bool) -> None:
    """Delete an agent. Its sessions stay readable."""
    deleted = use_service(context, lambda service: service.agents.delete(acting(), parse_agent_id(agent_id)))
    if as_json:
        print_json(deleted)
    else:
        click.echo(f"{agent_id} deleted")
