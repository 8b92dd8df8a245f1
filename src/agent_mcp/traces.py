"""Traces of turns for an OpenTelemetry collector, where the operator's environment names one. Without contents."""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

_EXPORTER = "opentelemetry.exporter.otlp.proto.http"
_STOP_SECONDS = 2.0
"""How long the last spans have to be sent. A collector that hangs must not keep the process."""


def start_traces(environ: Mapping[str, str]) -> Callable[[], None] | None:
    """Begins to send traces if OpenTelemetry's variables name an endpoint and none forbids it. Blocking.

    Returns what sends the last ones, for a moment, and ends; None where nothing is sent.
    """
    if not _is_wanted(environ):
        return None
    reason = _lacks(environ)
    if reason is None:
        try:
            from agent_mcp.trace_export import export

            provider = export()
        except Exception as error:  # Of whatever kind a variable is that can't be read: the server works without.
            reason = f"{type(error).__name__}: {error}"
        else:
            return lambda: _end(provider.shutdown)
    logger.warning("no traces are sent: %s", reason)
    return None


def _end(shutdown: Callable[[], None]) -> None:
    # It can take half a minute, and nothing interrupts it.
    ending = threading.Thread(target=shutdown, name="traces", daemon=True)
    ending.start()
    ending.join(_STOP_SECONDS)


def _is_wanted(environ: Mapping[str, str]) -> bool:
    named = any(environ.get(f"OTEL_EXPORTER_OTLP_{kind}ENDPOINT") for kind in ("", "TRACES_"))
    exporters = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    return named and "otlp" in exporters.split(",") and environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


def _lacks(environ: Mapping[str, str]) -> str | None:
    """What stands in the way of sending."""
    for kind in ("TRACES_", ""):
        protocol = environ.get(f"OTEL_EXPORTER_OTLP_{kind}PROTOCOL")
        if protocol and protocol != "http/protobuf":
            return f"OTEL_EXPORTER_OTLP_{kind}PROTOCOL={protocol} is not spoken here: set http/protobuf"
        if protocol:
            break
    try:
        found = importlib.util.find_spec(_EXPORTER)
    except ModuleNotFoundError:
        found = None
    return None if found else "the exporter is not installed: pip install 'strands-agents[otel]'"
