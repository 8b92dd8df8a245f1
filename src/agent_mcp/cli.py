"""The command `agent-mcp`."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import click

from agent_mcp import demo as demo_session
from agent_mcp import doctor as examination
from agent_mcp.compose import build_service, warm_up
from agent_mcp.config import PREFIX, Settings
from agent_mcp.domain import LOCAL_SUBJECT, Caller, parse_actor_id, parse_agent_id, parse_session_id
from agent_mcp.errors import AgentMcpError
from agent_mcp.events import Retrying, TextWritten, ToolStarted
from agent_mcp.service import Prompt, Service

P = ParamSpec("P")
T = TypeVar("T")


def _flags(context: click.Context) -> dict[str, str]:
    """The flags that were given, under the names of their variables."""
    if context.obj is None:
        context.obj = {}
    return cast("dict[str, str]", context.obj)


def _with_settings(command: Callable[P, T]) -> Callable[P, T]:
    """Adds a flag for every setting. A flag wins over the environment, also one that stands before the command."""

    def remember(context: click.Context, option: click.Parameter, value: str | None) -> None:
        if value is not None:
            _flags(context)[f"{PREFIX}{str(option.name).upper()}"] = value

    for name, field in reversed(Settings.model_fields.items()):
        command = click.option(
            f"--{name.replace('_', '-')}",
            name,
            help=f"{field.description} [{PREFIX}{name.upper()}]",
            callback=remember,
            expose_value=False,
            metavar="VALUE",
        )(command)
    return command


def _foreseen(command: Callable[P, T]) -> Callable[P, T]:
    """Shows an error that was foreseen as one line, and exits with 1."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except AgentMcpError as error:
            raise click.ClickException(f"{error.message} [{error.code}]") from None

    return run


def _settings(context: click.Context) -> Settings:
    return Settings.from_env({**os.environ, **_flags(context)})


def _run(settings: Settings, use: Callable[[Service], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        service = build_service(settings, os.environ)
        try:
            return await use(service)
        finally:
            await service.close(grace=0)

    return asyncio.run(run())


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="agent-mcp")
@_with_settings
@click.pass_context
def cli(context: click.Context) -> None:
    """A team of agents that remember, for MCP hosts. Without a command: serve MCP on stdin and stdout."""
    if context.invoked_subcommand is None:
        context.invoke(serve)


@cli.command()
@_with_settings
@click.pass_context
@_foreseen
def serve(context: click.Context) -> None:
    """Serve MCP on stdin and stdout."""
    from agent_mcp.server.app import build_server
    from agent_mcp.server.stdio import serve_stdio

    settings = _settings(context)
    _log_to_stderr()

    async def run() -> None:
        service = build_service(settings, os.environ)
        await serve_stdio(build_server(service, warm_up=warm_up), service)

    asyncio.run(run())


@cli.command()
@click.argument("prompt", required=False)
@click.option("--agent", help="The agent to ask, for a new session.  [default: assistant]", metavar="ID")
@click.option("--session", help="The session to go on with.", metavar="ID")
@click.option("--actor", help="On whose behalf.  [default: local]", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print the whole reply as JSON.")
@_with_settings
@click.pass_context
@_foreseen
def ask(
    context: click.Context,
    prompt: str | None,
    agent: str | None,
    session: str | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Ask an agent one thing and print the answer as it is written.

    The session's id is printed on stderr; with --session ID the agent remembers. Without PROMPT, or with "-", the
    prompt is read from stdin.
    """
    text = sys.stdin.read() if prompt is None or prompt == "-" else prompt
    asked = Prompt(
        text=text,
        agent_id=parse_agent_id(agent) if agent else None,
        session_id=parse_session_id(session) if session else None,
        actor_id=parse_actor_id(actor) if actor else None,
    )
    _run(_settings(context), lambda service: _ask(service, asked, as_json=as_json))


async def _ask(service: Service, prompt: Prompt, *, as_json: bool) -> None:
    following = await service.ask(Caller(subject=LOCAL_SUBJECT), prompt)
    written = ""
    async for event in following.events(wait=service.settings.turn_timeout + 60, pace=0.02):
        match event:
            case TextWritten(text) if not as_json:
                written += text
                click.echo(text, nl=False)
            case ToolStarted(name):
                click.echo(f"[uses {name}]", err=True)
            case Retrying(seconds):
                click.echo(f"[the model is busy; again in {seconds:g} s]", err=True)
            case _:
                pass
    reply = following.reply()
    if as_json:
        click.echo(reply.model_dump_json(indent=2))
    elif not written.endswith(reply.response):
        click.echo(("\n" if written else "") + reply.response)
    else:
        click.echo()
    click.echo(f"session: {reply.session_id}", err=True)


@cli.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Where the session is kept.  [default: a temporary directory]",
)
@_foreseen
def demo(data_dir: Path | None) -> None:
    """Tell an agent a name, restart the server, and ask for the name: on the offline model, over MCP."""
    if not asyncio.run(demo_session.run(data_dir, say=click.echo)):
        sys.exit(1)


@cli.command()
@_with_settings
@click.pass_context
@_foreseen
def doctor(context: click.Context) -> None:
    """Say what would be used and why, and what is wrong. Exits with 1 if something is broken."""
    settings = _settings(context)
    findings = _run(settings, lambda service: examination.examine(service, Caller(subject=LOCAL_SUBJECT)))
    for finding in findings:
        click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what}: {finding.text}")
    if not all(finding.ok for finding in findings):
        sys.exit(1)


def _log_to_stderr() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("agent_mcp").setLevel(logging.INFO)


def main() -> None:
    """The console script."""
    code: object = 0
    try:
        cli.main(prog_name="agent-mcp")
    except SystemExit as end:
        code = end.code
    with suppress(OSError):  # nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    # Python would wait for a thread that waits for a silent model, which nothing can wake.
    os._exit(code if isinstance(code, int) else int(code is not None))
