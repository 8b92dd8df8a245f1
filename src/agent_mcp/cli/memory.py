"""`agent-mcp memory`."""

from __future__ import annotations

import sys

import click

from agent_mcp.cli.common import acting, command, json_option, print_json, use_service
from agent_mcp.cli.terminal import print_table
from agent_mcp.domain import ActorId, parse_actor_id, parse_memory_id
from agent_mcp.memory.aws import Absent, create_memory
from agent_mcp.service.stores import MAX_PAGE

_actor_option = click.option("--actor", help="Of whom.  [default: local]", metavar="ID")


@click.group()
def memory() -> None:
    """Recall, remember, forget and erase what is known about actors beyond their sessions."""


@command(memory)
@click.argument("query")
@_actor_option
@click.option("--limit", type=click.IntRange(1, MAX_PAGE), default=10, show_default=True, help="How many at most.")
@json_option
def recall(context: click.Context, query: str, actor: str | None, limit: int, as_json: bool) -> None:
    """Search what is remembered of an actor, the best first."""
    found = use_service(
        context, lambda service: service.memories.recall(acting(), query, actor_id=_actor(actor), limit=limit)
    )
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "since", "", "fact"),
        (
            (m.memory_id, f"{m.created_at:%Y-%m-%d}", "" if m.confirmed else "unconfirmed", m.text)
            for m in found.memories
        ),
    )
    if found.note:
        click.echo(found.note, err=True)


@command(memory)
@click.argument("text", required=False)
@click.option("--confirm", help="Instead of TEXT: confirms a fact that an agent noted.", metavar="MEMORY_ID")
@_actor_option
@json_option
def remember(context: click.Context, text: str | None, confirm: str | None, actor: str | None, as_json: bool) -> None:
    """Remember a fact about an actor, one sentence."""
    kept = use_service(
        context,
        lambda service: service.memories.remember(
            acting(), text=text, memory_id=parse_memory_id(confirm) if confirm else None, actor_id=_actor(actor)
        ),
    )
    if as_json:
        print_json(kept)
    else:
        click.echo(f"{kept.memory_id} {'remembered' if text else 'confirmed'}")


@command(memory)
@click.argument("memory_id")
@_actor_option
@json_option
def forget(context: click.Context, memory_id: str, actor: str | None, as_json: bool) -> None:
    """Delete a remembered fact for good."""
    parsed = parse_memory_id(memory_id)
    gone = use_service(context, lambda service: service.memories.forget(acting(), parsed, actor_id=_actor(actor)))
    if as_json:
        print_json(gone)
    else:
        click.echo(f"{memory_id} forgotten")


@command(memory)
@click.argument("actor")
@click.option("--everything", is_flag=True, help="Also all sessions, turns, and what the index has of them.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def erase(context: click.Context, actor: str, everything: bool, yes: bool, as_json: bool) -> None:
    """Erase what is remembered of ACTOR, so that none of its words is left in any file. It can't be undone."""
    parsed = parse_actor_id(actor)
    what = "all facts, sessions and turns" if everything else "all facts"
    if not yes and sys.stdin.isatty():
        click.confirm(f"Erase {what} of {actor} for good", abort=True, err=True)
    done = use_service(context, lambda service: service.erasure.erase(acting(), parsed, everything=everything))
    if as_json:
        print_json(done)
    else:
        click.echo(
            f"{actor}: {done.facts} facts" + (f" and {done.sessions} sessions" if everything else "") + " erased"
        )
    for session_id in done.unclear:
        click.echo(f"left: the session {session_id} is damaged, and nothing tells whose it is", err=True)
    if done.unclear:
        sys.exit(1)


@command(memory)
@click.option("--name", default="agent_mcp", show_default=True, help="A name for it: letters, digits and '_'.")
@click.option(
    "--event-days",
    type=click.IntRange(3, 3650),
    default=30,
    show_default=True,
    help="Days for which AWS keeps what was said in turns of agents with memory auto.",
)
@json_option
def setup(context: click.Context, name: str, event_days: int, as_json: bool) -> None:
    """Create a memory in Bedrock AgentCore, and print the setting that makes agents use it.

    It has the strategies semantic and preferences, by which AgentCore learns from turns, for one actor at a time.
    """
    try:
        made = create_memory(name, event_days=event_days)
    except Absent as error:
        raise click.ClickException(f"AgentCore did not create the memory: {error}. Nothing was changed.") from None
    if as_json:
        print_json({"AGENT_MCP_AGENTCORE_MEMORY_ID": made})
    else:
        click.echo(f"AGENT_MCP_AGENTCORE_MEMORY_ID={made}")
    click.echo("AWS takes two or three minutes until it can be used.", err=True)


def _actor(text: str | None) -> ActorId | None:
    return parse_actor_id(text) if text else None
