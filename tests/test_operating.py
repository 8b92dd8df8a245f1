"""docs/operating.md and docs/security.md against the program: metrics, settings, commands, numbers that they name."""

import configparser
import re
import shlex
from pathlib import Path

import click
import pytest

from agent_mcp.cli import cli
from agent_mcp.config import PREFIX, Settings
from agent_mcp.http.access import LONGEST_REQUEST
from agent_mcp.turn_queue import LONGEST
from test_metrics import Metrics, read
from web import serving

DOCS = Path(__file__).parent.parent / "docs"
OPERATING = (DOCS / "operating.md").read_text("utf-8")


def cells(heading: str) -> list[list[str]]:
    """The rows of the table below a heading, the head left out."""
    text = OPERATING.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", OPERATING, re.DOTALL)
    assert found
    return found[1]


def labels_of(metrics: Metrics) -> dict[str, set[str]]:
    """The names of metrics that are ours, as the page has them, and of their labels."""
    found: dict[str, set[str]] = {}
    for sample in metrics:
        name, _, labels = sample.rstrip("}").partition("{")
        name = re.sub(r"(_seconds)_(bucket|count|sum)$", r"\1", name)
        if name.startswith("agent_mcp_"):
            found.setdefault(name, set()).update(part.partition("=")[0] for part in labels.split(",") if part)
    return {name: labels - {"le"} for name, labels in found.items()}


def test_the_page_names_each_metric_with_its_labels(data_dir: Path) -> None:
    said = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[1])) for row in cells("Metrics")}
    with serving(data_dir) as web:
        web.ask("Hello")
        web.post("/agents/nobody/invoke", {"prompt": "Hello"})
        shown = labels_of(read(web.rest))
    # Nothing failed here, and a counter without a sample has no labels to show.
    assert said == {"agent_mcp_turn_failures_total": {"code"}, **shown}


@pytest.mark.parametrize("page", ["operating.md", "security.md"])
def test_the_settings_and_commands_that_are_named_are_there(page: str) -> None:
    text = (DOCS / page).read_text("utf-8")
    named = set(re.findall(rf"\b{PREFIX}([A-Z_]+)", text))
    assert named <= {name.upper() for name in Settings.model_fields}
    for words in re.findall(r"agent-mcp ((?:[a-z]+)(?: [a-z]+)?)", text):
        command: click.Command = cli
        for word in words.split():
            if not isinstance(command, click.Group) or word not in command.commands:
                break
            command = command.commands[word]
        else:
            continue
        assert words.split()[0] in cli.commands, words


def test_the_unit_starts_a_command_that_there_is_with_settings_that_there_are() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # pyright: ignore[reportAttributeAccessIssue] as its documentation does it
    unit.read_string(block("ini"))
    _, command, *words = shlex.split(unit["Service"]["ExecStart"])
    with cli.commands[command].make_context(command, words) as context:  # raises where an option is unknown
        assert context.params["address"] == "127.0.0.1:8080"
    given = re.findall(rf"Environment={PREFIX}(\w+)=(.*)", block("ini"))
    Settings.from_env({f"{PREFIX}{name}": value for name, value in given})
    assert dict(given)["DATA_DIR"].rpartition("/")[2] == unit["Service"]["StateDirectory"]


def test_the_numbers_are_those_of_the_program() -> None:
    fields = Settings.model_fields
    rows = {row[0]: row[1] for row in cells("Limits")}
    assert rows["asks that wait in one session"] == str(LONGEST)
    assert rows["a request, a prompt"].startswith(f"{LONGEST_REQUEST // 1024**2} MiB")
    assert rows["turns of one authenticated subject at once, and its requests a minute"] == (
        f"{fields['subject_turns'].default}, {fields['subject_rate'].default}"
    )
    assert rows["one turn"].startswith(f"{fields['turn_timeout'].default} s, {fields['max_calls'].default} model calls")
    waits = re.search(r"proxy_read_timeout (\d+)s;", block("nginx"))
    assert waits
    assert int(waits[1]) > fields["turn_timeout"].default
