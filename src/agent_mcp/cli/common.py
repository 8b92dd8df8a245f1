"""What all commands share: flags for settings, errors as one line, the service, and how results are printed."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar, cast

import click
from pydantic import BaseModel, TypeAdapter

from agent_mcp.cli.terminal import safe, say
from agent_mcp.compose import build_service
from agent_mcp.config import PREFIX, Settings
from agent_mcp.domain import LOCAL_SUBJECT, Caller
from agent_mcp.errors import AgentMcpError, StorageFailed
from agent_mcp.next_calls import in_shell
from agent_mcp.service import Service

P = ParamSpec("P")
T = TypeVar("T")

SETTINGS_TOO = "The settings that agent-mcp --help shows can be given here too."
_SUBJECT = "subject"


def with_settings(command: Callable[P, T], *, shown: bool = False) -> Callable[P, T]:
    """Adds a flag for every setting. A flag wins over the environment, also one that stands before the command.

    They are `shown` in the help of what serves; all other commands would have more of them than of their own. A flag
    that the command has itself, such as the model of an agent, means that.
    """
    options = cast("list[click.Parameter]", getattr(command, "__click_params__", []))
    own = {flag for option in options for flag in option.opts}

    def remember(context: click.Context, option: click.Parameter, value: str | None) -> None:
        if value is not None:
            _flags(context)[f"{PREFIX}{str(option.name).removeprefix('setting_').upper()}"] = value

    for name, field in reversed(Settings.model_fields.items()):
        if f"--{name.replace('_', '-')}" in own:
            continue
        command = click.option(
            f"--{name.replace('_', '-')}",
            f"setting_{name}",
            help=f"{field.description} [{PREFIX}{name.upper()}]",
            callback=remember,
            expose_value=False,
            metavar="VALUE",
            hidden=not shown,
        )(command)
    return command


def with_settings_shown(command: Callable[P, T]) -> Callable[P, T]:
    """The same, in sight."""
    return with_settings(command, shown=True)


def foreseen(command: Callable[P, T]) -> Callable[P, T]:
    """Shows an error that was foreseen as one line, and exits with 1."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except AgentMcpError as error:
            where = f" It is {error.where}." if isinstance(error, StorageFailed) and error.where else ""
            raise click.ClickException(safe(f"{in_shell(error.message)}{where} [{error.code}]", err=True)) from None

    return run


def command(group: click.Group, name: str | None = None) -> Callable[[Callable[..., None]], click.Command]:
    """A command of `group` with the flags for settings; its errors are one line each."""

    def make(function: Callable[..., None]) -> click.Command:
        return group.command(name, epilog=SETTINGS_TOO)(
            _with_subject(with_settings(click.pass_context(foreseen(function))))
        )

    return make


def _with_subject(command: Callable[P, T]) -> Callable[P, T]:
    def remember(context: click.Context, option: click.Parameter, value: str | None) -> None:
        if value is not None:
            _flags(context)[_SUBJECT] = value

    return click.option(
        "--subject",
        help="Whose data, on a server with authentication.  [default: those without any]",
        callback=remember,
        expose_value=False,
        metavar="SUBJECT",
    )(command)


def acting() -> Caller:
    """Who acts in the shell: the operator, for all actors of the subject that was named, else of the local one."""
    context = click.get_current_context(silent=True)
    return Caller(subject=LOCAL_SUBJECT if context is None else _flags(context).get(_SUBJECT, LOCAL_SUBJECT))


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def settings_of(context: click.Context) -> Settings:
    """The settings from the environment and from the flags."""
    return Settings.from_env({**os.environ, **_flags(context)})


def given_settings(context: click.Context) -> dict[str, str]:
    """The settings that were set, by the names of their variables: flags, and what the environment has beside them."""
    names = [PREFIX + field.upper() for field in Settings.model_fields]
    given = {**os.environ, **_flags(context)}
    return {name: given[name] for name in names if given.get(name)}


def use_service(context: click.Context, use: Callable[[Service], Coroutine[Any, Any, T]]) -> T:
    """Runs `use` with a service over the settings' data directory, and closes that."""

    async def run() -> T:
        service = build_service(settings_of(context), os.environ)
        try:
            await service.check_subject(acting())
            return await use(service)
        finally:
            await service.close(grace=0)

    return asyncio.run(run())


def print_json(value: BaseModel | Sequence[BaseModel] | dict[str, object]) -> None:
    """Prints one result, a list of them or several by name, as JSON."""
    say(TypeAdapter(Any).dump_json(value, indent=2, exclude_none=True).decode())


def _flags(context: click.Context) -> dict[str, str]:
    """The flags that were given, under the names of their variables."""
    if context.obj is None:
        context.obj = {}
    return cast("dict[str, str]", context.obj)
