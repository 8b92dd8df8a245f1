"""`agent-mcp sessions`."""

from __future__ import annotations

import re
from datetime import timedelta

import click

from agent_mcp.cli.common import CALLER, command, json_option, print_json, print_table, use_service
from agent_mcp.domain import SessionId, SessionInfo, now, parse_actor_id, parse_agent_id, parse_session_id
from agent_mcp.errors import InvalidArgument
from agent_mcp.service import Service
from agent_mcp.service.session_cases import EXPIRED_FOR
from agent_mcp.service.stores import MAX_PAGE

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@click.group()
def sessions() -> None:
    """List, show, delete, prune and repair sessions."""


@command(sessions, "list")
@click.option("--agent", help="Only sessions with this agent.", metavar="ID")
@click.option("--actor", help="Only sessions of this actor.", metavar="ID")
@click.option(
    "--status",
    type=click.Choice(["active", "expired", "damaged", "all"]),
    default="all",
    show_default=True,
    help="Only sessions in this state.",
)
@click.option("--query", help="Only sessions in which these words were said.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many at most.")
@json_option
def list_sessions(
    context: click.Context,
    agent: str | None,
    actor: str | None,
    status: str,
    query: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List sessions, the most recently active first."""

    async def use(service: Service) -> list[SessionInfo]:
        found: list[SessionInfo] = []
        cursor: str | None = None
        while len(found) < limit:
            page = await service.sessions.list_sessions(
                CALLER,
                agent_id=parse_agent_id(agent) if agent else None,
                actor_id=parse_actor_id(actor) if actor else None,
                status=status,
                query=query,
                limit=min(MAX_PAGE, limit - len(found)),
                cursor=cursor,
            )
            found += page.sessions
            cursor = page.next_cursor
            if cursor is None:
                break
        return found

    found = use_service(context, use)
    if as_json:
        print_json(found)
    else:
        print_table(
            (
                session.session_id,
                session.status,
                f"{session.last_active_at:%Y-%m-%d %H:%M}",
                session.agent_id,
                session.actor_id,
                str(session.turns),
                session.title,
            )
            for session in found
        )


@command(sessions)
@click.argument("session_id")
@json_option
def show(context: click.Context, session_id: str, as_json: bool) -> None:
    """Print a session's transcript as Markdown, the newest 512 KiB of it; with --json, all messages."""
    if not as_json:
        click.echo(use_service(context, lambda s: s.sessions.markdown(CALLER, parse_session_id(session_id))))
        return

    async def use(service: Service) -> dict[str, object]:
        parsed = parse_session_id(session_id)
        session = await service.sessions.get(CALLER, parsed)
        messages: list[object] = []
        before: int | None = None
        while True:
            page = await service.sessions.read(CALLER, parsed, limit=MAX_PAGE, before=before)
            messages[:0] = page.messages
            before = page.before
            if before is None:
                return {**dict(session), "messages": messages}

    print_json(use_service(context, use))


@command(sessions)
@click.argument("session_ids", nargs=-1, required=True, metavar="SESSION_ID...")
def delete(context: click.Context, session_ids: tuple[str, ...]) -> None:
    """Delete sessions and all that was said in them, for good."""
    parsed = [parse_session_id(session_id) for session_id in session_ids]
    use_service(context, lambda service: _delete(service, parsed))


@command(sessions)
@click.argument("session_id")
@json_option
def repair(context: click.Context, session_id: str, as_json: bool) -> None:
    """Set a session's damaged files aside, and restore what can be. Nothing is deleted."""
    parsed = parse_session_id(session_id)
    done = use_service(context, lambda service: service.turns.repair_session(CALLER, parsed))
    if as_json:
        print_json(done)
        return
    for name in done.set_aside:
        click.echo(f"set aside: {name}")
    for name in done.restored:
        click.echo(f"restored: {name}")
    if not done.set_aside and not done.restored:
        click.echo(f"nothing in {session_id} is damaged")


@command(sessions)
@click.option("--older-than", default=f"{EXPIRED_FOR.days}d", show_default=True, help="How long expired: 12h, 30d, 8w.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
def prune(context: click.Context, older_than: str, dry_run: bool) -> None:
    """Delete the sessions that have been expired for some time."""
    age = _duration(older_than)

    async def use(service: Service) -> None:
        expired = await service.sessions.expired_before(CALLER, now() - age)
        if dry_run:
            for session_id in expired:
                click.echo(f"{session_id} would be deleted")
        else:
            await _delete(service, expired)
        click.echo(f"{len(expired)} expired for more than {older_than}", err=True)

    use_service(context, use)


async def _delete(service: Service, session_ids: list[SessionId]) -> None:
    for session_id in session_ids:
        await service.turns.delete_session(CALLER, session_id)
        click.echo(f"{session_id} deleted")


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if match is None:
        raise InvalidArgument(f"{text!r} is no length of time: write a number and one of s, m, h, d, w, such as 30d.")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
