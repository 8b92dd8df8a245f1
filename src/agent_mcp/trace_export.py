"""What of a trace leaves the process: how long what took, and how it ended. Nothing that anybody said or named.

Strands writes prompts, replies, arguments and results of tools and searches of memory into its spans, as events and,
where the environment asks for it, as attributes; exceptions quote them. Here a span is copied with what is listed and
nothing else, before it is queued for any exporter: what is not known is not sent.
"""

from __future__ import annotations

import re
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanContext, Status

TURN_ID = "agent_mcp.turn_id"
"""Set by whoever builds an agent: the one thing by which a trace and a turn's record are found from each other."""

_STRANDS = "strands.telemetry.tracer"
_MCP = "mcp-python-sdk"
_CALL = "tools/call"
_NUMBERS = re.compile(
    r"gen_ai\.usage\.[a-z_.]+|gen_ai\.server\.(time_to_first_token|request\.duration)"
    r"|memory\.[a-z_.]*(count|max_entries|max_search_results)|memory\.injected"
)
_NAMES = {
    TURN_ID,
    "error.type",
    "event_loop.cycle_id",
    "event_loop.parent_cycle_id",
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.system",
    "gen_ai.tool.name",
    "gen_ai.tool.status",
    "mcp.method.name",
    "mcp.protocol.version",
    "rpc.response.status_code",
    "strands.cancellation.type",
}
_NAME = re.compile(r"[A-Za-z0-9_.:/@+-]{1,200}")
"""What a name looks like. Models make some up, and words have spaces between them."""


class WithoutContents(SpanProcessor):
    """Hands on to `inner` what may leave of each span."""

    def __init__(self, inner: SpanProcessor) -> None:
        self._inner = inner

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing: a span that has just begun can still be looked into."""

    def on_end(self, span: ReadableSpan) -> None:
        kept = without_contents(span)
        if kept is not None:
            self._inner.on_end(kept)

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._inner.force_flush(timeout_millis)


class Provider(TracerProvider):
    """A provider of tracers whose processors, whoever adds them, get spans without contents only."""

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        super().add_span_processor(WithoutContents(span_processor))


def without_contents(span: ReadableSpan) -> ReadableSpan | None:
    """A copy of what may leave of a span; None if none of it may."""
    scope = span.instrumentation_scope
    attributes = span.attributes or {}
    if scope is None or not (
        scope.name == _STRANDS or (scope.name == _MCP and attributes.get("mcp.method.name") == _CALL)
    ):
        return None
    kept = {name: value for name, value in attributes.items() if _may_leave(name, value)}
    kind = _CALL if scope.name == _MCP else kept.get("gen_ai.operation.name", "strands")
    return ReadableSpan(
        name=" ".join(str(part) for part in (kind, kept.get("gen_ai.tool.name")) if part),
        context=_bare(span.context),
        parent=_bare(span.parent),
        resource=span.resource,
        attributes=kept,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=scope,
    )


def _may_leave(name: str, value: object) -> bool:
    if isinstance(value, str):
        return name in _NAMES and _NAME.fullmatch(value) is not None
    return isinstance(value, int | float) and _NUMBERS.fullmatch(name) is not None


def _bare(context: SpanContext | None) -> SpanContext | None:
    """The ids of a span, without the state that callers may send along."""
    if context is None:
        return None
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)


def export() -> Provider:
    """Has the spans of this process sent, to where OpenTelemetry's variables say. Raises what can't be used of them.

    What Strands' StrandsTelemetry does, which would import all of Strands before the handshake.
    """
    provider = Provider(
        resource=_resource(),
        shutdown_on_exit=False,
        # What would be left out anyway is not held for as long as a turn runs.
        span_limits=SpanLimits(max_events=0, max_links=0),
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


def _resource() -> Resource:
    found = Resource.create({"service.version": version("agent-mcp")})
    named = str(found.attributes.get("service.name", "unknown_service"))
    return found.merge(Resource({"service.name": "agent-mcp"})) if named.startswith("unknown_service") else found
