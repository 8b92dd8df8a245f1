"""`agent-mcp sessions export`: whole transcripts as Markdown, JSON or one HTML page."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter

from agent_mcp.cli.common import acting
from agent_mcp.cli.terminal import progress, say
from agent_mcp.domain import Message, SessionId, SessionInfo
from agent_mcp.errors import InvalidArgument, SessionDamaged, StorageFailed
from agent_mcp.service import Service
from agent_mcp.service.stores import MAX_PAGE
from agent_mcp.transcripts import document

FORMATS = ("md", "json", "html")


async def whole(service: Service, session_id: SessionId) -> tuple[SessionInfo, list[Message]]:
    """A session and everything said in it."""
    session = await service.sessions.get(acting(), session_id)
    messages: list[Message] = []
    before: int | None = None
    while True:
        page = await service.sessions.read(acting(), session_id, limit=MAX_PAGE, before=before)
        messages[:0] = page.messages
        before = page.before
        if before is None:
            return session, messages


async def every_id(service: Service) -> list[SessionId]:
    """The ids of all sessions, most recently active first."""
    found: list[SessionId] = []
    cursor: str | None = None
    while True:
        page = await service.sessions.list_sessions(acting(), limit=MAX_PAGE, cursor=cursor)
        found += [session.session_id for session in page.sessions]
        cursor = page.next_cursor
        if cursor is None:
            return list(dict.fromkeys(found))


def rendered(session: SessionInfo, messages: list[Message], form: str) -> str:
    """A transcript in one of the FORMATS."""
    if form == "md":
        return document(session, messages)
    if form == "json":
        value = {**dict(session), "messages": messages}
        return TypeAdapter(Any).dump_json(value, indent=2, exclude_none=True).decode() + "\n"
    from agent_mcp.transcript_page import html_page

    return html_page(session, messages)


def form_of(form: str | None, output: Path | None) -> str:
    """The format that was asked for, or the one that the file's name says, else Markdown."""
    if form is not None:
        return form
    ending = output.suffix.lower().lstrip(".") if output is not None else ""
    return {"htm": "html"}.get(ending, ending if ending in FORMATS else "md")


async def export(service: Service, ids: list[SessionId], *, form: str | None, output: Path | None, every: bool) -> None:
    """Writes one transcript to `output` (else to stdout), or several as files in the directory `output`."""
    chosen = form_of(form, output if not every and len(ids) == 1 else None)
    if len(ids) == 1 and not every:
        text = rendered(*await whole(service, ids[0]), chosen)
        if output is None or str(output) == "-":
            say(text, nl=False)
        else:
            click.echo(str(_write(output, text, name=f"{ids[0]}.{chosen}")), err=True)
        return
    if output is None:
        raise InvalidArgument("Several transcripts need a directory: give one with --output.")
    _make(output)
    left_out = 0
    with progress("exporting", len(ids)) as step:
        for session_id in ids:
            try:
                _write(output, rendered(*await whole(service, session_id), chosen), name=f"{session_id}.{chosen}")
            except SessionDamaged as error:
                left_out += 1
                say(f"left out: {error.message}", err=True)
            step()
    click.echo(f"{len(ids) - left_out} transcripts in {output}", err=True)
    if left_out:
        raise click.exceptions.Exit(1)


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(f"{directory} can't be made: {error.strerror}. Nothing was written.") from None


def _write(path: Path, text: str, *, name: str) -> Path:
    """Replaces a file (`name`, where the path is a directory) whole or not at all, for its owner's eyes."""
    path = path / name if path.is_dir() else path
    try:
        descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=".export-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace", newline="\n") as file:
                file.write(text)
            os.replace(new, path)
        finally:
            Path(new).unlink(missing_ok=True)
    except OSError as error:
        raise StorageFailed(f"{path} can't be written: {error.strerror}. What was there is as it was.") from None
    return path
