"""The documents say what the code does: tools, arguments, settings and commands, and their links lead somewhere."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from agent_mcp.cli import cli
from agent_mcp.config import PREFIX, Settings
from conftest import connect

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def section(title: str) -> str:
    """The text of README.md under one heading of the second level."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found, f"README.md has no section {title!r}"
    return found[1]


def rows(title: str) -> Iterator[list[str]]:
    """The cells of each row of the tables in a section of README.md, heads left out."""
    for line in section(title).splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def anchors(document: Path) -> set[str]:
    """The names by which a document's headings are linked to."""
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


async def test_the_readme_names_each_tool_with_its_arguments(data_dir: Path) -> None:
    said = {cells[0].strip("`"): re.findall(r"`(\w+)`(\\\*)?", cells[1]) for cells in rows("Tools")}
    async with connect(data_dir) as client:
        listed = (await client.list_tools()).tools
    offered = {
        tool.name: [
            (name, "\\*" if name in tool.input_schema.get("required", []) else "")
            for name in tool.input_schema["properties"]
        ]
        for tool in listed
    }
    assert said == offered


def test_the_settings_page_and_table_are_as_generated() -> None:
    script = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    result = subprocess.run(script, capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_readme_names_each_command_of_the_shell() -> None:
    said = {name: cells[1] for cells in rows("In the shell") for name in re.findall(r"`agent-mcp (\w+)", cells[0])}
    assert set(said) == set(cli.commands)
    for name, command in cli.commands.items():
        if isinstance(command, click.Group):
            assert set(command.commands) <= set(re.findall(r"`(\w+)`", said[name])), name


def test_the_examples_for_hosts_are_json_and_use_settings_that_there_are() -> None:
    blocks = re.findall(r"```json\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        (servers,) = json.loads(block).values()
        for server in servers.values():
            given = {name.removeprefix(PREFIX).lower() for name in server["env"] if name.startswith(PREFIX)}
            assert given <= set(Settings.model_fields)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_resolves(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        path, _, fragment = target.partition("#")
        place = (document.parent / path).resolve() if path else document
        assert place.exists(), f"{document.name} links to {target}"
        assert not fragment or fragment in anchors(place), f"{document.name} links to {target}"
