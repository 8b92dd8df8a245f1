"""The command `agent-mcp`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

import click

from agent_mcp import doctor as examination
from agent_mcp.cli.agents import agents
from agent_mcp.cli.common import (
    SETTINGS_TOO,
    acting,
    foreseen,
    json_option,
    print_json,
    settings_of,
    use_service,
    with_settings,
    with_settings_shown,
)
from agent_mcp.cli.completion import agent_ids, completion, session_ids
from agent_mcp.cli.http import HTTP_ADDRESS, serve_over_http
from agent_mcp.cli.install import install
from agent_mcp.cli.memory import memory
from agent_mcp.cli.sessions import sessions
from agent_mcp.cli.terminal import print_findings, say
from agent_mcp.cli.token import risks, token
from agent_mcp.cli.turns import turns
from agent_mcp.compose import build_service, warm_up
from agent_mcp.domain import Reply, parse_actor_id, parse_agent_id, parse_session_id
from agent_mcp.errors import InvalidArgument
from agent_mcp.events import Retrying, TextWritten, ToolStarted
from agent_mcp.following import Followed
from agent_mcp.service import Service
from agent_mcp.service.admission import Prompt
from agent_mcp.traces import start_traces

_LEARNING_SECONDS = 30.0
"""How long a command waits, once it has printed the reply, for what the turn taught. Left out, it is done later."""


class _Program(click.Group):
    """A group whose help begins with its commands, because the settings are many."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)


@click.group(cls=_Program, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="agent-mcp")
@with_settings_shown
@click.pass_context
def cli(context: click.Context) -> None:
    """A team of agents that remember, for MCP hosts. Without a command: serve MCP on stdin and stdout."""
    if context.invoked_subcommand is None:
        context.invoke(serve)


@cli.command()
@click.option(
    "--http",
    "address",
    is_flag=False,
    flag_value=HTTP_ADDRESS,
    metavar="[HOST:PORT]",
    help=f"Serve MCP at /mcp and REST at /api/v1 over HTTP; by default at {HTTP_ADDRESS}, port 0 takes a free one.",
)
@click.option("--stateless", is_flag=True, help="With --http: keep no MCP connections, as some platforms want it.")
@with_settings_shown
@click.pass_context
@foreseen
def serve(context: click.Context, address: str | None, stateless: bool) -> None:
    """Serve MCP on stdin and stdout, or with --http over HTTP together with REST."""
    settings = settings_of(context)
    _log_to_stderr()
    if address is not None:
        serve_over_http(settings, address, stateless=stateless)
    if stateless:
        raise InvalidArgument("--stateless is for --http: leave it out.")
    if sys.stdin.isatty():
        click.echo(
            "MCP is served on stdin and stdout, for a host that starts this program. For people there are agent-mcp "
            "ask and agent-mcp --help. Ctrl-C ends this.",
            err=True,
        )
    from agent_mcp.server.app import build_server
    from agent_mcp.server.stdio import serve_stdio

    async def run() -> None:
        service = build_service(settings, os.environ, at_end=start_traces(os.environ))
        await serve_stdio(build_server(service, warm_up=warm_up), service)

    asyncio.run(run())
    # Everything is closed. A tool that outlived its turn may hold a thread, and Python would wait for its end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@cli.command(epilog=SETTINGS_TOO)
@click.argument("prompt", required=False)
@click.option(
    "--agent", help="The agent to ask, for a new session.  [default: assistant]", metavar="ID", shell_complete=agent_ids
)
@click.option("--session", help="The session to go on with.", metavar="ID", shell_complete=session_ids)
@click.option("--actor", help="On whose behalf.  [default: local]", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print the whole reply as JSON.")
@with_settings
@click.pass_context
@foreseen
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
    if prompt is None and sys.stdin.isatty() and sys.stderr.isatty():
        click.echo("Write the prompt, and end it with Ctrl-D on a new line:", err=True)
    text = sys.stdin.read() if prompt is None or prompt == "-" else prompt
    asked = Prompt(
        text=text,
        agent_id=parse_agent_id(agent) if agent else None,
        session_id=parse_session_id(session) if session else None,
        actor_id=parse_actor_id(actor) if actor else None,
    )
    use_service(context, lambda service: _ask(service, asked, as_json=as_json))


async def _ask(service: Service, prompt: Prompt, *, as_json: bool) -> None:
    following = (await service.turns.ask(acting(), prompt)).followed
    reply = await _stream(service, following, as_json=as_json)
    # In a terminal there is a person to decide.
    while (record := following.record()).question and not as_json and sys.stdin.isatty():
        say(f"{record.wanted if record.question.kind == 'question' else record.question.text}", err=True)
        if record.question.kind == "question":
            answer = await asyncio.to_thread(click.prompt, "Your answer", err=True)
            following = await service.turns.answer(acting(), str(answer), turn_id=record.turn_id)
        else:
            approve = await asyncio.to_thread(click.confirm, "Allow this use of the tool", err=True)
            following = await service.turns.decide(acting(), record.turn_id, approve=approve, question=record.question)
        reply = await _stream(service, following, as_json=as_json)
    if reply.question and not as_json:
        say(reply.question, err=True)
    click.echo(f"session: {reply.session_id}", err=True)
    await service.memories.settled(_LEARNING_SECONDS)


async def _stream(service: Service, following: Followed, *, as_json: bool) -> Reply:
    """Prints what happens in a turn until it ends or waits for somebody."""
    written = ""
    async for event in following.events(wait=service.settings.turn_timeout + 60, pace=0.02):
        match event:
            case TextWritten(text) if not as_json:
                written += text
                say(text, nl=False)
            case ToolStarted(name):
                say(f"[uses {name}]", err=True)
            case Retrying(seconds):
                click.echo(f"[the model does not answer or is busy; again in {seconds:g} s]", err=True)
            case _:
                pass
    reply = following.reply()
    if as_json:
        say(reply.model_dump_json(indent=2))
    elif not written.endswith(reply.response):
        say(("\n" if written else "") + reply.response)
    elif written:
        click.echo()
    return reply


@cli.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Where the session is kept.  [default: a temporary directory]",
)
@json_option
@foreseen
def demo(data_dir: Path | None, as_json: bool) -> None:
    """Tell an agent a name, restart the server, and ask for the name: on the offline model, over MCP."""
    from agent_mcp import demo as demo_session  # MCP's packages take most of a second to import

    outcome = asyncio.run(demo_session.run(data_dir, say=_silent if as_json else click.echo))
    if as_json:
        print_json(outcome)
    if not (outcome.remembered and outcome.apart):
        sys.exit(1)


def _silent(_: str) -> None: ...


@cli.command(epilog=SETTINGS_TOO)
@json_option
@with_settings
@click.pass_context
@foreseen
def doctor(context: click.Context, as_json: bool) -> None:
    """Say what would be used and why, and what is wrong. Exits with 1 if something is broken."""
    findings = use_service(context, lambda service: examination.examine(service, acting()))
    findings += [examination.Finding(False, "who is let in", risk) for risk in risks(settings_of(context))]
    if as_json:
        print_json({"findings": [{"what": f.what, "ok": f.ok, "used": f.used, "text": f.text} for f in findings]})
    else:
        print_findings((finding.mark, finding.what, finding.text) for finding in findings)
    if not all(finding.ok for finding in findings):
        sys.exit(1)


cli.add_command(agents)
cli.add_command(completion)
cli.add_command(memory)
cli.add_command(install)
cli.add_command(sessions)
cli.add_command(token)
cli.add_command(turns)


def _log_to_stderr() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("agent_mcp").setLevel(logging.INFO)


def main() -> None:
    """The console script."""
    code: object = 0
    try:
        code = cli.main(prog_name="agent-mcp", standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:  # Ctrl-C, or the end of stdin where a person was asked
        click.echo("Stopped.", err=True)
        code = 130
    with suppress(OSError):  # nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    # Python would wait for a thread that waits for a silent model, which nothing can wake.
    os._exit(code if isinstance(code, int) else int(code is not None))
