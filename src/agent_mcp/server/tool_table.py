"""Functions become MCP tools: strict arguments, compact schemas, one map of errors."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from mcp.server import ServerRequestContext
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata, func_metadata
from mcp_types import CallToolResult, Icon, InputRequiredResult, ResourceLink, TextContent, Tool, ToolAnnotations
from pydantic import BaseModel, ValidationError

from agent_mcp.arguments import explain, suggest
from agent_mcp.domain import Caller, TurnId
from agent_mcp.errors import AgentMcpError, InvalidArgument
from agent_mcp.server.cancels import Cancels
from agent_mcp.service import Service

logger = logging.getLogger(__name__)

Context = ServerRequestContext[Any, Any]


APPROVAL_KEY = "approval"
"""Under this key a client sends a person's decision on 2026-07-28."""
HANDSHAKE_LAST = "2025-11-25"
"""The last revision with a handshake: later ones have no requests from the server."""
_LINKS_SINCE = "2025-06-18"
"""The revision that knows resource links in results: an older one would take the whole result for broken."""
IDEMPOTENCY_KEY = "agent-mcp/idempotency-key"
"""The key of a request's `_meta` under which a repetition is recognised."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A person's decision that a repeated request brings, and on what: the state that the first answer carried."""

    turn_id: TurnId
    digest: str
    round_number: int
    approve: bool | None


@dataclass(kw_only=True)
class Call:
    """One request to a tool: the service, who calls, and MCP's context of the request."""

    service: Service
    caller: Caller
    context: Context
    cancels: Cancels
    decision: Decision | None = None
    may_ask: bool = True  # whether the host's person may be asked in this request (again)
    step: int = 0
    task_after: float | None = None  # seconds after which a turn that still works is handed back as a task
    is_task: bool = False

    @property
    def idempotency_key(self) -> str | None:
        key = (self.context.meta or {}).get(IDEMPOTENCY_KEY)
        if key is not None and not isinstance(key, str):
            raise InvalidArgument(f"The idempotency key in _meta (`{IDEMPOTENCY_KEY}`) must be a text.")
        return key

    @property
    def round_number(self) -> int:
        return self.decision.round_number if self.decision else 0


ToolFunction = Callable[..., Awaitable[BaseModel | InputRequiredResult]]
"""`async def tool(call: Call, argument: Annotated[...], ...) -> Model`; its docstring is the tool's description."""


class _Entry(NamedTuple):
    tool: Tool
    function: ToolFunction
    metadata: FuncMetadata
    text: Callable[[BaseModel], str]
    link: Callable[[BaseModel], ResourceLink | None]


class ToolTable:
    """The tools by name."""

    def __init__(self) -> None:
        self._tools: dict[str, _Entry] = {}

    def add(
        self,
        function: ToolFunction,
        *,
        title: str,
        text: Callable[[BaseModel], str] = lambda result: result.model_dump_json(exclude_none=True),
        link: Callable[[BaseModel], ResourceLink | None] = lambda result: None,
        icons: list[Icon] | None = None,
        reads: bool = False,
        destroys: bool = False,
        repeats: bool = False,
        open_world: bool = False,
    ) -> None:
        """Adds a function. `text` makes the model's text of a result, `link` points to what can be read besides; the
        flags are MCP's annotations."""
        metadata = func_metadata(function, skip_names=["call"], structured_output=True)
        metadata.arg_model.model_config["extra"] = "forbid"
        metadata.arg_model.model_rebuild(force=True)
        tool = Tool(
            name=function.__name__,
            title=title,
            description=" ".join((function.__doc__ or "").split()),
            input_schema=_published(metadata.arg_model.model_json_schema(by_alias=True), absent_null=True),
            output_schema=_published(metadata.output_schema or {}, absent_null=False),
            annotations=ToolAnnotations(
                read_only_hint=reads,
                destructive_hint=destroys,
                idempotent_hint=reads or repeats,
                open_world_hint=open_world,
            ),
            icons=icons,
        )
        self._tools[tool.name] = _Entry(tool, function, metadata, text, link)

    def list_tools(self) -> list[Tool]:
        return [entry.tool for entry in self._tools.values()]

    async def run(self, name: str, arguments: Mapping[str, Any], call: Call) -> CallToolResult | InputRequiredResult:
        """Runs one tool. What goes wrong becomes an error result that says what to do next, never an exception."""
        try:
            if name not in self._tools:
                raise InvalidArgument(f"There is no tool {name[:60]!r}. {suggest(name, self._tools)}")
            entry = self._tools[name]
            result = await entry.function(call, **_parsed(name, entry.metadata, arguments))
            if isinstance(result, InputRequiredResult):
                return result
        except AgentMcpError as error:
            return _error(f"{error.message} [{error.code}]")
        except Exception:
            logger.exception("the tool %s failed", name)
            return _error(
                f"The server failed in {name}; its log has the reason. Nothing is known to be lost. [internal]"
            )
        link = entry.link(result) if call.context.protocol_version >= _LINKS_SINCE else None
        return CallToolResult(
            content=[TextContent(type="text", text=entry.text(result)), *([link] if link else [])],
            structured_content=result.model_dump(mode="json", by_alias=True),
        )


def _error(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _parsed(name: str, metadata: FuncMetadata, arguments: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in arguments.items() if value is not None}  # null means absent
    try:
        return metadata.arg_model.model_validate(given).model_dump_one_level()
    except ValidationError as error:
        known = list(metadata.arg_model.model_fields)
        reasons = (explain(name, known, dict(e), field=".".join(map(str, e["loc"]))) for e in error.errors()[:3])
        raise InvalidArgument(" ".join(reasons)) from None


def _published(schema: Mapping[str, Any], *, absent_null: bool) -> dict[str, Any]:
    """The schema as it is sent: without generated titles; arguments that may be absent without their null.

    What a result leaves to its default says nothing to a reader, for results are sent whole.

    A null is taken for absent all the same: not to offer it saves every client tokens, and spares those whose models
    know no unions.
    """

    def clean(node: object, *, names: bool = False) -> object:
        if isinstance(node, list):
            return [clean(item) for item in cast("list[object]", node)]
        if not isinstance(node, dict):
            return node
        items = cast("dict[str, object]", node)
        kept = {
            key: clean(value, names=key in ("properties", "$defs"))
            for key, value in items.items()
            if names or not (key == "title" or (key == "default" and (value is None or not absent_null)))
        }
        options = kept.get("anyOf")
        if isinstance(options, list):
            rest = [option for option in cast("list[object]", options) if option != {"type": "null"}]
            if len(rest) == 1 and (absent_null or rest[0] != options):
                merged = {k: v for k, v in kept.items() if k != "anyOf"} | cast("dict[str, object]", rest[0])
                if absent_null:
                    return merged
                if isinstance(merged.get("type"), str) and "enum" not in merged and "$ref" not in merged:
                    return merged | {"type": [merged["type"], "null"]}
        return kept

    return cast("dict[str, Any]", clean(dict(schema)))
