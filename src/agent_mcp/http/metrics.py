"""/metrics: what the process has counted, as Prometheus reads it, and who may read it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import HTTPConnection
from starlette.responses import Response

from agent_mcp.errors import Forbidden, Unauthorized
from agent_mcp.http.access import is_loopback, is_named_loopback
from agent_mcp.http.callers import METRICS_PATH, Identify
from agent_mcp.http.problems import problems
from agent_mcp.service import Service

SCOPE = "metrics"
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
"""What proxies add. A request that has any was made elsewhere, whoever handed it on."""
_TEXT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The text format of Prometheus",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}


@dataclass(frozen=True, kw_only=True)
class Readers:
    """Who may read the metrics: this machine, and callers with a token that has the scope `metrics`.

    `identify` finds the caller of a request (None: nobody authenticates here). `behind_proxy` says that requests from
    elsewhere come from this machine too, so that only a token tells.
    """

    identify: Identify | None
    behind_proxy: bool

    async def check(self, request: HTTPConnection) -> None:
        """Raises Unauthorized, Forbidden, RateLimited."""
        if self.identify is None:
            if not _is_local(request):
                raise Unauthorized(
                    "Metrics are for the machine that the server runs on, and this request came from elsewhere or "
                    "through a proxy: read them there, by its loopback address."
                )
        elif self.behind_proxy or "authorization" in request.headers or not _is_local(request):
            await self.identify(request)
            if SCOPE not in request.user.scopes:
                raise Forbidden(
                    f"Your token is not for metrics: bring one that was made with `agent-mcp token add NAME "
                    f"--scope {SCOPE}`."
                )


def _is_local(request: HTTPConnection) -> bool:
    """Whether a request was made on this machine, as far as it tells."""
    return (
        request.client is not None
        and is_loopback(request.client.host)
        and is_named_loopback(request.headers.get("host", ""))
        and not any(name in request.headers for name in _FORWARDED)
    )


class _Counted(Collector):
    """What a service has counted, as families of metrics. No label holds what a caller chose, but for models, and of
    those there are only so many."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        tally, gauges = self._service.tally, self._service.gauges()
        durations = tally.durations()
        yield _counter(
            "agent_mcp_turns",
            "Turns that came to a stop; one that waits for somebody (input_required) may go on",
            {(status,): one.up_to()[-1][1] for status, one in durations.items()},
            "status",
        )
        yield _counter("agent_mcp_turn_failures", "Turns that failed", _by(tally.failures()), "code")
        yield _counter("agent_mcp_asks_refused", "Asks that became no turn", _by(tally.refusals()), "code")
        yield _counter("agent_mcp_tokens", "Tokens of all calls of models", tally.tokens(), "model", "kind")
        seconds = HistogramMetricFamily(
            "agent_mcp_turn_seconds", "From an ask to the stop of its turn, waiting included", labels=["status"]
        )
        for status, one in durations.items():
            seconds.add_metric([status], one.up_to(), one.total)
        yield seconds
        yield GaugeMetricFamily("agent_mcp_turns_waiting", "Asks that wait for their time", gauges.waiting)
        yield GaugeMetricFamily("agent_mcp_turns_running", "Turns that run", gauges.running)
        yield GaugeMetricFamily("agent_mcp_agents", "Strands agents that are held, each for a turn", gauges.agents)
        yield GaugeMetricFamily("agent_mcp_stores_open", "Subjects whose data is held open", gauges.stores)
        info = GaugeMetricFamily("agent_mcp_info", "The version that runs", labels=["version"])
        info.add_metric([version("agent-mcp")], 1)
        yield info


def _by(counts: dict[str, int]) -> dict[tuple[str, ...], int]:
    return {(name,): count for name, count in counts.items()}


def _counter(name: str, text: str, counts: dict[Any, int], *labels: str) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in sorted(counts.items()):
        family.add_metric(values, count)
    return family


def metrics_router(service: Service, readers: Readers) -> APIRouter:
    """The route of a service's metrics. They are of this process, and begin with it."""
    # One of our own: the global one would show what other packages put there.
    registry = CollectorRegistry()
    registry.register(_Counted(service))
    ProcessCollector(registry=registry)
    router = APIRouter(tags=["operation"])

    @router.get(METRICS_PATH, responses={**_TEXT, **problems()}, response_class=Response)
    async def metrics(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction] the route holds it
        """Turns, tokens and what waits, for Prometheus. For this machine, or with a token for it."""
        await readers.check(request)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router
