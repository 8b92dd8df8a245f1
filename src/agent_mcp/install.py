"""`agent-mcp install`: an entry for this server in a host's file, everything else in that file as it was."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import anyio
from mcp import StdioServerParameters
from mcp.client import Client

from agent_mcp.config import PREFIX, Settings
from agent_mcp.domain import Fact
from agent_mcp.errors import InvalidArgument, StorageFailed
from agent_mcp.hosts import Host

MONTH_SECONDS = 30 * 24 * 3600
"""A session's life where the operator sets none: a person comes back to a desktop after days."""
_HANDSHAKE_SECONDS = 60.0


class Entry(Fact):
    """How a host starts the server: `command` is absolute, `env` all that the server gets to know."""

    command: str
    args: tuple[str, ...]
    env: dict[str, str]

    def in_form_of(self, host: Host) -> dict[str, object]:
        kind: dict[str, object] = {"type": "stdio"} if host.typed else {}
        return kind | {"command": self.command, "args": list(self.args), "env": self.env}


@dataclass(frozen=True, kw_only=True)
class Change:
    """What became of a host's file: its `path`, the `backup` of what it held before (None: there was nothing)."""

    path: Path
    changed: bool
    backup: Path | None = None


def build_entry(
    settings: Settings, *, model: str, given: Mapping[str, str], environ: Mapping[str, str], with_env: tuple[str, ...]
) -> Entry:
    """The entry for a server with these settings. `given` are the settings that were set, as AGENT_MCP_* variables.

    A host starts servers in a directory and an environment of its own, so all that counts stands in the entry, paths
    absolute. Keys are written only where `with_env` names their variables; raises InvalidArgument where one isn't set.
    """
    env = {name: _absolute(settings, name) or text for name, text in sorted(given.items())}
    env |= {f"{PREFIX}DATA_DIR": str(settings.data_dir), f"{PREFIX}MODEL": model}
    env.setdefault(f"{PREFIX}SESSION_TTL", str(MONTH_SECONDS))
    for name in with_env:
        if not environ.get(name):
            raise InvalidArgument(f"--with-env {name}: that variable is not set here. Nothing was changed.")
        env[name] = environ[name]
    return Entry(command=_command(), args=("serve",), env=env)


def _absolute(settings: Settings, variable: str) -> str | None:
    """A setting of paths as text with absolute paths; None for any other setting."""
    value: object = getattr(settings, variable.removeprefix(PREFIX).lower(), None)
    paths = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
    if not paths or not all(isinstance(path, Path) for path in paths):
        return None
    return os.pathsep.join(os.path.abspath(str(path)) for path in paths)


def _command() -> str:
    """The absolute path of the command `agent-mcp` of this installation; raises InvalidArgument if it won't last."""
    if "archive-v0" in Path(sys.prefix).parts:  # where uvx puts what it runs once
        raise InvalidArgument(
            "This agent-mcp runs from uv's cache, which is emptied now and then: install it first (uv tool install, "
            "or pip in a virtual environment), then run agent-mcp install there. Nothing was changed."
        )
    beside = os.path.dirname(os.path.abspath(sys.executable))  # not resolved: a venv's python is a link out of it
    found = shutil.which("agent-mcp", path=beside)
    if found is None:
        raise InvalidArgument(
            f"There is no command agent-mcp in {beside}, where this Python is: install the package there with pip. "
            "Nothing was changed."
        )
    return found


def add(path: Path, host: Host, name: str, entry: Entry) -> Change:
    """Puts the entry into the host's file under `name`; what was there under that name is replaced, all else is kept.

    The old file stays beside the new one as a backup. Raises InvalidArgument for a file that can't be changed without
    loss, StorageFailed where it can't be read or written; the file is then as it was.
    """
    path = Path(os.path.realpath(path))  # a link, as people who keep their settings elsewhere have, stays one
    try:
        old = path.read_text(encoding="utf-8-sig") if path.exists() else None
    except UnicodeDecodeError:
        raise InvalidArgument(f"{path} is not UTF-8 text. {_BY_HAND}") from None
    except OSError as error:
        raise StorageFailed(f"{path} can't be read ({error.strerror}). Nothing was changed.") from None
    document = _parse(path, old or "")
    servers = document.setdefault(host.key, {})
    if not isinstance(servers, dict):
        raise InvalidArgument(f"In {path}, {host.key!r} is no object. {_BY_HAND}")
    servers = cast("dict[str, object]", servers)
    wanted = entry.in_form_of(host)
    if servers.get(name) == wanted:
        return Change(path=path, changed=False)
    servers[name] = wanted
    try:
        backup = _back_up(path)
        _replace(path, json.dumps(document, indent=_indent(old or ""), ensure_ascii=False) + "\n")
    except OSError as error:
        raise StorageFailed(f"{path} can't be written ({error.strerror}). It is as it was.") from None
    return Change(path=path, changed=True, backup=backup)


def undo(change: Change) -> None:
    """Takes a change back: the file is again what it was."""
    if change.backup is not None:
        os.replace(change.backup, change.path)
    else:
        change.path.unlink(missing_ok=True)


_BY_HAND = "Nothing was changed: run it with --print and add by hand what that shows."


def _parse(path: Path, text: str) -> dict[str, object]:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            raise InvalidArgument(
                f"{path} has the same key twice in one object, of which one would be lost. {_BY_HAND}"
            )
        return dict(pairs)

    def finite(number: str) -> float:
        if not math.isfinite(value := float(number)):
            raise InvalidArgument(f"{path} holds the number {number}, which would be lost. {_BY_HAND}")
        return value

    if not text.strip():
        return {}
    try:
        document: object = json.loads(text, object_pairs_hook=unique, parse_float=finite, parse_constant=finite)
    except json.JSONDecodeError as error:
        raise InvalidArgument(
            f"{path} is not plain JSON (line {error.lineno}: {error.msg}); comments in it would be lost. {_BY_HAND}"
        ) from None
    except InvalidArgument:
        raise
    except (ValueError, RecursionError):  # a number of thousands of digits, or brackets within brackets without end
        raise InvalidArgument(f"{path} holds more digits or brackets than can be read. {_BY_HAND}") from None
    if not isinstance(document, dict):
        raise InvalidArgument(f"{path} does not hold a JSON object. {_BY_HAND}")
    return cast("dict[str, object]", document)


def _indent(text: str) -> int | str:
    """What the file's first indented line begins with; two spaces where there is none."""
    for line in text.splitlines():
        if (space := line[: len(line) - len(line.lstrip())]) and line.strip():
            return space
    return 2


def _back_up(path: Path) -> Path | None:
    if not path.exists():
        return None
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")  # as its owner's clock shows it
    backup = path.with_name(f"{path.name}.{stamp}.bak")
    shutil.copy2(path, backup)
    return backup


def _replace(path: Path, text: str) -> None:
    """Writes the file anew beside its place and renames it in. A new file is its owner's alone: it may hold keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        # Half a character, as a cut text in a host's file may end with, has no UTF-8: it is written as JSON escapes it.
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, new)
        os.replace(new, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)


async def shake_hands(entry: Entry) -> str:
    """Starts the server as a host would and lists its tools; returns what answered, or raises StorageFailed."""
    server = StdioServerParameters(command=entry.command, args=list(entry.args), env=entry.env)
    try:
        with anyio.fail_after(_HANDSHAKE_SECONDS):
            async with Client(server) as client:
                tools = (await client.list_tools()).tools
                info = client.server_info
                who = f"{info.name} {info.version}" if info is not None else "A server without a name"
                return f"{who} answers, with {len(tools)} tools"
    except Exception as error:
        reason = next(_causes(error), error)
        raise StorageFailed(
            f"The server does not answer ({type(reason).__name__}: {reason}). The host's file is as it was. Run "
            f"{entry.command} doctor with the same settings: it says what is wrong."
        ) from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The single failures in an exception group, depth first."""
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[Any]", error).exceptions:
            yield from _causes(inner)
    else:
        yield error
