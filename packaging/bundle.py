"""Makes the MCP bundle: `python packaging/bundle.py DIRECTORY` fills the directory, `mcpb pack` makes a file of it.

The bundle carries the source of the package, and the host's uv installs what it depends on. The manifest is
manifest.json beside this file, with the version of pyproject.toml and the tools that the server has.
"""

import json
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

from agent_mcp.server.tools import tool_table

ROOT = Path(__file__).resolve().parent.parent
CARRIED = ("pyproject.toml", "README.md", "LICENSE", "src")


def manifest() -> dict[str, Any]:
    """The bundle's manifest, whole."""
    template = json.loads((ROOT / "packaging" / "manifest.json").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tools = [{"name": tool.name, "description": tool.description} for tool in tool_table().list_tools()]
    return template | {"version": project["version"], "tools": tools}


def fill(directory: Path) -> None:
    """Puts all that the bundle holds into `directory`, which must be new or empty."""
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise SystemExit(f"{directory} is not empty: give a new directory.")
    for name in CARRIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, directory / name)
    text = json.dumps(manifest(), indent=2, ensure_ascii=False) + "\n"
    (directory / "manifest.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python packaging/bundle.py DIRECTORY")
    fill(Path(sys.argv[1]))
