"""`agent-mcp memory`."""

from __future__ import annotations

import click

from agent_mcp.cli.common import CALLER, command, json_option, print_json, print_table, use_service
from agent_mcp.domain import ActorId, parse_actor_id, parse_memory_id
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
        context, lambda service: service.memories.recall(CALLER, query, actor_id=_actor(actor), limit=limit)
    )
    if as_json:
        print_json(found)
        return
    print_table(
        (m.memory_id, f"{m.created_at:%Y-%m-%d}", "" if m.confirmed else "unconfirmed", m.text) for m in found.memories
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
            CALLER, text=text, memory_id=parse_memory_id(confirm) if confirm else None, actor_id=_actor(actor)
        ),
    )
    if as_json:
        print_json(kept)
    else:
        click.echo(f"{kept.memory_id} {'remembered' if text else 'confirmed'}")


@command(memory)
@click.argument("memory_id")
@_actor_option
def forget(context: click.Context, memory_id: str, actor: str | None) -> None:
    """Delete a remembered fact for good."""
    parsed = parse_memory_id(memory_id)
    use_service(context, lambda service: service.memories.forget(CALLER, parsed, actor_id=_actor(actor)))
    click.echo(f"{memory_id} forgotten")


def _actor(text: str | None) -> ActorId | None:
    return parse_actor_id(text) if text else None
