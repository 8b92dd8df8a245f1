"""What people see in a terminal: the commands run in a real one, of a given width."""

import asyncio
import errno
import fcntl
import os
import re
import struct
import sys
import termios
from pathlib import Path

import pytest

from conftest import call, connect, server_environment
from life import order, shell

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

WIDTHS = (40, 80, 120)
HOSTILE = "\x1b]52;c;aGlkZGVu\x07 \x9b2J \u202e hidden"
ACTED_ON = re.compile("[\x1b\x07\x9b\u202e]")


def _read_all(terminal: int) -> str:
    read = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError as error:
            if error.errno == errno.EIO:  # so Linux says that nobody writes any more
                break
            raise
        if not part:
            break
        read += part
    return read.decode()


async def screen(data: Path, *words: str, width: int, errors: bool = False) -> list[str]:
    """The lines that a command shows in a terminal, without their colours; `errors` also those on stderr."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    # rich would rather believe these than the terminal
    environment = {k: v for k, v in server_environment(data).items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent_mcp", *words),
        env=environment | {"TERM": "xterm-256color"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=its,
        stderr=its if errors else asyncio.subprocess.PIPE,
    )
    os.close(its)
    async with asyncio.timeout(120):
        shown, (_, err) = await asyncio.gather(asyncio.to_thread(_read_all, ours), process.communicate())
    os.close(ours)
    assert not err
    return re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "\n").splitlines()


@pytest.mark.parametrize("width", WIDTHS)
async def test_tables_fit_the_terminal_and_cut_no_id(tmp_path: Path, width: int) -> None:
    data, title = tmp_path / "data", "A title that is too long for any of these terminals " * 3
    async with connect(data) as client:
        session = (await call(client, "start_session", title=title.strip()))["session_id"]
        turn = (await call(client, "ask_agent", prompt="The marmalade came", session_id=session))["turn_id"]
    tables = {
        session: await screen(data, "sessions", "list", width=width),
        f"{session} ": await screen(data, "sessions", "search", "marmalade", width=width),
        turn: await screen(data, "turns", "list", width=width),
    }
    for shown, lines in tables.items():
        assert any(shown in line for line in lines), lines
        assert all(len(line.rstrip()) <= width for line in lines), lines
    assert ("last active" in "\n".join(tables[session])) == (width == 120), (
        "what does not fit is left out from the right"
    )


async def test_what_doctor_says_is_wrapped_between_words(tmp_path: Path) -> None:
    lines = await screen(tmp_path / "data", "doctor", width=60)
    assert all(len(line) <= 60 for line in lines)
    first = next(n for n, line in enumerate(lines) if line.startswith("ok  tools"))
    indent = lines[first].index("agents may")
    assert lines[first + 1][:indent].strip() == "", "it goes on below where it began"
    for name in ("handoff_to_user", "search_session", "web_search"):
        assert name in "\n".join(lines)


async def test_html_that_was_said_is_shown_as_it_was_said(tmp_path: Path) -> None:
    said = "<div class=box>\nhello\n</div>\n\nWhy is <b>this</b> not centred?"
    async with connect(tmp_path) as client:
        session = (await call(client, "ask_agent", prompt=said))["session_id"]
    shown = [line.strip() for line in await screen(tmp_path, "sessions", "show", session, width=80)]
    assert any("<div class=box> hello </div>" in line for line in shown)
    assert any("Why is <b>this</b> not centred?" in line for line in shown)


@pytest.mark.parametrize("words", [("sessions", "export"), ("sessions", "show"), ("sessions", "show", "--json")])
async def test_what_was_said_does_nothing_to_the_terminal_that_shows_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    async with connect(tmp_path) as client:
        session = (await call(client, "ask_agent", prompt=f"My name is {HOSTILE}"))["session_id"]
    shown = await screen(tmp_path, *words, session, width=80)
    assert any("hidden" in line for line in shown)
    assert not ACTED_ON.search("".join(shown))


async def test_what_an_agent_asks_and_an_error_that_quotes_it_do_nothing_to_the_terminal(tmp_path: Path) -> None:
    async with connect(tmp_path) as client:
        await call(client, "create_agent", name="Asker", tools=["handoff_to_user"])
    asking = ("ask", "--agent", "asker", order("handoff_to_user", message=f"Is it {HOSTILE}?"))
    asked = await screen(tmp_path, *asking, width=80, errors=True)
    (session,) = [line.removeprefix("session: ") for line in asked if line.startswith("session: ")]
    refused = await screen(tmp_path, "ask", "--session", session, "Go on", width=80, errors=True)
    assert any("turn_pending" in line for line in refused)
    for shown in (asked, refused):
        assert "hidden" in "".join(shown)
        assert not ACTED_ON.search("".join(shown))


async def test_where_nobody_looks_a_transcript_is_printed_to_the_last_character(tmp_path: Path) -> None:
    async with connect(tmp_path) as client:
        session = (await call(client, "ask_agent", prompt=f"red: \x1b[31m {HOSTILE}"))["session_id"]
    printed = await shell(tmp_path, "sessions", "export", session)
    await shell(tmp_path, "sessions", "export", session, "--output", str(tmp_path / "it.md"))
    assert "\x1b[31m" in printed.out
    assert printed.out.encode() == (tmp_path / "it.md").read_bytes()


async def test_doctor_cuts_no_word_that_is_wider_than_its_column(tmp_path: Path) -> None:
    shown = await screen(tmp_path, "doctor", width=40)
    assert "AGENT_MCP_AGENTCORE_MEMORY_ID" in "".join(line[20:].strip() for line in shown)
