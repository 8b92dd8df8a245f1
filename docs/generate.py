"""Writes what the documents say of the settings: docs/settings.md, and the table in README.md.

python docs/generate.py            writes both
python docs/generate.py --check    says what is out of date, and exits with 1 if anything is
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from agent_mcp.config import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "settings.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- settings: made by docs/generate.py -->", "<!-- /settings -->"

BASICS = ("data_dir", "model", "session_ttl", "allow_tools", "files", "mcp_servers", "web_domains")
"""The settings that README.md shows."""

_DATA_DIR_DEFAULT = "see [Data directory](#data-directory)"
_FORMS: Mapping[type, str] = {int: "whole number", float: "number", bool: "`on` or `off`", Path: "path", str: "text"}
_BOUNDS = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}

_HEAD = """# Settings

<!-- Made by docs/generate.py from Settings in src/agent_mcp/config.py: change it there, then run the script. -->

Each setting is an environment variable and a flag. A flag wins over the variable, and may stand before or behind the
command: `agent-mcp --model offline ask ...` is `agent-mcp ask --model offline ...`. A variable that is empty counts as
absent. A value that can't be used ends the command with one line that names the variable.

The settings belong to whoever starts the server; no tool changes one. A caller may choose otherwise, for one agent,
session or call, where a setting is only a default: the model, a session's life (`ttl_seconds`), how long an ask waits
(`wait_seconds`).
"""
_TAIL = """
## Data directory

Everything is kept in one directory. Where `AGENT_MCP_DATA_DIR` is not set, that is `./sessions` if it holds the marker
file `.agent-mcp` (in a checkout of this project it does), else the user's data directory:
`~/.local/share/agent-mcp` on Linux (`$XDG_DATA_HOME/agent-mcp` where that is set), `~/Library/Application
Support/agent-mcp` on macOS, `%LOCALAPPDATA%\\agent-mcp` on Windows. `agent-mcp doctor` shows which one it is.
[concepts.md](concepts.md#files-on-disk) says what lies in it.

It must be on a disk of this machine: file locks on network shares are not relied on.

## Not settings

Credentials and endpoints of model providers are read from their usual variables, such as `AWS_PROFILE` and
`AWS_REGION`; see the [README](../README.md#models).

Traces are sent where `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set, unless
`OTEL_SDK_DISABLED=true` or `OTEL_TRACES_EXPORTER=none`; OpenTelemetry's other variables count too. See
[operating.md](operating.md#traces).
"""


def variable(name: str) -> str:
    return PREFIX + name.upper()


def default(field: FieldInfo) -> str:
    """The default as it would be written in the environment."""
    value: Any = field.default
    if field.is_required():
        return _DATA_DIR_DEFAULT
    if isinstance(value, bool):
        return "`on`" if value else "`off`"
    if isinstance(value, tuple):
        value = ",".join(str(item) for item in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if value is None or value == "":
        return "none"
    return f"`{value}`"


def form(field: FieldInfo) -> str:
    """What may be written: the kind of value, with its bounds."""
    kind: Any = field.annotation
    if get_origin(kind) is UnionType:
        kind = next(part for part in get_args(kind) if part is not type(None))
    many = get_origin(kind) is tuple
    if many:
        kind = get_args(kind)[0]
    bounds = [
        f"{word} {_number(getattr(limit, key))}"
        for limit in field.metadata
        for key, word in _BOUNDS.items()
        if hasattr(limit, key)
    ]
    text = _FORMS.get(kind, "text")
    return " ".join(["list" if many else text, *bounds])


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


def table(*columns: str, rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def readme_table() -> str:
    rows = [
        [f"`{variable(name)}`", default(field).replace("(#", "(docs/settings.md#"), field.description or ""]
        for name, field in Settings.model_fields.items()
        if name in BASICS
    ]
    return table("variable", "default", "meaning", rows=rows)


def page() -> str:
    rows = [
        [
            f"`{variable(name)}`",
            f"`--{name.replace('_', '-')}`",
            form(field),
            default(field),
            field.description or "",
        ]
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join([_HEAD, table("variable", "flag", "value", "default", "meaning", rows=rows), _TAIL])


def readme() -> str:
    """README.md with the table between its two marks."""
    before, begin, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md lacks the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{readme_table()}\n{END}{after}"


def main() -> None:
    stale = [
        (path, text)
        for path, text in ((PAGE, page()), (README, readme()))
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if "--check" in sys.argv[1:]:
        for path, _ in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run python docs/generate.py")
        sys.exit(1 if stale else 0)
    for path, text in stale:
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
