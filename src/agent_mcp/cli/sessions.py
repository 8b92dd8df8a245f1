"""`agent-mcp sessions`."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import click

from agent_mcp.cli.common import acting, command, json_option, print_json, use_service
from agent_mcp.cli.completion import agent_ids, session_ids as complete_session_ids
from agent_mcp.cli.exports import FORMATS, every_id, export as export_transcripts, whole
from agent_mcp.cli.terminal import print_markdown, print_table, progress, waiting
from agent_mcp.domain import (
    LONGEST_LIFE,
    ListedSession,
    SessionId,
    now,
    parse_actor_id,
    parse_agent_id,
    parse_session_id,
)
from agent_mcp.errors import InvalidArgument
from agent_mcp.service import Service
from agent_mcp.service.session_cases import EXPIRED_FOR
from agent_mcp.service.stores import MAX_PAGE

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_agent_option = click.option("--agent", help="Only sessions with this agent.", metavar="ID", shell_complete=agent_ids)
_actor_option = click.option("--actor", help="Only sessions of this actor.", metavar="ID")
_status_option = click.option(
    "--status",
    type=click.Choice(["active", "expired", "damaged", "all"]),
    default="all",
    show_default=True,
    help="Only sessions in this state.",
)
_limit_option = click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many at most."
)


@click.group()
def sessions() -> None:
    """List, search, show, export, delete, prune and repair sessions."""


@command(sessions, "list")
@_agent_option
@_actor_option
@_status_option
@click.option("--query", help="Only sessions in which these words were said, as `sessions search` takes them.")
@_limit_option
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
    """List sessions, the most recently active first; with --query the most relevant."""
    found = _find(context, agent=agent, actor=actor, status=status, query=query, limit=limit)
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "status", "last active", "agent", "actor", "turns", "title"),
        (
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
        ),
    )


@command(sessions)
@click.argument("query")
@_agent_option
@_actor_option
@_status_option
@_limit_option
@json_option
def search(
    context: click.Context,
    query: str,
    agent: str | None,
    actor: str | None,
    status: str,
    limit: int,
    as_json: bool,
) -> None:
    """Find sessions in which all words of QUERY were said, the most relevant first.

    Inflected forms count. A phrase stands in double quotes, the beginning of a word has a * behind it; the last word
    may be a beginning too. Titles and ids are searched as well.
    """
    with waiting("searching"):
        found = _find(context, agent=agent, actor=actor, status=status, query=query, limit=limit)
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("No session has all of these words.", err=True)
    print_table(
        ("id", "last active", "agent", "title", "found"),
        (
            (
                session.session_id,
                f"{session.last_active_at:%Y-%m-%d %H:%M}",
                session.agent_id,
                session.title[:30],
                session.snippet or "",
            )
            for session in found
        ),
    )


@command(sessions)
@click.argument("session_id", shell_complete=complete_session_ids)
@json_option
def show(context: click.Context, session_id: str, as_json: bool) -> None:
    """Print a session's transcript as Markdown, the newest 512 KiB of it; with --json, all messages."""
    parsed = parse_session_id(session_id)
    if not as_json:
        print_markdown(use_service(context, lambda s: s.sessions.markdown(acting(), parsed)))
        return
    session, messages = use_service(context, lambda service: whole(service, parsed))
    print_json({**dict(session), "messages": messages})


@command(sessions)
@click.argument("session_ids", nargs=-1, metavar="[SESSION_ID]...", shell_complete=complete_session_ids)
@click.option("--all", "every", is_flag=True, help="All sessions.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="Markdown, JSON, or a page that needs nothing else.  [default: by the output's name, else md]",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="The file; for several sessions a directory.  [default: stdout]",
)
def export(
    context: click.Context, session_ids: tuple[str, ...], every: bool, form: str | None, output: Path | None
) -> None:
    """Write whole transcripts, for people to keep: as Markdown, JSON or HTML."""
    if every == bool(session_ids):
        raise click.UsageError("Give the ids of sessions, or --all.")
    parsed = [parse_session_id(session_id) for session_id in session_ids]

    async def use(service: Service) -> None:
        ids = await every_id(service) if every else parsed
        await export_transcripts(service, ids, form=form, output=output, every=every)

    use_service(context, use)


@command(sessions)
@click.argument("session_id", shell_complete=complete_session_ids)
@click.option("--title", help="A new title.")
@click.option("--ttl", help="How long it lives from now: 12h, 30d, 8w; 0 is for ever. Revives an expired one.")
@click.option("--token-budget", type=click.IntRange(min=0), help="Tokens that it may use in all; 0 is no limit.")
@json_option
def update(
    context: click.Context, session_id: str, title: str | None, ttl: str | None, token_budget: int | None, as_json: bool
) -> None:
    """Change a session's title, life or budget; a new life revives an expired one."""
    parsed = parse_session_id(session_id)
    seconds = None if ttl is None else 0 if ttl == "0" else int(_duration(ttl).total_seconds())
    changed = use_service(
        context,
        lambda service: service.sessions.update(
            acting(), parsed, title=title, ttl_seconds=seconds, token_budget=token_budget
        ),
    )
    if as_json:
        print_json(changed)
    else:
        until = f"until {changed.expires_at:%Y-%m-%d %H:%M} UTC" if changed.expires_at else "for ever"
        click.echo(f"{session_id} {changed.title!r} lives {until}")


@command(sessions)
@click.argument("session_ids", nargs=-1, required=True, metavar="SESSION_ID...", shell_complete=complete_session_ids)
@json_option
def delete(context: click.Context, session_ids: tuple[str, ...], as_json: bool) -> None:
    """Delete sessions and all that was said in them, for good."""
    parsed = [parse_session_id(session_id) for session_id in session_ids]
    use_service(context, lambda service: _delete(service, parsed, as_json=as_json))


@command(sessions)
@click.argument("session_id", shell_complete=complete_session_ids)
@json_option
def repair(context: click.Context, session_id: str, as_json: bool) -> None:
    """Set a session's damaged files aside, and restore what can be. Nothing is deleted."""
    parsed = parse_session_id(session_id)
    done = use_service(context, lambda service: service.turns.repair_session(acting(), parsed))
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
@json_option
def prune(context: click.Context, older_than: str, dry_run: bool, as_json: bool) -> None:
    """Delete the sessions that have been expired for some time."""
    age = _duration(older_than)

    async def use(service: Service) -> None:
        expired = await service.sessions.expired_before(acting(), now() - age)
        if not dry_run:
            await _delete(service, expired, as_json=as_json)
        elif as_json:
            print_json({"deleted": [], "would_delete": expired})
        else:
            for session_id in expired:
                click.echo(f"{session_id} would be deleted")
        click.echo(f"{len(expired)} expired for more than {older_than}", err=True)

    use_service(context, use)


def _find(
    context: click.Context,
    *,
    agent: str | None,
    actor: str | None,
    status: str,
    query: str | None,
    limit: int,
) -> list[ListedSession]:
    async def use(service: Service) -> list[ListedSession]:
        found: list[ListedSession] = []
        cursor: str | None = None
        while len(found) < limit:
            page = await service.sessions.list_sessions(
                acting(),
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

    return use_service(context, use)


async def _delete(service: Service, session_ids: list[SessionId], *, as_json: bool) -> None:
    deleted: list[SessionId] = []
    try:
        with progress("deleting", len(session_ids)) as step:
            for session_id in session_ids:
                await service.turns.delete_session(acting(), session_id)
                deleted.append(session_id)
                step()
    finally:  # What is gone is said, also when one could not be deleted.
        if as_json:
            print_json({"deleted": deleted})
        else:
            for session_id in deleted:
                click.echo(f"{session_id} deleted")


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if match is None:
        raise InvalidArgument(f"{text!r} is no length of time: write a number and one of s, m, h, d, w, such as 30d.")
    length = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if length.total_seconds() > LONGEST_LIFE:
        raise InvalidArgument(f"{text!r} is longer than a session can live: give {LONGEST_LIFE // 86400}d at most.")
    return length
