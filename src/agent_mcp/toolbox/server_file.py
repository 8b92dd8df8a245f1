"""The operator's file of MCP servers, in the `mcpServers` format of hosts."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_QUIET = ("description", "disabled", "autoApprove", "alwaysAllow", "icon", "timeout", "type")
"""Keys of hosts that mean nothing here, or that are read in another way."""


class ServerEntry(BaseModel):
    """One MCP server of the operator. A `command` is started and spoken to on stdio, a `url` is connected to.

    `approve` is which of its tools need a person's yes: all but those marked as only reading (`writes`), all, or none.
    `subjects` are the authenticated subjects that may use it, None = all of them.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str | None = None
    url: str | None = Field(default=None, pattern=r"^https?://")
    headers: dict[str, str] = {}
    type: Literal["stdio", "http", "streamable-http", "sse"] | None = None
    disabled: bool = False
    approve: Literal["writes", "always", "never"] = "writes"
    subjects: tuple[str, ...] | None = None

    def serves(self, subject: str) -> bool:
        return self.subjects is None or subject in self.subjects

    @property
    def terms(self) -> str:
        """On what terms it is there, for `doctor`."""
        whose = "" if self.subjects is None else f", for {', '.join(self.subjects) or 'nobody'} only"
        return f"of AGENT_MCP_MCP_SERVERS, approve {self.approve}{whose}"


class _File(BaseModel):
    mcpServers: dict[str, dict[str, object]]


def read_servers(path: str, environ: Mapping[str, str]) -> tuple[dict[str, ServerEntry], list[str]]:
    """The servers by name, and a warning for each that is left out. `${NAME}` is taken from `environ`. Blocking."""
    try:
        with open(path, encoding="utf-8") as file:
            servers = _File.model_validate_json(file.read()).mcpServers
    except (OSError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        return {}, [f"AGENT_MCP_MCP_SERVERS: {path} can't be read ({reason}), so no MCP server is there"]
    entries: dict[str, ServerEntry] = {}
    warnings: list[str] = []
    for name, given in servers.items():
        try:
            entry = _entry(name, given, environ)
        except ValueError as error:
            warnings.append(f"AGENT_MCP_MCP_SERVERS: the server {name[:80]!r} is left out: {error}")
            continue
        if not entry.disabled:
            entries[name] = entry
            if unknown := sorted(set(entry.model_extra or {}) - set(_QUIET)):
                warnings.append(f"AGENT_MCP_MCP_SERVERS: {name}: {', '.join(unknown)} means nothing here")
    return entries, warnings


def _entry(name: str, given: object, environ: Mapping[str, str]) -> ServerEntry:
    """One entry; raises ValueError with the reason in a few words."""
    if not _NAME.fullmatch(name) or "__" in name:
        raise ValueError("a name has 1-64 letters, digits, '.', '-' and single '_'")
    try:
        entry = ServerEntry.model_validate(_filled(given, environ))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'the entry'}: {first['msg']}") from None
    if (entry.command is None) == (entry.url is None):
        raise ValueError("it needs a command or a url, and not both")
    return entry


def _filled(value: object, environ: Mapping[str, str]) -> object:
    """`value` with its variables filled in, `~` left to the shell. Raises ValueError for one that is not set."""

    def fill(match: re.Match[str]) -> str:
        found = environ.get(match[1]) or match[2]
        if found is None:
            raise ValueError(f"the variable {match[1]} is not set")
        return found

    if isinstance(value, str):
        return _VARIABLE.sub(fill, value)
    if isinstance(value, list):
        return [_filled(item, environ) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {key: _filled(item, environ) for key, item in cast("dict[str, object]", value).items()}
    return value


def home(path: str | None) -> str | None:
    """A path with `~` as the user's home."""
    return os.path.expanduser(path) if path else None
