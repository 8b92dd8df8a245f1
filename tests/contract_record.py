"""What front-door tests used and saw of the tools, and what of the tools' schemas they did not.

Every client of `conftest.connect` records into `RECORD`, whatever a test calls it with. At the end of a whole run
conftest holds the record against the schemas that the server publishes.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from mcp.client import Client
from mcp_types import CallToolResult, TextContent, Tool
from pydantic import TypeAdapter

Schema = Mapping[str, Any]
Path = tuple[str, ...]
"""Where a value stands: the tool, then the fields down to it; `[]` is any item of a list."""

_CODE = re.compile(r"\[([a-z_]+)\]$")
_LONGEST_VALUE = 40
"""Longer texts are no status."""


@dataclass
class Record:
    """What was used with success and what was shown, since the run began."""

    arguments: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    fields: set[Path] = field(default_factory=set[Path])
    values: set[tuple[Path, str]] = field(default_factory=set[tuple[Path, str]])
    codes: set[str] = field(default_factory=set[str])

    def take(self, tool: str, arguments: Mapping[str, Any], result: CallToolResult) -> None:
        """Takes up one call. Arguments count where they worked, fields where they held something."""
        if result.is_error:
            text = "\n".join(part.text for part in result.content if isinstance(part, TextContent))
            if found := _CODE.search(text):
                self.codes.add(found[1])
            return
        for name, value in arguments.items():
            if value is not None:
                self.arguments.add((tool, name))
                self._take_value((f"{tool}()", name), value)
        self._take_fields((tool,), result.structured_content)

    def _take_fields(self, path: Path, value: object) -> None:
        if isinstance(value, dict):
            for name, inner in cast("dict[str, object]", value).items():
                if inner not in (None, "", [], {}):
                    self.fields.add((*path, name))
                    self._take_fields((*path, name), inner)
        elif isinstance(value, list):
            for item in cast("list[object]", value):
                self._take_fields((*path, "[]"), item)
        else:
            self._take_value(path, value)

    def _take_value(self, path: Path, value: object) -> None:
        if isinstance(value, str) and len(value) <= _LONGEST_VALUE:
            self.values.add((path, value))

    def dump(self) -> str:
        """All of it as JSON, to be handed to another process."""
        return _RECORD.dump_json(self).decode()

    def merge(self, dumped: str) -> None:
        """Adds what another process recorded; an empty text is nothing."""
        if dumped:
            other = _RECORD.validate_json(dumped)
            self.arguments |= other.arguments
            self.fields |= other.fields
            self.values |= other.values
            self.codes |= other.codes


_RECORD = TypeAdapter(Record)


RECORD = Record()
"""The run's record."""


class RecordingClient(Client):
    """A real client that keeps a record of what its tools were used for."""

    async def call_tool(self, name: str, arguments: dict[str, Any] | None = None, *args: Any, **kwargs: Any) -> Any:
        result = await super().call_tool(name, arguments, *args, **kwargs)
        if isinstance(result, CallToolResult):  # pyright: ignore[reportUnnecessaryIsInstance] extensions add kinds
            RECORD.take(name, arguments or {}, result)
        return result


@dataclass(frozen=True, kw_only=True)
class _Field:
    """One field of a result's schema. `shape` is the object it stands in: its fields with their schemas."""

    path: Path
    schema: str
    shape: frozenset[tuple[str, str]]
    enum: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.path[-1]

    def is_kin_of(self, other: "_Field") -> bool:
        """Whether both are the same field of the same type, also where one tool's type has more fields."""
        same = self.name == other.name and self.schema == other.schema
        return same and (self.shape <= other.shape or other.shape <= self.shape)


def uncovered(tools: Iterable[Tool], codes: Iterable[str], record: Record = RECORD) -> list[str]:
    """One line for each argument, field, value and error code that no test used or showed."""
    tools = list(tools)
    fields = [
        found for tool in tools for found in _fields(tool.output_schema or {}, tool.output_schema or {}, tool.name)
    ]
    lines = [line for tool in tools for line in _uncovered_arguments(tool, record)]
    judged: set[Path] = set()
    for one in fields:
        if one.path in judged:
            continue
        kin = [other for other in fields if one.is_kin_of(other)]
        judged.update(other.path for other in kin)
        where = ", ".join(sorted({".".join(other.path) for other in kin}))
        if not any(other.path in record.fields for other in kin):
            lines.append(f"the field {one.name!r} was never shown filled ({where})")
        lines += [
            f"the value {value!r} of {one.name!r} was never shown ({where})"
            for value in one.enum
            if not any((other.path, value) in record.values for other in kin)
        ]
    lines += [f"the error code [{code}] was never shown" for code in sorted(set(codes) - record.codes)]
    return lines


def undeclared(tools: Iterable[Tool], record: Record = RECORD) -> list[str]:
    """One line for each field that was shown and stands in no schema."""
    lines: list[str] = []
    for tool in tools:
        root = tool.output_schema or {}
        known = {found.path for found in _fields(root, root, tool.name)}
        free = set(_free_objects(root, root, (tool.name,)))
        for path in sorted(record.fields):
            below = any(path[: len(one)] == one and len(path) > len(one) for one in free)
            if path[0] == tool.name and path not in known and not below:
                lines.append(f"{'.'.join(path)} was shown and stands in no schema")
    return lines


def _uncovered_arguments(tool: Tool, record: Record) -> Iterator[str]:
    properties: Mapping[str, Schema] = tool.input_schema.get("properties", {})
    for name, schema in properties.items():
        if (tool.name, name) not in record.arguments:
            yield f"the argument {name!r} of {tool.name} was never used"
        for value in schema.get("enum", ()):
            if ((f"{tool.name}()", name), value) not in record.values:
                yield f"the value {value!r} of {tool.name}'s argument {name!r} was never used"


def _fields(schema: Schema, root: Schema, *path: str) -> Iterator[_Field]:
    for resolved in _alternatives(schema, root):
        properties: Mapping[str, Schema] = resolved.get("properties", {})
        shape = frozenset((name, _text(inner, root)) for name, inner in properties.items())
        for name, inner in properties.items():
            enum = tuple(value for one in _alternatives(inner, root) for value in one.get("enum", ()) if value)
            yield _Field(path=(*path, name), schema=_text(inner, root), shape=shape, enum=enum)
            yield from _fields(inner, root, *path, name)
        if "items" in resolved:
            yield from _fields(resolved["items"], root, *path, "[]")


def _free_objects(schema: Schema, root: Schema, path: Path) -> Iterator[Path]:
    """Where objects stand that may hold anything, such as the arguments of a tool call."""
    for resolved in _alternatives(schema, root):
        if resolved.get("type") == "object" and "properties" not in resolved:
            yield path
        for name, inner in resolved.get("properties", {}).items():
            yield from _free_objects(inner, root, (*path, name))
        if "items" in resolved:
            yield from _free_objects(resolved["items"], root, (*path, "[]"))


def _alternatives(schema: Schema, root: Schema) -> list[Schema]:
    """The schema with references followed, and each of its alternatives by itself."""
    if "$ref" in schema:
        target: Any = root
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            target = target[part]
        return _alternatives(target, root)
    options: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or []
    return [found for option in options for found in _alternatives(option, root)] if options else [schema]


def _text(schema: Schema, root: Schema) -> str:
    """A field's schema as text, with what it refers to; descriptions don't count."""

    def plain(node: Any) -> Any:
        if isinstance(node, list):
            return [plain(item) for item in cast("list[Any]", node)]
        if not isinstance(node, dict):
            return node
        items = cast("dict[str, Any]", node)
        if "$ref" in items:
            return [plain(one) for one in _alternatives(items, root)]
        return {key: plain(value) for key, value in items.items() if key not in ("description", "default")}

    return json.dumps(plain(dict(schema)), sort_keys=True)
