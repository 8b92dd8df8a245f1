"""`agent-mcp install`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent_mcp.cli.common import (
    SETTINGS_TOO,
    foreseen,
    given_settings,
    json_option,
    print_json,
    settings_of,
    use_service,
    with_settings,
)
from agent_mcp.config import PREFIX
from agent_mcp.errors import NoModel
from agent_mcp.hosts import HOSTS, Host, Machine
from agent_mcp.models.names import parse_model
from agent_mcp.models.providers import PROVIDERS
from agent_mcp.service import Service

if TYPE_CHECKING:
    from agent_mcp.install import Change, Entry

_CREDENTIALS = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY", "gemini": "GEMINI_API_KEY"}
_NO_SECRETS = {"bedrock": ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION")}
"""Variables of a provider that are no secret, so that they come along unasked."""


@click.command(epilog=SETTINGS_TOO)
@click.argument("host", type=click.Choice(list(HOSTS)))
@click.option("--name", default="agents", show_default=True, help="What the server is called in the host.")
@click.option(
    "--with-env",
    multiple=True,
    metavar="NAME",
    help="Also write this variable with its value here, such as a provider's key. May be given again.",
)
@json_option
@click.option("--print", "only_print", is_flag=True, help="Show what would be written, and write nothing.")
@with_settings
@click.pass_context
@foreseen
def install(
    context: click.Context, host: str, name: str, with_env: tuple[str, ...], as_json: bool, only_print: bool
) -> None:
    """Add this server to an MCP host, start it once and shake hands.

    What else stands in the host's file is kept, and the file as it was stays beside it as a backup. The settings that
    are set here, as flags or in the environment, go along; sessions live 30 days unless --session-ttl says otherwise.
    """
    from agent_mcp.install import add, shake_hands, undo  # MCP's packages take most of a second to import

    chosen = HOSTS[host]
    entry = _entry(context, host, with_env, only_print=only_print)
    path = chosen.file(Machine(platform=sys.platform, home=Path.home(), environ=os.environ))
    if only_print:
        click.echo(f"{chosen.title} reads {path}:", err=True)  # stdout is JSON anyway
        click.echo(json.dumps({chosen.key: {name: entry.in_form_of(chosen)}}, indent=2, ensure_ascii=False))
        return
    change = add(path, chosen, name, entry)
    if not as_json:
        click.echo(_told(change))
    try:
        answer = asyncio.run(shake_hands(entry))
    except BaseException:
        if change.changed:
            undo(change)
        raise
    backup = str(change.backup) if change.backup is not None else None
    if as_json:
        print_json({"file": str(change.path), "changed": change.changed, "backup": backup, "handshake": answer})
        return
    click.echo(f"{answer}.")
    life = int(entry.env[f"{PREFIX}SESSION_TTL"])
    click.echo(
        f"Model: {entry.env[f'{PREFIX}MODEL']}. Sessions: in {entry.env[f'{PREFIX}DATA_DIR']}, they live "
        f"{f'{life} s after their last turn' if life else 'for ever'}."
    )
    _advise(chosen, entry)


def _told(change: Change) -> str:
    if not change.changed:
        return f"{change.path} has it already, and is as it was."
    if change.backup is not None:
        return f"Added to {change.path}; what it was before is in {change.backup.name} beside it."
    return f"Made {change.path}."


def _entry(context: click.Context, host: str, with_env: tuple[str, ...], *, only_print: bool) -> Entry:
    from agent_mcp.install import build_entry

    settings = settings_of(context)
    try:
        # Named outright: what `auto` finds here may not be there where the host starts the server.
        model = use_service(context, _chosen) if settings.model == "auto" else settings.model
    except NoModel as error:
        if not only_print:
            raise NoModel(f"{error.message} To try it in the host: agent-mcp install {host} --model offline") from None
        model = settings.model
    if not only_print and settings.model != "auto":
        _check_package(model)
    carried = tuple(n for n in _NO_SECRETS.get(model.partition(":")[0], ()) if os.environ.get(n) and n not in with_env)
    return build_entry(
        settings, model=model, given=given_settings(context), environ=os.environ, with_env=(*with_env, *carried)
    )


async def _chosen(service: Service) -> str:
    return str(service.models.choose(None).ref)


def _check_package(model: str) -> None:
    """Raises NoModel if the package for the model is missing, with which every ask in the host would fail.

    A key is not looked for: the host may have it.
    """
    provider = PROVIDERS[parse_model(model).provider]
    if not provider.is_installed:
        raise NoModel(f"The model {model} can't be asked: {provider.lacks({})}. Nothing was changed.")


def _advise(host: Host, entry: Entry) -> None:
    key = _CREDENTIALS.get(entry.env["AGENT_MCP_MODEL"].partition(":")[0])
    if key and key not in entry.env:
        click.echo(
            f"The model needs {key} in the environment that {host.title} gives its servers: set it there, or run this "
            f"again with --with-env {key} to write it into the file."
        )
    click.echo(host.then)
