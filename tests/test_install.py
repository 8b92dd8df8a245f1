"""`agent-mcp install`: the hosts' real files, what stands in them already, and a handshake at the end."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agent_mcp.cli import cli
from agent_mcp.hosts import HOSTS, Machine

OTHERS = {
    "theme": "dark - ☾",
    "mcpServers": {"files": {"command": "npx", "args": ["-y", "files"], "env": {"B": "1", "A": "2"}}},
    "numbers": [1, 2.50, 1e3],
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def install(home: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
    environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("AGENT_MCP_")}
    environment |= dict.fromkeys(("XDG_CONFIG_HOME", "CLAUDE_CONFIG_DIR", "AWS_PROFILE", "AWS_REGION"))
    environment |= {"HOME": str(home), "AGENT_MCP_MODEL": "offline", "AGENT_MCP_DATA_DIR": str(home / "data")}
    return CliRunner().invoke(cli, ["install", *arguments], env={**environment, **(env or {})})


def cursor(home: Path) -> Path:
    return home / ".cursor" / "mcp.json"


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("platform", "host", "place"),
    [
        ("darwin", "claude-desktop", "Library/Application Support/Claude/claude_desktop_config.json"),
        ("win32", "claude-desktop", "AppData/Roaming/Claude/claude_desktop_config.json"),
        ("linux", "claude-desktop", ".config/Claude/claude_desktop_config.json"),
        ("darwin", "claude-code", ".claude.json"),
        ("win32", "claude-code", ".claude.json"),
        ("linux", "claude-code", ".claude.json"),
        ("darwin", "cursor", ".cursor/mcp.json"),
        ("win32", "cursor", ".cursor/mcp.json"),
        ("linux", "cursor", ".cursor/mcp.json"),
        ("darwin", "vscode", "Library/Application Support/Code/User/mcp.json"),
        ("win32", "vscode", "AppData/Roaming/Code/User/mcp.json"),
        ("linux", "vscode", ".config/Code/User/mcp.json"),
    ],
)
def test_each_host_has_its_file_on_each_system(home: Path, platform: str, host: str, place: str) -> None:
    assert HOSTS[host].file(Machine(platform=platform, home=home, environ={})) == home / place


def test_the_variables_that_move_a_hosts_files_are_followed(home: Path) -> None:
    environ = {"XDG_CONFIG_HOME": "/etc/mine", "CLAUDE_CONFIG_DIR": "/etc/claude"}
    machine = Machine(platform="linux", home=home, environ=environ)
    assert HOSTS["vscode"].file(machine) == Path("/etc/mine/Code/User/mcp.json")
    assert HOSTS["claude-code"].file(machine) == Path("/etc/claude/.claude.json")


def test_a_file_that_is_not_there_is_made_for_its_owner_alone_and_the_server_answers(home: Path) -> None:
    done = install(home, "cursor")
    assert done.exit_code == 0, done.output
    entry = read(cursor(home))["mcpServers"]["agents"]
    assert Path(entry["command"]).is_absolute()
    assert entry["args"] == ["serve"]
    assert entry["env"] == {
        "AGENT_MCP_DATA_DIR": str(home / "data"),
        "AGENT_MCP_MODEL": "offline",
        "AGENT_MCP_SESSION_TTL": "2592000",
    }
    assert stat.S_IMODE(cursor(home).stat().st_mode) == 0o600
    assert "answers, with" in done.output


def test_what_was_done_as_json(home: Path) -> None:
    made = json.loads(install(home, "cursor", "--json").stdout)
    assert made["file"] == str(cursor(home))
    assert made["changed"] is True
    assert "answers, with" in made["handshake"]
    again = json.loads(install(home, "cursor", "--json").stdout)
    assert (again["changed"], "backup" in again and again["backup"]) == (False, None)


def test_what_stands_in_the_file_is_kept_and_the_old_file_stays_as_a_backup(home: Path) -> None:
    before = json.dumps(OTHERS, indent="\t", ensure_ascii=False)
    path = written(cursor(home), before)
    path.chmod(0o644)
    done = install(home, "cursor")
    assert done.exit_code == 0, done.output
    document = read(path)
    assert list(document) == list(OTHERS)
    assert list(document["mcpServers"]) == ["files", "agents"]
    assert document["mcpServers"].pop("agents")["args"] == ["serve"]
    assert document == OTHERS
    assert '\n\t"theme": "dark - ☾"' in path.read_text(encoding="utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    (backup,) = path.parent.glob("mcp.json.*.bak")
    assert backup.read_text(encoding="utf-8") == before
    assert backup.name in done.output


def test_half_a_character_in_the_file_is_kept(home: Path) -> None:
    """Claude Code keeps the prompts of its user there, cut to a length."""
    path = written(home / ".claude.json", '{"history": [{"display": "cut \\ud83d"}, "\\\\ud83d \\ud83d\\ude00"]}')
    before = read(path)
    assert install(home, "claude-code").exit_code == 0
    after = read(path)
    assert list(after.pop("mcpServers")) == ["agents"]
    assert after == before


def test_a_second_time_changes_nothing_and_makes_no_backup(home: Path) -> None:
    assert install(home, "vscode").exit_code == 0
    path = home / ".config/Code/User/mcp.json"
    first = path.read_bytes()
    again = install(home, "vscode")
    assert again.exit_code == 0, again.output
    assert "has it already" in again.output
    assert path.read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == ["mcp.json"]


def test_another_model_replaces_the_entry_and_leaves_what_has_another_name(home: Path) -> None:
    assert install(home, "claude-code", "--name", "mine").exit_code == 0
    assert install(home, "claude-code", "--name", "mine", "--session-ttl", "60").exit_code == 0
    assert install(home, "claude-code").exit_code == 0
    servers = read(home / ".claude.json")["mcpServers"]
    assert list(servers) == ["mine", "agents"]
    assert servers["mine"]["type"] == "stdio"
    assert servers["mine"]["env"]["AGENT_MCP_SESSION_TTL"] == "60"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"servers": {}, // mine\n}', "not plain JSON (line 1"),
        ('{"servers": {},}', "not plain JSON"),
        ("[]", "does not hold a JSON object"),
        ('{"servers": []}', "'servers' is no object"),
        ('{"a": 1, "a": 2}', "the same key twice"),
        ('{"a": 1e400}', "the number 1e400"),
        ('{"a": -Infinity}', "the number -Infinity"),
        ('{"a": ' + "9" * 5000 + "}", "more digits or brackets than can be read"),
        ('{"a": ' + "[" * 100_000, "more digits or brackets than can be read"),
    ],
)
def test_a_file_that_would_lose_something_is_left_alone(home: Path, text: str, why: str) -> None:
    path = written(home / ".config/Code/User/mcp.json", text)
    done = install(home, "vscode")
    assert done.exit_code == 1
    assert why in done.output
    assert "Nothing was changed" in done.output
    assert "--print" in done.output
    assert path.read_text(encoding="utf-8") == text
    assert [file.name for file in path.parent.iterdir()] == ["mcp.json"]


def test_a_linked_file_is_changed_where_it_lies(home: Path) -> None:
    real = written(home / "dotfiles" / "mcp.json", "{}")
    cursor(home).parent.mkdir()
    cursor(home).symlink_to(real)
    assert install(home, "cursor").exit_code == 0
    assert cursor(home).is_symlink()
    assert "agents" in read(real)["mcpServers"]


def test_print_shows_it_and_writes_nothing(home: Path) -> None:
    done = install(home, "vscode", "--print")
    assert done.exit_code == 0
    shown = json.loads(done.stdout)
    assert shown["servers"]["agents"]["type"] == "stdio"
    assert list(home.iterdir()) == []


def test_print_needs_no_model_and_what_is_added_does(home: Path) -> None:
    shown = install(home, "cursor", "--print", env={"AGENT_MCP_MODEL": "auto"})
    assert json.loads(shown.stdout)["mcpServers"]["agents"]["env"]["AGENT_MCP_MODEL"] == "auto"
    refused = install(home, "cursor", env={"AGENT_MCP_MODEL": "auto"})
    assert refused.exit_code == 1
    assert "agent-mcp install cursor --model offline" in refused.output
    assert not cursor(home).exists()


def test_where_sessions_lie_is_told(home: Path) -> None:
    done = install(home, "cursor")
    assert f"Sessions: in {home / 'data'}" in done.output
    assert "2592000 s after their last turn" in done.output


def test_a_key_is_written_only_where_it_is_asked_for(home: Path) -> None:
    env = {"AGENT_MCP_MODEL": "anthropic:some-model", "ANTHROPIC_API_KEY": "sk-secret"}
    quiet = install(home, "cursor", "--print", env=env)
    assert "sk-secret" not in quiet.output
    asked = install(home, "cursor", "--print", "--with-env", "ANTHROPIC_API_KEY", env=env)
    assert json.loads(asked.stdout)["mcpServers"]["agents"]["env"]["ANTHROPIC_API_KEY"] == "sk-secret"
    unset = install(home, "cursor", "--with-env", "NOT_SET_ANYWHERE")
    assert unset.exit_code == 1
    assert "NOT_SET_ANYWHERE" in unset.output
    assert not cursor(home).exists()


def test_the_operators_settings_go_along_with_absolute_paths(home: Path) -> None:
    shown = install(home, "cursor", "--print", "--allow-tools", "shell", env={"AGENT_MCP_AGENTS_PATH": "~/shared"})
    env = json.loads(shown.stdout)["mcpServers"]["agents"]["env"]
    assert env["AGENT_MCP_ALLOW_TOOLS"] == "shell"
    assert env["AGENT_MCP_AGENTS_PATH"] == str(home / "shared")


def test_a_server_that_does_not_answer_leaves_the_file_as_it_was(home: Path, tmp_path: Path) -> None:
    before = json.dumps(OTHERS)
    path = written(cursor(home), before)
    written(tmp_path / "broken" / "agent_mcp.py", "raise SystemExit(3)\n")
    broken = install(home, "cursor", "--with-env", "PYTHONPATH", env={"PYTHONPATH": str(tmp_path / "broken")})
    assert broken.exit_code == 1
    assert "does not answer" in broken.output
    assert path.read_text(encoding="utf-8") == before
    assert [file.name for file in path.parent.iterdir()] == ["mcp.json"]


def test_in_a_shell_it_says_what_it_did_and_what_comes_next(home: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_MCP_")}
    done = subprocess.run(
        [sys.executable, "-m", "agent_mcp", "install", "claude-code", "--model", "offline"],
        env={**environment, "HOME": str(home), "AGENT_MCP_DATA_DIR": str(home / "data")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert said[0] == f"Made {home / '.claude.json'}."
    assert "answers, with" in said[1]
    assert said[2].startswith("Model: offline. Sessions: in ")
    assert "next session" in said[3]
