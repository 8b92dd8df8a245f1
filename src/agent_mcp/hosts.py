"""The MCP hosts that the server can be added to: where each keeps its servers, and in what form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What decides where a host keeps its files: `platform` is as `sys.platform`, `home` the user's directory."""

    platform: str
    home: Path
    environ: Mapping[str, str]

    def settings(self, *parts: str) -> Path:
        """A place in the directory where desktop programs of this system keep their settings."""
        match self.platform:
            case "darwin":
                base = self.home / "Library" / "Application Support"
            case "win32":
                base = self._given("APPDATA") or self.home / "AppData" / "Roaming"
            case _:
                base = self._given("XDG_CONFIG_HOME") or self.home / ".config"
        return base.joinpath(*parts)

    def _given(self, variable: str) -> Path | None:
        value = self.environ.get(variable, "")
        return Path(value) if PurePath(value).is_absolute() else None

    def claude_directory(self) -> Path:
        """Claude Code's file lies in the home directory unless CLAUDE_CONFIG_DIR names another one."""
        return self._given("CLAUDE_CONFIG_DIR") or self.home


@dataclass(frozen=True, kw_only=True)
class Host:
    """A host: the file it reads, under which key that lists servers, and what its user does afterwards.

    `typed` is whether an entry says which transport it is.
    """

    name: str
    title: str
    file: Callable[[Machine], Path]
    key: str = "mcpServers"
    typed: bool = False
    then: str


HOSTS: Mapping[str, Host] = {
    host.name: host
    for host in (
        Host(
            name="claude-desktop",
            title="Claude Desktop",
            file=lambda machine: machine.settings("Claude", "claude_desktop_config.json"),
            then="Quit Claude Desktop and start it again.",
        ),
        Host(
            name="claude-code",
            title="Claude Code",
            file=lambda machine: machine.claude_directory() / ".claude.json",
            typed=True,
            then="It is there in the next session that is started, in every project: /mcp shows it.",
        ),
        Host(
            name="cursor",
            title="Cursor",
            file=lambda machine: machine.home / ".cursor" / "mcp.json",
            then="Cursor takes it up by itself; Settings, Tools & MCP shows it.",
        ),
        Host(
            name="vscode",
            title="VS Code",
            file=lambda machine: machine.settings("Code", "User", "mcp.json"),
            key="servers",
            typed=True,
            then="In VS Code run the command 'MCP: List Servers' and start it there.",
        ),
    )
}
"""By the names of the command line."""
