"""What tests share: a data directory, and real MCP clients of real servers on stdio."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pytest
import pytest_asyncio
from mcp import StdioServerParameters
from mcp.client import Client
from mcp_types import CallToolResult, TextContent

from agent_mcp.errors import BY_CODE
from agent_mcp.server.tools import tool_table
from contract_record import RECORD, RecordingClient, uncovered, undeclared

if TYPE_CHECKING:
    from proof.kills import Kills

_BEHIND_MARKERS = ("fuzz", "node", "shell")
_is_whole = pytest.StashKey[bool]()
_lacks = pytest.StashKey[list[str]]()

T = TypeVar("T")
BEFORE_ANY_TOOL = {"unauthorized", "rate_limited"}
"""Codes of what HTTP refuses before it comes to a tool: test_who_calls.py shows them."""

ERAS = ["legacy", "2026-07-28"]
"""The two generations of the protocol, as `Client(mode=...)` names them."""

PROOF = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.platform != "linux", reason="the proof forks its servers and looks into /proc"),
    pytest.mark.timeout(600),
]
"""The marks of a module that breaks things for real, with the servers of `proof`."""


class Door(NamedTuple):
    """A running server: a client of it, and its data directory."""

    client: Client
    data: Path


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    """Notes whether only a part of the tests was chosen: only a whole run can be judged.

    Tests behind a marker that is not chosen don't make a part: what they show must be shown without them too.
    """
    before = list(items)
    yield
    chosen = set(items)
    lacking = [
        item for item in before if item not in chosen and not any(item.get_closest_marker(m) for m in _BEHIND_MARKERS)
    ]
    config.stash[_is_whole] = not lacking and not _is_part(config)


def _is_part(config: pytest.Config) -> bool:
    """Whether files or directories were chosen on the command line."""
    tests = Path(__file__).parent
    given = [(config.invocation_params.dir / argument.split("::")[0]).resolve() for argument in config.args]
    options = config.option
    return (
        not any(path == tests or path in tests.parents for path in given)
        or any("::" in argument for argument in config.args)
        or bool(options.ignore or options.ignore_glob or options.deselect)
        or bool(getattr(options, "lf", False))
    )


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes up what a worker of pytest-xdist has recorded, in the process that started it."""
    output: dict[str, Any] = getattr(node, "workeroutput", None) or {}
    RECORD.merge(output.get("contract", ""))
    config: pytest.Config = node.config
    config.stash[_is_whole] = config.stash.get(_is_whole, True) and bool(output.get("whole"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Holds what a whole run has shown against the contract: a run that did not show all of it has failed."""
    config = session.config
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    if output is not None:
        output |= {"contract": RECORD.dump(), "whole": config.stash.get(_is_whole, False)}
    elif config.stash.get(_is_whole, False) and session.testscollected and not config.option.collectonly:
        tools = tool_table().list_tools()
        config.stash[_lacks] = [*uncovered(tools, set(BY_CODE) - BEFORE_ANY_TOOL), *undeclared(tools)]
        if config.stash[_lacks]:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says what of the contract no test has shown, or that this was not judged."""
    if not config.stash.get(_is_whole, False):
        terminalreporter.write_line("A part of the tests: whether they show all of the contract was not judged.")
    for line in config.stash.get(_lacks, list[str]()):
        terminalreporter.write_line(f"FAILED contract: {line}; write a front-door test for it", red=True)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def server_environment(data_dir: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a server under test: nothing of the machine's AWS or agent-mcp settings gets in."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "AGENT_MCP_"))}
    return kept | {"AGENT_MCP_DATA_DIR": str(data_dir), "AGENT_MCP_MODEL": "offline"} | dict(env or {})


@asynccontextmanager
async def connect(
    data_dir: Path, *, env: Mapping[str, str] | None = None, mode: str = "auto", **client: Any
) -> AsyncGenerator[Client]:
    """Starts `agent-mcp serve` on `data_dir` and connects a real client to it."""
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "agent_mcp", "serve"], env=server_environment(data_dir, env)
    )
    async with RecordingClient(server, mode=mode, read_timeout_seconds=120, **client) as connected:
        yield connected


@asynccontextmanager
async def held(context: AbstractAsyncContextManager[T]) -> AsyncGenerator[T]:
    """Holds a context open in a task of its own, since a fixture is left in another task than it was entered in."""
    opened: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def hold() -> None:
        try:
            async with context as entered:
                opened.set_result(entered)
                await done.wait()
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)

    task = asyncio.create_task(hold())
    try:
        yield await opened
    finally:
        done.set()
        await task


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kills(tmp_path_factory: pytest.TempPathFactory) -> "AsyncGenerator[Kills]":
    """The phases of the proof on a data directory of the module's own. Its tests are marked with `PROOF`."""
    from proof.kills import killing  # imports what only Linux has

    async with held(killing(tmp_path_factory.mktemp("proof"))) as phases:
        yield phases


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ERAS)
async def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Door]:
    """One server for all tests of a module, for each era: for what does not need a data directory of its own.

    A module that uses it says `pytestmark = pytest.mark.asyncio(loop_scope="module")`.
    """
    data = tmp_path_factory.mktemp("door") / "data"
    async with held(connect(data, mode=str(request.param))) as client:
        yield Door(client, data)


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Calls a tool that must succeed, and returns its structured result."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text_of(result)
    assert result.structured_content is not None
    return result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """Calls a tool that must fail, and returns the error's text."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.structured_content
    return text_of(result)


def assert_teaches(text: str, code: str) -> None:
    """An error is one line that begins with a sentence and ends with its code."""
    assert text.endswith(f" [{code}]"), text
    assert "\n" not in text
    assert len(text) < 600, text
    assert "Traceback" not in text


def made(data: Path) -> set[str]:
    """The files of a data directory that hold something: all but the index and locks."""
    files = (path.relative_to(data) for path in data.rglob("*"))
    return {str(path) for path in files if path.parts[0] != "locks" and not path.name.startswith("catalog.db")}


def text_of(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))
