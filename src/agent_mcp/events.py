"""What a turn tells while it runs, and the way from the agents' loop to whoever follows it on another loop."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TextWritten:
    """A piece of the reply, as the model writes it."""

    text: str


@dataclass(frozen=True)
class ToolStarted:
    name: str


@dataclass(frozen=True)
class ToolEnded:
    name: str
    status: Literal["success", "error"]


@dataclass(frozen=True)
class Retrying:
    """The model's service turned a call down; it is made again after `seconds`. Text since the last call is void."""

    seconds: float


@dataclass(frozen=True)
class StillWorking:
    """Nothing new for a while; the turn runs since `seconds`."""

    seconds: float


Event = TextWritten | ToolStarted | ToolEnded | Retrying | StillWorking

_LONGEST_TEXT = 64 * 1024
_MOST_EVENTS = 256


class Mailbox:
    """Events for one follower: put on the agents' loop, taken on the follower's. Bounded: the oldest are dropped."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._end = asyncio.Event()
        self._lock = threading.Lock()
        self._events: deque[Event] = deque(maxlen=_MOST_EVENTS)

    def put(self, event: Event) -> None:
        """Adds an event; text is joined to text that was not fetched yet. Any thread."""
        with self._lock:
            was_empty = not self._events
            last = self._events[-1] if self._events else None
            if isinstance(event, TextWritten) and isinstance(last, TextWritten):
                self._events[-1] = TextWritten((last.text + event.text)[-_LONGEST_TEXT:])
            else:
                self._events.append(event)
        if was_empty:
            self._call(self._news.set)

    def close(self) -> None:
        """Says that nothing more will come. Any thread."""
        self._call(self._end.set)
        self._call(self._news.set)

    def _call(self, function: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # The follower's loop has ended, and with it the follower.
            self._loop.call_soon_threadsafe(function)

    def _take(self) -> list[Event]:
        with self._lock:
            taken = list(self._events)
            self._events.clear()
        self._news.clear()
        return taken

    async def events(self, *, wait: float, beat: float, pace: float) -> AsyncIterator[Event]:
        """What happens until the mailbox is closed or `wait` seconds are over.

        Pieces that come within `pace` seconds are handed over together; after `beat` seconds without any comes a
        StillWorking.
        """
        start = self._loop.time()
        deadline = start + wait
        while not self._end.is_set():
            if not await _within(self._news, min(deadline, self._loop.time() + beat)):
                if self._loop.time() >= deadline:
                    break
                yield StillWorking(round(self._loop.time() - start))
                continue
            for event in self._take():
                yield event
            await _within(self._end, min(deadline, self._loop.time() + pace))
        for event in self._take():
            yield event


async def _within(event: asyncio.Event, deadline: float) -> bool:
    """Whether `event` was set before the loop's clock came to `deadline`."""
    try:
        async with asyncio.timeout_at(deadline):
            await event.wait()
    except TimeoutError:
        return False
    return True
