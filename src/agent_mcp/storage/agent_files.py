"""Agents as Markdown files: YAML front matter, and the system prompt as the body."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from agent_mcp.domain import MEMORY_MODES, AgentId, AgentSpec, parse_agent_id
from agent_mcp.errors import AgentExists, InvalidArgument, StorageFailed
from agent_mcp.storage import durable
from agent_mcp.storage.failures import storage_errors
from agent_mcp.storage.layout import Layout
from agent_mcp.storage.locks import short_lock

_FENCE = "---"
_YAML_BREAKS = ("\\u0085", "\\u2028", "\\u2029")
"""As JSON writes them: YAML takes them for line breaks, which come back as blanks unless they are escaped."""
_WRITTEN = ("name", "description", "model", "model_params", "tools", "memory", "created_at", "updated_at")


def render(spec: AgentSpec, *, others: Mapping[str, Any] | None = None) -> str:
    """The file of an agent, with `others` in its front matter too. `parse` reads the same definition back."""
    fields = spec.model_dump(mode="json", include=set(_WRITTEN))
    kept = {key: fields[key] for key in _WRITTEN if fields[key] not in (None, "", [], {}, ())}
    if spec.memory == "off":  # the default, and YAML reads the word as a false
        del kept["memory"]
    whole = {**kept, **(others or {})}
    escape = any(mark in json.dumps(whole, default=str, skipkeys=True) for mark in _YAML_BREAKS)
    front = yaml.safe_dump(whole, sort_keys=False, allow_unicode=not escape, width=1000)
    return f"{_FENCE}\n{front}{_FENCE}\n{spec.system_prompt}\n"


def parse(text: str, *, agent_id: AgentId, source: str) -> AgentSpec:
    """The definition that a file holds; raises InvalidArgument with what is wrong with it.

    Keys that are not ours are left alone: such files are shared with other assistants.
    """
    head, body = _split(text)
    try:
        front: object = yaml.safe_load(head)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-13-45
        raise InvalidArgument(f"its front matter is not valid YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(front, Mapping):
        raise InvalidArgument("its front matter is no list of 'key: value' lines")
    known: dict[str, Any] = {str(k): v for k, v in cast(Mapping[object, object], front).items() if k in _WRITTEN}
    given = {key: value for key, value in known.items() if value is not None}
    if isinstance(given.get("tools"), str):
        given["tools"] = [name.strip() for name in str(given["tools"]).split(",") if name.strip()]
    for key in ("name", "description", "model"):
        if key in given and isinstance(given[key], int | float):
            given[key] = str(given[key])
    warnings: list[str] = []
    memory = given.pop("memory", "off")
    if memory in MEMORY_MODES:
        given["memory"] = memory
    elif memory is not False:
        warnings.append(f"{agent_id}: the memory {str(memory)[:40]!r} is unknown (off, explicit, auto), off is used")
    try:
        return AgentSpec.model_validate(
            {
                "name": agent_id,
                "warnings": warnings,
                **given,
                "agent_id": agent_id,
                "system_prompt": body,
                "source": source,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidArgument(f"its field {'.'.join(map(str, first['loc']))!r} can't be used: {first['msg']}") from None


def _split(text: str) -> tuple[str, str]:
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if lines[0].rstrip() != _FENCE:
        raise InvalidArgument("it does not begin with front matter between two lines '---'")
    for number, line in enumerate(lines[1:], start=1):
        if line.rstrip() == _FENCE:
            return "\n".join(lines[1:number]), "\n".join(lines[number + 1 :]).removesuffix("\n")
    raise InvalidArgument("its front matter has no closing line '---'")


class AgentFiles:
    """The agents of one subject, read afresh at every call; files may be written by hand."""

    def __init__(self, layout: Layout, *, sync: bool) -> None:
        self._layout = layout
        self._sync = sync

    def list_all(self) -> tuple[list[AgentSpec], list[str]]:
        """All agents by id, and a warning for each file that can't be read."""
        return read_directory(self._layout.agents, source="own")

    def find(self, agent_id: AgentId) -> AgentSpec | None:
        """The agent, or None; raises InvalidArgument naming the file if that can't be read."""
        return read_file(self._layout.agent(agent_id), source="own")

    def create(self, spec: AgentSpec) -> None:
        """Writes a new agent; raises AgentExists if its id is taken (also by another process meanwhile).

        Raises StorageFailed too, as the other methods that write do.
        """
        with storage_errors(self._layout.root):
            created = durable.create_text(self._layout.agent(spec.agent_id), render(spec), sync=self._sync)
        if not created:
            raise AgentExists(f"There is an agent {spec.agent_id!r} already: choose another name or agent_id.")

    def replace(self, spec: AgentSpec) -> None:
        """Writes an agent again. What else stands in its front matter, put there by hand, is kept."""
        path = self._layout.agent(spec.agent_id)
        with storage_errors(self._layout.root):
            durable.write_text(path, render(spec, others=_others(path)), sync=self._sync)

    def remove(self, agent_id: AgentId, *, retire: bool) -> None:
        """Removes an agent's file; with `retire` its id is never given again."""
        with storage_errors(self._layout.root):
            if retire:
                with short_lock(self._layout.locks / "retired.lock"):  # or one of two at once would be forgotten
                    ids = sorted({*self.retired(), agent_id})
                    durable.write_text(self._layout.retired, "".join(f"{i}\n" for i in ids), sync=self._sync)
            self._layout.agent(agent_id).unlink(missing_ok=True)
            if self._sync:
                durable.sync_directory(self._layout.agents)

    def retired(self) -> set[AgentId]:
        """Ids of deleted agents that have sessions."""
        with storage_errors(self._layout.root):
            try:
                return {AgentId(line) for line in self._layout.retired.read_text(encoding="utf-8").split()}
            except FileNotFoundError:
                return set()


class AgentDirectory:
    """Agents that lie in a directory of the operator's, read only."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def list_all(self) -> tuple[list[AgentSpec], list[str]]:
        """All agents by id, and a warning for each file that can't be read."""
        return read_directory(self._path, source=str(self._path))

    def find(self, agent_id: AgentId) -> AgentSpec | None:
        """The agent, or None; raises InvalidArgument naming the file if that can't be read."""
        return read_file(self._path / f"{agent_id}.md", source=str(self._path))


def _others(path: Path) -> dict[str, Any]:
    try:
        head, _ = _split(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, InvalidArgument):
        return {}
    front: object = yaml.safe_load(head)
    if not isinstance(front, Mapping):
        return {}
    return {str(k): v for k, v in cast("Mapping[object, Any]", front).items() if k not in _WRITTEN}


def read_directory(directory: Path, *, source: str) -> tuple[list[AgentSpec], list[str]]:
    """The agents whose files lie in `directory`, by id, and a warning for each file that is none."""
    agents: list[AgentSpec] = []
    warnings: list[str] = []
    for path in sorted(_markdown(directory)):
        try:
            spec = read_file(path, source=source)
        except (InvalidArgument, StorageFailed) as error:
            warnings.append(error.message)
        else:
            if spec is not None:
                agents.append(spec)
    return agents, warnings


def _markdown(directory: Path) -> Iterable[Path]:
    if not directory.is_dir():
        return []
    return (path for path in directory.iterdir() if path.suffix == ".md" and not path.name.startswith("."))


def read_file(path: Path, *, source: str) -> AgentSpec | None:
    """The agent in one file, None if there is no such file; raises InvalidArgument naming it, StorageFailed."""
    try:
        text = path.read_text(encoding="utf-8")
        modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise InvalidArgument(f"The agent file {path.name} can't be used: it is not UTF-8 text.") from None
    except OSError as error:
        raise StorageFailed(f"The agent file {path.name} can't be read: {error.strerror}.") from error
    try:
        spec = parse(text, agent_id=parse_agent_id(path.stem), source=source)
    except InvalidArgument as error:
        reason = error.message.rstrip(".")
        raise InvalidArgument(f"The agent file {path.name} can't be used: {reason}.") from None
    return spec.model_copy(
        update={"created_at": spec.created_at or modified, "updated_at": spec.updated_at or modified}
    )
