"""`agent-mcp token`: who may call over HTTP."""

from __future__ import annotations

import click

from agent_mcp.cli.common import command, json_option, print_json, settings_of
from agent_mcp.cli.terminal import print_table
from agent_mcp.config import Settings
from agent_mcp.errors import InvalidArgument
from agent_mcp.token_file import SCOPES, TokenFile


@click.group()
def token() -> None:
    """Add, list and revoke the tokens of AGENT_MCP_TOKENS. A running server sees each change at its next request."""


@command(token)
@click.argument("owner", metavar="SUBJECT")
@click.option("--name", help="What to call the token.  [default: the subject]")
@click.option("--act-as", multiple=True, metavar="PATTERN", help="Actors it may act for: an id, or a beginning and *")
@click.option("--scope", multiple=True, type=click.Choice(SCOPES), help="What else it may see.")
@json_option
def add(
    context: click.Context,
    owner: str,
    name: str | None,
    act_as: tuple[str, ...],
    scope: tuple[str, ...],
    as_json: bool,
) -> None:
    """Add a token for SUBJECT and print it, this once: only its hash is kept."""
    secret = _file(context).add(name=name or owner, subject=owner, act_as=act_as, scopes=scope)
    if as_json:
        print_json({"name": name or owner, "subject": owner, "token": secret})
    else:
        click.echo(secret)
    click.echo(f"This is the token {name or owner!r}. It is not shown again.", err=True)


@command(token, "list")
@json_option
def list_tokens(context: click.Context, as_json: bool) -> None:
    """List the tokens, by name."""
    tokens = _file(context).read()
    if as_json:
        print_json(tokens)
    else:
        print_table(
            ("name", "subject", "acts for", "scopes"),
            ((t.name, t.subject, " ".join(t.act_as), " ".join(t.scopes)) for t in tokens),
        )


@command(token)
@click.argument("name")
@json_option
def revoke(context: click.Context, name: str, as_json: bool) -> None:
    """Revoke a token: the next request that brings it is refused."""
    _file(context).revoke(name)
    if as_json:
        print_json({"name": name, "revoked": True})
    else:
        click.echo(f"{name} revoked")


def risks(settings: Settings) -> list[str]:
    """What is risky about how callers are let in over HTTP, for the operator. Blocking."""
    found = TokenFile(settings.tokens).warnings() if settings.tokens is not None else []
    if settings.trust_platform and not settings.allowed_hosts and settings.public_url is None:
        found.append(
            "AGENT_MCP_TRUST_PLATFORM=yes: whoever reaches the server is let in, as one subject. Let only what "
            "authenticates reach it, and name its hosts in AGENT_MCP_ALLOWED_HOSTS"
        )
    return found


def _file(context: click.Context) -> TokenFile:
    path = settings_of(context).tokens
    if path is None:
        raise InvalidArgument("AGENT_MCP_TOKENS is not set: give the token file with it, or with --tokens PATH.")
    return TokenFile(path)
