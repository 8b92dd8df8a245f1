"""The turn engine: one turn from prompt to reply, as a task of the server that requests only follow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import AsyncFileLock

from agent_mcp.agent_loop import AgentLoop
from agent_mcp.domain import PendingInput, SessionId, TurnId, TurnRecord
from agent_mcp.errors import AgentMcpError, SessionBusy, StorageFailed
from agent_mcp.following import Following, Turn
from agent_mcp.outcomes import CANCELLED, Outcome, completed, failed, timed_out
from agent_mcp.recovery import dismiss, recover_left, refuse_left
from agent_mcp.storage.repair import Repair
from agent_mcp.storage.store import Store
from agent_mcp.tally import Tally
from agent_mcp.turn_queue import Place, TurnQueues
from agent_mcp.turn_steps import Admitted, Ask, Repeated, begin, end, end_unbegun, resume
from agent_mcp.unkept import Step, Unkept

if TYPE_CHECKING:
    from strands import Agent
    from strands.agent import AgentResult

    from agent_mcp.agents import SessionAgent

logger = logging.getLogger(__name__)
T = TypeVar("T")

_GRACE_SECONDS = 2.0
"""How long a turn that is cancelled has to come to its end by itself."""
_DELETE_SECONDS = 15.0
"""How long a deletion waits for the turns of its session to end."""
_TICK_SECONDS = 0.25
"""How often a turn looks whether another process asked for its end, and keeps what the model has written."""
_FREE_SECONDS = 0.5
"""How long the session of a turn that nobody runs may be in use before the turn is left to whoever uses it."""

Ended = Callable[[Admitted, TurnRecord], None]
"""Is told of each turn that has come to its end, before its reply goes out. Blocking, and quick."""
Build = Callable[[Admitted], "SessionAgent"]
"""Makes the Strands agent for a turn. Blocking."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one turn may take: seconds of wall clock, and model calls. Waiting for a person is not counted."""

    seconds: float
    calls: int


class _Cancelled(Exception):
    """The turn was cancelled in a stage that can be interrupted."""


class _OutOfTime(Exception):
    """The turn used up its wall clock. Not TimeoutError, which models and tools raise for reasons of their own."""


class TurnEngine:
    """Runs turns on a loop of its own: in a session one at a time and in order, sessions side by side."""

    def __init__(self, *, build: Build, limits: Limits, ended: Ended, tally: Tally) -> None:
        self._build = build
        self._ended = ended
        self._limits = limits
        self._tally = tally
        self._loop = AgentLoop()
        self._queues = TurnQueues()
        self._turns: dict[TurnId, Turn] = {}
        self._unkept = Unkept(self._loop, self._put_left_to_end)

    def submit(self, ask: Ask) -> Following:
        """Queues a turn, in order of the calls. Does not wait; `Following.admitted` tells whether it was accepted.

        Raises Repeated where this process has the turn already.
        """
        turn = Turn(ask.turn_id, ask.subject, self._tally)
        if self._turns.setdefault(ask.turn_id, turn) is not turn:
            raise Repeated(ask.turn_id)
        self._loop.call(lambda: self._start(turn, ask))
        return Following(self._loop, turn)

    def get(self, turn_id: TurnId) -> Following | None:
        """A turn of this process, be it accepted yet or not."""
        turn = self._turns.get(turn_id)
        return Following(self._loop, turn) if turn is not None else None

    def find(self, turn_id: TurnId) -> Following | None:
        """A turn that this process runs or has queued."""
        turn = self._turns.get(turn_id)
        return Following(self._loop, turn) if turn is not None and turn.record is not None else None

    def turns(self) -> list[Turn]:
        """The turns that this process runs or has queued."""
        return list(self._turns.values())

    def is_running(self, store: Store, record: TurnRecord) -> bool:
        """Whether the turn is open and somebody will end it: this process, or another one that lives. Blocking."""
        if record.process == store.process:
            return record.is_open and record.turn_id in self._turns
        return store.is_running(record)

    async def recover(self, store: Store, record: TurnRecord) -> TurnRecord:
        """Ends an open turn that nobody runs; waits no longer than a moment for a session that is in use."""
        return await asyncio.wrap_future(self._loop.submit(self._recover(store, record)))

    async def refuse(self, store: Store, record: TurnRecord) -> TurnRecord:
        """Ends a turn that waits for somebody's input, and closes its history. Returns the record as it is then.

        Waits no longer than a moment: what was just answered runs, and holds the session for as long.
        """
        return await asyncio.wrap_future(self._loop.submit(self._put_to_end(store, record, refuse_left)))

    async def dismiss(self, store: Store, record: TurnRecord, question: PendingInput) -> TurnRecord:
        """Notes that a person saw what a turn waits for and closed it undecided. Returns the record as it is then."""
        step = partial(dismiss, question=question)
        return await asyncio.wrap_future(self._loop.submit(self._put_to_end(store, record, step)))

    def abandon(self, find_store: Callable[[], Store], turn_id: TurnId) -> None:
        """Cancels a turn in whatever state it is. Does not wait; for where nothing may be awaited any more."""
        self._loop.submit(self._abandon(find_store, turn_id))

    async def delete_session(self, store: Store, subject: str, session_id: SessionId) -> None:
        """Cancels what runs or waits in a session, then deletes it; raises SessionBusy if a turn does not end."""
        await asyncio.wrap_future(self._loop.submit(self._delete_session(store, subject, session_id)))

    async def repair_session(self, store: Store, subject: str, session_id: SessionId) -> Repair:
        """Repairs a session between its turns; raises SessionBusy if one does not end, SessionDamaged."""
        return await asyncio.wrap_future(
            self._loop.submit(self._between_turns(store, subject, session_id, store.repair_session))
        )

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Awaits something on the agents' loop, for what must be undone where it was done."""
        await asyncio.wrap_future(self._loop.submit(work))

    def beside(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        """Runs something that no turn waits for on the agents' loop. Any thread."""
        return self._loop.submit(work)

    async def close(self, *, grace: float) -> None:
        """Gives open turns `grace` seconds to end, then cancels and closes them."""
        if not await self._all_ended(grace):
            for turn in list(self._turns.values()):
                self._loop.call(turn.stop.set)
            await self._all_ended(_GRACE_SECONDS + 3)

    def stop(self) -> None:
        """Ends the loop, once everything is closed."""
        self._loop.stop()

    async def _all_ended(self, seconds: float) -> bool:
        ends = [asyncio.wrap_future(turn.ended) for turn in list(self._turns.values())]
        if not ends:
            return True
        _, pending = await asyncio.wait(ends, timeout=seconds)
        return not pending

    def _start(self, turn: Turn, ask: Ask) -> None:
        try:
            place = self._queues.join((ask.subject, ask.session_id)) if ask.session_id is not None else None
        except AgentMcpError as error:
            del self._turns[turn.turn_id]
            turn.finish(error)
            return
        self._loop.submit(self._run(turn, ask, place))

    async def _run(self, turn: Turn, ask: Ask, place: Place | None) -> None:
        result: TurnRecord | AgentMcpError
        try:
            try:
                admitted = await self._loop.in_thread(ask.admit)
                turn.admit(admitted)
                place = place or self._queues.join((ask.subject, admitted.record.session_id))
                result = await self._in_turn(turn, admitted, place)
            finally:
                if place is not None:
                    place.leave()
        except AgentMcpError as error:
            result = error
        except Exception as error:
            logger.exception("turn %s failed", turn.turn_id)
            result = StorageFailed(f"The turn could not be kept ({type(error).__name__}). Ask again.")
        del self._turns[turn.turn_id]
        turn.finish(result)

    async def _in_turn(self, turn: Turn, admitted: Admitted, place: Place) -> TurnRecord:
        """Waits for the turn and takes it."""
        lock = admitted.store.session_lock(admitted.record.session_id)

        async def wait() -> None:
            await place.front()
            await lock.acquire()

        try:
            await self._interruptible(turn, wait(), seconds=None)
            if turn.stop.is_set() or await self._loop.in_thread(admitted.store.cancel_is_asked, turn.turn_id):
                raise _Cancelled  # It was not seen yet, for the turn's time has only just come.
            return await self._locked(turn, admitted)
        except _Cancelled:
            return await self._break_off(admitted, None)
        except AgentMcpError as error:
            return await self._break_off(admitted, error)
        except Exception as error:
            logger.exception("turn %s failed", turn.turn_id)
            reason = StorageFailed(
                f"The turn broke off ({type(error).__name__}; the server's log says why). The session is usable: "
                "read_transcript shows what was kept of the turn, ask again."
            )
            return await self._break_off(admitted, reason)
        finally:
            await self._release(lock, admitted.store, admitted.record.session_id)

    async def _break_off(self, admitted: Admitted, error: AgentMcpError | None) -> TurnRecord:
        """As `end_unbegun`; where not even that can be written, it is done once it can be."""
        try:
            return await self._loop.in_thread(end_unbegun, admitted, error)
        except Exception as refused:
            if refused is not error:
                self._unkept.add(admitted, lambda store, record: end_unbegun(admitted, error))
            raise (error or refused) from refused

    async def _locked(self, turn: Turn, admitted: Admitted) -> TurnRecord:
        """The turn itself, from settling what was left to settling what it left."""
        turn.is_running = True
        record = await self._loop.in_thread(begin if admitted.response is None else resume, admitted)
        turn.record = record
        if record.is_pending:
            return record  # one answer of several
        start = self._loop.time()
        agent: SessionAgent | None = None
        try:
            agent = await self._loop.in_thread(self._build, admitted)
            turn.has_agent = True
            work = self._stream(turn, agent.agent, record)
            seconds = max(1.0, self._limits.seconds - record.worked_seconds)
            result = await self._interruptible(turn, work, seconds=seconds)
            outcome: Outcome = completed(result, agent, max_calls=self._limits.calls)
        except _Cancelled:
            outcome = CANCELLED
        except _OutOfTime:
            outcome = timed_out(self._limits.seconds)
        except Exception as error:
            outcome = failed(error)
        if agent is not None:
            agent.agent.cancel()  # Tells tools and streams that outlive the turn to stop.
        record = record.model_copy(update={"worked_seconds": record.worked_seconds + self._loop.time() - start})
        record = await self._loop.in_thread(
            end, admitted, record, outcome, agent=agent, partial=turn.partial, calls=turn.calls
        )
        try:
            await self._loop.in_thread(self._ended, admitted, record)
        except Exception:  # What follows from a turn does not change how it ended.
            logger.exception("turn %s is kept, but not what was to follow from it", record.turn_id)
        return record

    async def _interruptible(self, turn: Turn, work: Coroutine[Any, Any, Any], *, seconds: float | None) -> Any:
        """Runs `work` until it is done; raises _Cancelled if the turn is stopped, _OutOfTime after `seconds`.

        Work that does not end within a short grace is left behind: whatever it does then, it can't write any more.
        """
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stopped(turn))
        try:
            await asyncio.wait({task, stop}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                if task.cancelled():
                    raise RuntimeError("what the turn ran was cancelled from inside")
                return task.result()
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            task.cancel()
            await asyncio.wait({task}, timeout=_GRACE_SECONDS)
            if stop.done():
                raise _Cancelled
            raise _OutOfTime
        finally:
            stop.cancel()

    async def _stopped(self, turn: Turn) -> None:
        """Waits until the turn is cancelled, in this process or by a mark that another one left.

        Meanwhile what the model writes is kept from time to time: a kill takes no more than the last moment of it.
        """
        kept = ""
        while not turn.stop.is_set():
            try:
                async with asyncio.timeout(_TICK_SECONDS):
                    await turn.stop.wait()
            except TimeoutError:
                if turn.admission is None:
                    continue
                store = turn.admission.store
                with suppress(StorageFailed, OSError):  # What the disk refuses the turn itself says.
                    if store.cancel_is_asked(turn.turn_id):
                        return
                    if turn.partial != kept:
                        kept = turn.partial
                        await self._loop.in_thread(store.save_partial, turn.turn_id, kept)

    async def _stream(self, turn: Turn, agent: Agent, record: TurnRecord) -> AgentResult:
        prompt: Any = record.prompt
        if record.pending:
            prompt = [
                {"interruptResponse": {"interruptId": item.interrupt_id, "response": item.response}}
                for item in record.pending
            ]
        result: AgentResult | None = None
        calls = max(1, self._limits.calls - record.model_calls)
        async for event in agent.stream_async(prompt, limits={"turns": calls}):
            if "result" in event:
                result = event["result"]
            else:
                turn.take(event)
        assert result is not None, "Strands ends its stream with a result"
        return result

    async def _delete_session(self, store: Store, subject: str, session_id: SessionId) -> None:
        for record in await self._loop.in_thread(store.open_turns, session_id):
            if record.turn_id in self._turns:
                self._turns[record.turn_id].stop.set()
            elif record.is_open:
                await self._loop.in_thread(store.ask_cancel, record.turn_id)
        await self._between_turns(store, subject, session_id, store.remove_session)

    async def _between_turns(
        self, store: Store, subject: str, session_id: SessionId, work: Callable[[SessionId], T]
    ) -> T:
        """Does something blocking to a session while no turn runs in it; raises SessionBusy."""
        place = self._queues.join((subject, session_id))
        lock = store.session_lock(session_id)
        try:
            try:
                async with asyncio.timeout(_DELETE_SECONDS):
                    await place.front()
                    await lock.acquire()
            except TimeoutError:
                raise SessionBusy(
                    f"A turn in the session {session_id!r} does not end: nothing was done, try again later."
                ) from None
            return await self._loop.in_thread(work, session_id)
        finally:
            place.leave()
            await self._release(lock, store, session_id)

    async def _release(self, lock: AsyncFileLock, store: Store, session_id: SessionId) -> None:
        """Lets go of a session's lock, if it is held; of a session that is gone not even that is left."""
        if lock.is_locked:
            await self._loop.in_thread(store.clear_session_lock, session_id)
            await lock.release()

    async def _abandon(self, find_store: Callable[[], Store], turn_id: TurnId) -> None:
        turn = self._turns.get(turn_id)
        if turn is not None:
            turn.stop.set()
            await asyncio.wait({asyncio.wrap_future(turn.ended)})
        store = await self._loop.in_thread(find_store)
        record = await self._loop.in_thread(store.find_turn, turn_id)
        if record is not None and record.is_pending:
            await self._put_to_end(store, record, refuse_left)
        elif record is not None and record.is_open:
            await self._loop.in_thread(store.ask_cancel, turn_id)

    async def _recover(self, store: Store, record: TurnRecord) -> TurnRecord:
        return await self._put_left_to_end(store, record, self._unkept.step(record.turn_id) or recover_left)

    async def _put_left_to_end(self, store: Store, record: TurnRecord, step: Step) -> TurnRecord:
        """As `_put_to_end`, for a turn that nobody runs."""
        current = await self._loop.in_thread(store.find_turn, record.turn_id)
        if current is not None and current.first_message is None:
            # It never came to its session, whoever uses that now: nothing there to settle, and no lock to wait for.
            return await self._loop.in_thread(step, store, current)
        return await self._put_to_end(store, record, step)

    async def _put_to_end(self, store: Store, record: TurnRecord, step: Step) -> TurnRecord:
        """Takes `step` under the session's lock, unless that is held for long; returns the record as it is then."""
        lock = store.session_lock(record.session_id)
        try:
            await lock.acquire(timeout=_FREE_SECONDS)
        except TimeoutError:
            # Somebody decided at this moment, and the turn goes on.
            return await self._loop.in_thread(store.find_turn, record.turn_id) or record
        try:
            current = await self._loop.in_thread(store.find_turn, record.turn_id)
            return await self._loop.in_thread(step, store, current) if current else record
        finally:
            await self._release(lock, store, record.session_id)
