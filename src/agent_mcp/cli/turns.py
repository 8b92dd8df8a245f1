"""`agent-mcp turns`: look at turns, end them, and decide what a person has to decide."""

from __future__ import annotations

import click

from agent_mcp.cli.common import acting, command, json_option, print_json, use_service
from agent_mcp.cli.completion import session_ids, turn_ids
from agent_mcp.cli.terminal import print_markdown, print_table, say
from agent_mcp.domain import Reply, TurnId, parse_session_id, parse_turn_id
from agent_mcp.service import Service


@click.group()
def turns() -> None:
    """List, show and cancel turns; approve or deny what they want to do."""


@command(turns, "list")
@click.option("--session", help="Only turns of this session.", metavar="ID", shell_complete=session_ids)
@json_option
def list_turns(context: click.Context, session: str | None, as_json: bool) -> None:
    """List the turns of the last 7 days, the latest first."""
    session_id = parse_session_id(session) if session else None
    found = use_service(context, lambda service: service.turns.list_turns(acting(), session_id))
    if as_json:
        print_json([record.model_copy(update={"conversation": None}) for record in found])
    else:
        print_table(
            ("id", "status", "asked", "agent", "session", "waits for"),
            (
                (
                    record.turn_id,
                    record.status,
                    f"{record.created_at:%Y-%m-%d %H:%M}",
                    record.agent_id,
                    record.session_id,
                    record.wanted or "",
                )
                for record in found
            ),
        )


@command(turns)
@click.argument("turn_id", shell_complete=turn_ids)
@json_option
def show(context: click.Context, turn_id: str, as_json: bool) -> None:
    """Print a turn's reply; a failed turn is an error."""
    _print(use_service(context, lambda service: _reply(service, parse_turn_id(turn_id))), as_json=as_json)


@command(turns)
@click.argument("turn_id", shell_complete=turn_ids)
@json_option
def cancel(context: click.Context, turn_id: str, as_json: bool) -> None:
    """End a turn that works, waits its turn or waits for somebody."""
    reply = use_service(context, lambda service: service.turns.cancel(acting(), turn_id=parse_turn_id(turn_id)))
    _print(reply, as_json=as_json)


@command(turns)
@click.argument("turn_id", shell_complete=turn_ids)
@json_option
def approve(context: click.Context, turn_id: str, as_json: bool) -> None:
    """Allow the use of a tool that a turn waits for, this once; the turn goes on here until it ends."""
    _print(use_service(context, lambda s: _decide(s, parse_turn_id(turn_id), approve=True)), as_json=as_json)


@command(turns)
@click.argument("turn_id", shell_complete=turn_ids)
@json_option
def deny(context: click.Context, turn_id: str, as_json: bool) -> None:
    """Refuse the use of a tool that a turn waits for; the agent is told, and the turn goes on here until it ends."""
    _print(use_service(context, lambda s: _decide(s, parse_turn_id(turn_id), approve=False)), as_json=as_json)


async def _reply(service: Service, turn_id: TurnId) -> Reply:
    followed = await service.turns.follow(acting(), turn_id=turn_id)
    async for _ in followed.events(wait=0):
        pass
    return followed.reply()


async def _decide(service: Service, turn_id: TurnId, *, approve: bool) -> Reply:
    following = await service.turns.decide(acting(), turn_id, approve=approve)
    async for _ in following.events(wait=service.settings.turn_timeout + 60):
        pass
    return following.reply()


def _print(reply: Reply, *, as_json: bool) -> None:
    if as_json:
        print_json(reply)
        return
    click.echo(f"{reply.turn_id} {reply.status}", err=True)
    if reply.response:
        print_markdown(reply.response)
    if reply.question:
        say(reply.question)
