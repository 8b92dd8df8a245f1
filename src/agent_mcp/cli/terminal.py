"""What people see in a terminal: tables, Markdown, progress. Where nobody looks, plain text for programs to cut.

rich does the drawing, and honours NO_COLOR, TERM and the terminal's width. It is imported by what draws, because a
server and a command with --json have no use for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager

import click

from agent_mcp.characters import visible

_GAP = 2
_LAST = 24  # what the last column needs to say something


def is_watched() -> bool:
    """Whether somebody looks at what is printed."""
    return sys.stdout.isatty()


def safe(text: str, *, err: bool = False) -> str:
    """Text for stdout (or stderr) without what a terminal would act on; unchanged where nobody looks.

    What agents and people said may hold sequences that move the cursor, write the clipboard or hide text.
    """
    return visible(text) if (sys.stderr if err else sys.stdout).isatty() else text


def say(text: str, *, nl: bool = True, err: bool = False) -> None:
    """Prints what may have been said by anybody: `safe` in a terminal, and to the last character as it is elsewhere."""
    click.echo(safe(text, err=err), nl=nl, err=err, color=True)  # without `color` click takes sequences out


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows in columns under headings; where nobody looks, without these and with tabs between the cells.

    The last column takes the width that is left, and is cut there. Where that is too little, the columns before it are
    left out from the right, but never the first one: ids are there to be copied.
    """
    shown = [[" ".join(cell.split()) for cell in row] for row in rows]
    if not shown:
        return
    if not is_watched():
        for row in shown:
            say("\t".join(row))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    cells = [[Text(visible(cell)) for cell in row] for row in shown]
    columns = zip(map(Text, headings), *cells, strict=True)
    widths = [max(text.cell_len for text in column) for column in columns]
    *kept, last = range(len(headings))
    while len(kept) > 1 and sum(widths[n] + _GAP for n in kept) + min(widths[last], _LAST) > console.width:
        kept.pop()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, _GAP - 1, 0, 0), header_style="bold", expand=False)
    for n in kept:
        table.add_column(headings[n], no_wrap=True, min_width=widths[n])
    left = console.width - sum(widths[n] + _GAP for n in kept)
    table.add_column(headings[last], no_wrap=True, overflow="ellipsis", width=max(1, min(widths[last], left)))
    for row in cells:
        table.add_row(*(row[n] for n in (*kept, last)))
    console.print(table)


def print_findings(findings: Iterable[tuple[str, str, str]]) -> None:
    """A mark, a name and a text each, the text in as many lines as it takes; where nobody looks, in one."""
    if not is_watched():
        for mark, name, text in findings:
            click.echo(f"{mark:4}  {name}: {text}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    for mark, name, text in findings:
        style = {"ok": "green", "--": "dim"}.get(mark, "bold red")
        table.add_row(Text(mark, style), Text(visible(name), "bold"), Text(visible(text), overflow="fold"))
    Console().print(table)


def print_markdown(text: str) -> None:
    """Markdown, rendered; as it is where nobody looks. HTML in it is shown as text, for it is what was said."""
    if not is_watched():
        say(text)
        return
    from markdown_it import MarkdownIt
    from rich.console import Console
    from rich.markdown import Markdown

    # A link shows where it leads, because its text may say something else.
    markdown = Markdown(visible(text), hyperlinks=False)
    # rich's own parser knows HTML, and draws none of it: a message that begins with a tag would be gone.
    markdown.parsed = (
        MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).parse(markdown.markup)
    )
    console = Console()
    console.print(markdown, width=min(console.width, 100))


@contextmanager
def progress(what: str, total: int) -> Generator[Callable[[], None]]:
    """A bar on stderr, if somebody looks at that and there is much to do; gives what is called after each step."""
    if not sys.stderr.isatty() or total < 2:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def waiting(what: str) -> Generator[None]:
    """A sign of life on stderr for what may take long, if somebody looks."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield
