"""The work that memory does behind the replies: on the agents' loop, one job at a time for each subject."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol, TypeVar

from agent_mcp.memory.queue import Job
from agent_mcp.memory.room import MemoryRoom
from agent_mcp.storage.store import Store

T = TypeVar("T")

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 30.0
"""When a queue that could not be read or written is looked at again."""

Submit = Callable[[Coroutine[Any, Any, None]], "Future[None]"]
"""Runs a coroutine on the agents' loop, from any thread."""


class Doing(Protocol):
    """Does one job; raises what it failed with, and then it is tried again later."""

    async def __call__(self, store: Store, subject: str, job: Job) -> None: ...


class Worker:
    """Works the queues off. Nothing waits for it: what it does not come to is done at the next start."""

    def __init__(self, *, room: MemoryRoom, submit: Submit, do: Doing) -> None:
        self._room = room
        self._submit = submit
        self._do = do
        self._lock = threading.Lock()
        self._running: dict[str, Future[None]] = {}
        self._again: set[str] = set()
        self._closed = False
        self.keeps_up = False
        """Whether what earlier processes left is done too: in a server, not in a command that is over in a moment."""

    def keep_up(self, store: Store, subject: str) -> None:
        """Has done what may wait in a subject's queue, in a process that keeps up. Any thread; does not wait.

        To be told of every store that is opened, and of all that may have put something into the queue.
        """
        if self.keeps_up:
            self.start(store, subject)

    def start(self, store: Store, subject: str) -> None:
        """Sees to it that the subject's queue is worked off. Any thread; does not wait."""
        with self._lock:
            self._again.add(subject)
            if subject not in self._running and not self._closed:
                # Of the whole subject: jobs of other actors wait there too.
                self._running[subject] = self._submit(self._run(store.whole, subject))

    async def idle(self, seconds: float) -> None:
        """Waits until nothing is being done, not longer than some seconds."""
        waiting = [asyncio.wrap_future(running) for running in list(self._running.values())]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)

    def close(self) -> None:
        """Begins nothing more. What is in hand is left where it is: the next process takes it up."""
        with self._lock:
            self._closed = True

    async def _run(self, store: Store, subject: str) -> None:
        while True:
            self._again.discard(subject)
            try:
                due = await self._work_off(store, subject)
            except Exception:  # the disk is full, another process holds the file: it will be otherwise
                logger.warning("the memory's queue can't be worked off, it is tried again", exc_info=True)
                due = AGAIN_SECONDS
            with self._lock:
                if subject in self._again and not self._closed:
                    continue
                del self._running[subject]
            if due is not None and not self._closed:
                asyncio.get_running_loop().call_later(due + 0.05, self.start, store, subject)
            return

    async def _work_off(self, store: Store, subject: str) -> float | None:
        """Does what is due, and returns in how many seconds something more will be."""
        queue = await self._in_thread(lambda: self._room.of(store, subject).queue)
        while not self._closed:
            job = await self._in_thread(lambda: queue.take(store.process, lives=store.lives))
            if job is None:
                return await self._in_thread(queue.due_in)
            try:
                await self._do(store, subject, job)
            except Exception as error:  # a model, a service or a library: it is tried again
                logger.warning("memory: %s of %s failed (%s), tried again later", job.kind, job.key, error)
                await self._in_thread(partial(queue.put_off, job))
        return None

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._room.executor, function)
