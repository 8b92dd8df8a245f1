"""The loop on which agents run: a thread of its own, so that the protocol stays awake whatever an agent does."""

import asyncio
import functools
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 64  # a synchronous tool, or a stream of a client without asyncio, holds one while it runs
_OWN_THREADS = 32  # for the engine's own work, which is short

_left: set[asyncio.Task[Any]] = set()
"""What still ran when its loop was stopped. Kept to the end of the process: asyncio complains of what is collected."""


class AgentLoop:
    """An asyncio loop in a thread, started at the first use."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(_THREADS, "agents"))
        self._own = ThreadPoolExecutor(_OWN_THREADS, "turns")
        self._thread = threading.Thread(target=self._run, name="agents", daemon=True)
        self._start = threading.Lock()
        self._stopped = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly

    def call(self, function: Callable[[], object]) -> None:
        """Runs `function` on the loop, after everything that was asked for before. Any thread; does not wait."""
        with self._start:
            if not self._thread.is_alive():
                self._thread.start()
        self._loop.call_soon_threadsafe(function)

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Runs a coroutine on the loop. Any thread."""
        future: Future[T] = Future()

        async def run() -> None:
            try:
                result = await coroutine
            except BaseException as error:
                _settle(future, error=error)
                if not isinstance(error, Exception):
                    raise
            else:
                _settle(future, result=result)

        def start() -> None:
            task = self._loop.create_task(run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self.call(start)
        return future

    def time(self) -> float:
        """The loop's clock, in seconds."""
        return self._loop.time()

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `asyncio.to_thread`, in threads that no tool and no stream can hold: asks are taken, and turns end, also
        while all others are held. To be awaited on the loop."""
        return await self._loop.run_in_executor(self._own, functools.partial(function, *args, **kwargs))

    def _run(self) -> None:
        """Runs the loop until it is stopped. SystemExit in a callback would end it, and every turn would hang."""
        while not self._stopped.is_set():
            try:
                self._loop.run_forever()
            except SystemExit:
                logger.exception("something on the agents' loop called for the end of the process")

    def stop(self) -> None:
        """Ends the loop. What still runs on it is left where it is."""
        self._stopped.set()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=5)
        if not self._thread.is_alive():
            _left.update(asyncio.all_tasks(self._loop))
            self._loop.close()


def _settle(future: "Future[T]", *, result: Any = None, error: BaseException | None = None) -> None:
    if not future.set_running_or_notify_cancel():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
