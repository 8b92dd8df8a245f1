"""What a benchmark returns, and how it is printed."""

import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table: a median in `unit`, beside what it is to be compared with.

    `base` is the value of that in the same unit, `than` says what it is, and `limit` the ratio that must not be
    exceeded, where one was promised.
    """

    what: str
    value: float
    unit: str = "ms"
    base: float | None = None
    than: str = ""
    limit: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.base if self.base else None

    @property
    def holds(self) -> bool:
        """Whether the ratio is within what was promised, if anything was."""
        return self.limit is None or (self.ratio is not None and self.ratio <= self.limit)


def median_ms(call: Callable[[], object], *, times: int, warm_up: int = 3) -> float:
    """The median duration of a call in milliseconds."""
    for _ in range(warm_up):
        call()
    durations: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        durations.append(time.perf_counter() - began)
    return statistics.median(durations) * 1000


async def median_ms_async(call: Callable[[], Awaitable[object]], *, times: int, warm_up: int = 3) -> float:
    """The same of something that is awaited."""
    for _ in range(warm_up):
        await call()
    durations: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        await call()
        durations.append(time.perf_counter() - began)
    return statistics.median(durations) * 1000


async def medians_ms(
    calls: Mapping[str, Callable[[], Awaitable[object]]], *, times: int, warm_up: int = 3
) -> dict[str, float]:
    """The same of several, called in turns, so that what goes on beside them meets all alike."""
    durations: dict[str, list[float]] = {what: [] for what in calls}
    for number in range(warm_up + times):
        for what, call in calls.items():
            began = time.perf_counter()
            await call()
            if number >= warm_up:
                durations[what].append(time.perf_counter() - began)
    return {what: statistics.median(of_one) * 1000 for what, of_one in durations.items()}


def table(figures: Iterable[Figure]) -> str:
    """The figures as a Markdown table."""
    rows: list[Sequence[str]] = [("what", "median", "compared with", "ratio", "promised")]
    rows.append(("---", "---:", "---", "---:", "---:"))
    for figure in figures:
        base = f"{figure.than} ({figure.base:.4g} {figure.unit})" if figure.base is not None else ""
        ratio = f"{figure.ratio:.2f}" if figure.ratio is not None else ""
        promised = "" if figure.limit is None else f"<= {figure.limit:g}{'' if figure.holds else ' (missed)'}"
        rows.append((figure.what, f"{figure.value:.4g} {figure.unit}", base, ratio, promised))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
