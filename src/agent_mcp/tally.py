"""What this process has counted since it began: turns, how long they took, tokens. Never who asked, or what."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import get_args

from agent_mcp.domain import TurnStatus

BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""The seconds up to which turns are counted together. Some take milliseconds, others use up their limit."""
MOST_MODELS = 50
OTHER = "other"
"""What models are counted as beyond the first `MOST_MODELS`: callers may name them, and what counts must not grow."""
COUNTED = tuple(status for status in get_args(TurnStatus) if status not in ("queued", "working"))
"""How a turn can come to a stop. One that waits for somebody has stopped, and goes on later."""


@dataclass
class Durations:
    """How long turns took: how many up to each bound, the last without one, and their sum in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[sum(seconds > bound for bound in BOUNDS)] += 1
        self.total += seconds

    def up_to(self) -> list[tuple[str, int]]:
        """How many took no longer than each bound."""
        names = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]
        return [(name, sum(self.counts[: number + 1])) for number, name in enumerate(names)]


class Tally:
    """Counts what happens. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._durations = {status: Durations() for status in COUNTED}
        self._failures = Counter[str]()
        self._refusals = Counter[str]()
        self._tokens = Counter[tuple[str, str]]()

    def stopped(self, status: str, *, seconds: float, failure: str | None) -> None:
        """Counts a turn that came to a stop, `seconds` after its ask came; `failure` is the code of its error."""
        with self._lock:
            self._durations[status].add(seconds)
            if failure is not None:
                self._failures[failure] += 1

    def refused(self, code: str) -> None:
        """Counts an ask that became no turn."""
        with self._lock:
            self._refusals[code] += 1

    def spent(self, model: str, *, read: int, written: int) -> None:
        """Counts the tokens of one model call."""
        with self._lock:
            known = {name for name, _ in self._tokens}
            name = model if model in known or len(known) < MOST_MODELS else OTHER
            self._tokens[name, "input"] += read
            self._tokens[name, "output"] += written

    def durations(self) -> dict[str, Durations]:
        """How long turns took, by how they came to a stop."""
        with self._lock:
            return {status: Durations(list(one.counts), one.total) for status, one in self._durations.items()}

    def failures(self) -> dict[str, int]:
        """Turns that failed, by the code of their error."""
        with self._lock:
            return dict(self._failures)

    def refusals(self) -> dict[str, int]:
        """Asks that became no turn, by the code of their error."""
        with self._lock:
            return dict(self._refusals)

    def tokens(self) -> dict[tuple[str, str], int]:
        """Tokens by model, and whether the model read them (`input`) or wrote them (`output`)."""
        with self._lock:
            return dict(self._tokens)
