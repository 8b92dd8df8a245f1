"""What hosts and registries read of the package: the MCP bundle and server.json."""

import json
import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent_mcp.config import Settings
from agent_mcp.server.tools import tool_table

ROOT = Path(__file__).parent.parent
MCPB = "@anthropic-ai/mcpb@2.1.2"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("mcpb") / "bundle"
    command = [sys.executable, str(ROOT / "packaging" / "bundle.py"), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return directory


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_bundle_names_the_version_the_tools_and_extras_that_there_are(bundle: Path) -> None:
    manifest = read(bundle / "manifest.json")
    assert manifest["version"] == project()["version"]
    assert [tool["name"] for tool in manifest["tools"]] == [tool.name for tool in tool_table().list_tools()]
    assert (bundle / manifest["server"]["entry_point"]).is_file()
    arguments = manifest["server"]["mcp_config"]["args"]
    extras = {value for flag, value in pairwise(arguments) if flag == "--extra"}
    assert extras <= set(project()["optional-dependencies"])


def test_the_bundle_sets_only_settings_that_there_are_from_fields_that_it_asks_for(bundle: Path) -> None:
    manifest = read(bundle / "manifest.json")
    environment = manifest["server"]["mcp_config"]["env"]
    ours = {name.removeprefix("AGENT_MCP_").lower() for name in environment if name.startswith("AGENT_MCP_")}
    assert ours <= set(Settings.model_fields)
    asked = {match[1] for value in environment.values() if (match := re.fullmatch(r"\$\{user_config\.(\w+)\}", value))}
    assert asked == set(manifest["user_config"])
    secrets = {name for name, field in manifest["user_config"].items() if field.get("sensitive")}
    assert secrets == {name for name in asked if name.endswith("_key")}


def test_the_bundle_holds_the_package_whole_and_nothing_that_was_made_by_running_it(bundle: Path) -> None:
    carried = {path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file()}
    source = {path.relative_to(ROOT) for path in (ROOT / "src").rglob("*") if path.is_file()}
    assert {path for path in source if "__pycache__" not in path.parts} == {p for p in carried if p.parts[0] == "src"}


def test_the_registrys_file_says_what_the_package_says() -> None:
    server = read(ROOT / "server.json")
    assert server["version"] == project()["version"]
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", server["name"])
    assert 1 <= len(server["description"]) <= 100


@pytest.mark.node
@pytest.mark.timeout(600)
def test_the_bundles_own_tool_validates_and_packs_it(bundle: Path, tmp_path: Path) -> None:
    for arguments in (["validate", str(bundle / "manifest.json")], ["pack", str(bundle), str(tmp_path / "a.mcpb")]):
        done = subprocess.run(
            ["npx", "-y", MCPB, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "a.mcpb").stat().st_size > 100_000
