"""The turn engine: one turn from prompt to reply, as a task of the server that requests only follow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from agent_mcp.agent_loop import AgentLoop
from agent_mcp.domain import (
    AgentSpec,
    Failure,
    Reply,
    SessionId,
    SessionMeta,
    ToolCall,
    TurnId,
    TurnRecord,
    Usage,
    now,
    reply_of,
)
from agent_mcp.errors import (
    BY_CODE,
    AgentMcpError,
    ModelFailed,
    SessionNotFound,
    StorageFailed,
    TurnInterrupted,
    TurnTimeout,
)
from agent_mcp.events import Event, Mailbox, Retrying, StillWorking, TextWritten, ToolEnded, ToolStarted
from agent_mcp.models import ModelRef
from agent_mcp.recovery import recover
from agent_mcp.settle import INTERRUPTED, settle
from agent_mcp.storage.history import History
from agent_mcp.storage.store import Store
from agent_mcp.turn_queue import Place, TurnQueues

if TYPE_CHECKING:
    from strands import Agent
    from strands.agent import AgentResult

    from agent_mcp.agents import SessionAgent

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 2.0
"""How long a turn that is cancelled has to come to its end by itself."""
_MARK_SECONDS = 0.25
"""How often a turn looks whether another process asked for its end."""
_TITLE_LENGTH = 80


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """An ask that was found valid: where, with which agent and model, and the record that was written of it."""

    store: Store
    spec: AgentSpec
    model: ModelRef
    record: TurnRecord


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request for a turn. `admit` is called off the loops, once the turn has its place in its session's queue.

    `session_id` is None where the session is still to be made, so that nobody can be waiting in it.
    """

    turn_id: TurnId
    subject: str
    session_id: SessionId | None
    admit: Callable[[], Admitted]


Build = Callable[[AgentSpec, ModelRef, History, Store], "SessionAgent"]
"""Makes the Strands agent for a turn. Blocking."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one turn may take: seconds of wall clock, and model calls."""

    seconds: float
    calls: int


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    status: str
    stop_reason: str | None = None
    response: str | None = None
    note: str = INTERRUPTED
    failure: AgentMcpError | None = None


class _Cancelled(Exception):
    """The turn was cancelled in a stage that can be interrupted."""


class Turn:
    """A turn of this process. Its fields are changed on the agents' loop only."""

    def __init__(self, turn_id: TurnId) -> None:
        self.turn_id = turn_id
        self.admitted: Future[TurnRecord] = Future()
        self.ended: Future[TurnRecord] = Future()
        self.admission: Admitted | None = None
        self.record: TurnRecord | None = None
        self.text = ""  # all that the model wrote in this turn so far
        self.partial = ""  # the part of it whose message is not complete
        self.calls: dict[str, ToolCall] = {}
        self.stop = asyncio.Event()
        self._followers: set[Mailbox] = set()

    def tell(self, event: Event) -> None:
        for mailbox in self._followers:
            mailbox.put(event)

    def follow(self, mailbox: Mailbox) -> None:
        if self.ended.done():
            mailbox.close()
            return
        if self.text:
            mailbox.put(TextWritten(self.text))
        self._followers.add(mailbox)

    def leave(self, mailbox: Mailbox) -> None:
        self._followers.discard(mailbox)

    def finish(self, result: TurnRecord | Exception) -> None:
        for future in (self.admitted, self.ended):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
        for mailbox in self._followers:
            mailbox.close()

    def take(self, event: dict[str, Any]) -> None:
        """Takes up one event of Strands' stream."""
        if "data" in event:
            self.text += event["data"]
            self.partial += event["data"]
            self.tell(TextWritten(event["data"]))
        elif "event_loop_throttled_delay" in event:
            self.text = self.text.removesuffix(self.partial)
            self.partial = ""
            self.tell(Retrying(float(event["event_loop_throttled_delay"])))
        elif "message" in event:
            self.partial = ""
            for block in event["message"]["content"]:
                self._take_block(block)

    def _take_block(self, block: dict[str, Any]) -> None:
        if "toolUse" in block:
            use = block["toolUse"]
            given = use["input"] if isinstance(use["input"], dict) else {"input": use["input"]}
            self.calls[use["toolUseId"]] = ToolCall(name=use["name"], arguments=cast("dict[str, Any]", given))
            self.tell(ToolStarted(use["name"]))
        elif "toolResult" in block:
            result = block["toolResult"]
            call = self.calls.get(result["toolUseId"])
            if call is not None:
                status = "success" if result["status"] == "success" else "error"
                self.calls[result["toolUseId"]] = call.model_copy(update={"status": status})
                self.tell(ToolEnded(call.name, status))


class Following:
    """A request's view of a turn of this process."""

    def __init__(self, loop: AgentLoop, turn: Turn) -> None:
        self._loop = loop
        self._turn = turn

    @property
    def turn_id(self) -> TurnId:
        return self._turn.turn_id

    async def admitted(self) -> TurnRecord:
        """The turn's record once it is accepted and queued; raises what the ask was refused for."""
        future = asyncio.wrap_future(self._turn.admitted)
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be waiting any more
        return await asyncio.shield(future)

    async def events(self, *, wait: float, beat: float = 10.0, pace: float = 0.2) -> AsyncIterator[Event]:
        """What happens in the turn until it ends or `wait` seconds are over. See Mailbox.events."""
        mailbox = Mailbox()
        self._loop.call(lambda: self._turn.follow(mailbox))
        try:
            async for event in mailbox.events(wait=wait, beat=beat, pace=pace):
                yield event
        finally:
            self._loop.call(lambda: self._turn.leave(mailbox))

    def reply(self) -> Reply:
        """The reply, or how far the turn has come; raises the error of a turn that failed."""
        if self._turn.ended.done():
            return reply_or_raise(self._turn.ended.result())
        record = self._turn.record
        assert record is not None, "a turn is followed only once it is admitted"
        return reply_of(record, text_so_far=self._turn.text)

    def cancel(self) -> None:
        """Cancels the turn. Does not wait, and can be called where nothing may be awaited any more."""
        self._loop.call(self._turn.stop.set)


def reply_or_raise(record: TurnRecord) -> Reply:
    """The reply of a record; raises its failure again, as it was raised at first."""
    if record.failure is not None:
        raise BY_CODE.get(record.failure.code, TurnInterrupted)(record.failure.message)
    return reply_of(record)


class Watching:
    """A request's view of a turn by its record: of one that has ended, or that another process runs."""

    def __init__(self, engine: TurnEngine, store: Store, record: TurnRecord) -> None:
        self._engine = engine
        self._store = store
        self._record = record

    @property
    def turn_id(self) -> TurnId:
        return self._record.turn_id

    async def events(self, *, wait: float, beat: float = 10.0, pace: float = 0.2) -> AsyncIterator[Event]:
        """Signs of life until the turn ends or `wait` seconds are over; a turn whose process died is ended here."""
        clock = asyncio.get_running_loop().time
        start = said = clock()
        while self._record.is_open:
            if not await asyncio.to_thread(self._engine.is_running, self._store, self._record):
                self._record = await self._engine.recover(self._store, self._record)
                if not self._record.is_open:
                    return
            if clock() - start >= wait:
                return
            if clock() - said >= beat:
                said = clock()
                yield StillWorking(round(said - start))
            await asyncio.sleep(min(pace, max(0.0, start + wait - clock())))
            self._record = await asyncio.to_thread(self._store.find_turn, self.turn_id) or self._record

    def reply(self) -> Reply:
        """The reply, or that the turn still works; raises the error of a turn that failed."""
        return reply_or_raise(self._record)

    def cancel(self) -> None:
        """Asks the process that runs the turn to cancel it."""
        if self._record.is_open:
            self._store.ask_cancel(self.turn_id)


class TurnEngine:
    """Runs turns on a loop of its own: in a session one at a time and in order, sessions side by side."""

    def __init__(self, *, build: Build, limits: Limits) -> None:
        self._build = build
        self._limits = limits
        self._loop = AgentLoop()
        self._queues = TurnQueues()
        self._turns: dict[TurnId, Turn] = {}

    def submit(self, ask: Ask) -> Following:
        """Queues a turn, in order of the calls. Does not wait; `Following.admitted` tells whether it was accepted."""
        turn = Turn(ask.turn_id)
        self._turns[ask.turn_id] = turn
        self._loop.call(lambda: self._start(turn, ask))
        return Following(self._loop, turn)

    def find(self, turn_id: TurnId) -> Following | None:
        """A turn that this process runs or has queued."""
        turn = self._turns.get(turn_id)
        return Following(self._loop, turn) if turn is not None and turn.record is not None else None

    def is_running(self, store: Store, record: TurnRecord) -> bool:
        """Whether the turn is open and somebody will end it: this process, or another one that lives. Blocking."""
        if record.process == store.process:
            return record.is_open and record.turn_id in self._turns
        return store.is_running(record)

    async def recover(self, store: Store, record: TurnRecord) -> TurnRecord:
        """Ends an open turn of a dead process; waits no longer than a moment for a session that is in use."""
        return await asyncio.wrap_future(self._loop.submit(self._recover(store, record)))

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
        result: TurnRecord | Exception
        try:
            try:
                admitted = await self._loop.in_thread(ask.admit)
                turn.admission, turn.record = admitted, admitted.record
                turn.admitted.set_result(admitted.record)
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
            return await self._locked(turn, admitted)
        except _Cancelled:
            return await self._loop.in_thread(_end_unbegun, admitted, None)
        except AgentMcpError as error:
            return await self._loop.in_thread(_end_unbegun, admitted, error)
        finally:
            if lock.is_locked:
                await lock.release()

    async def _locked(self, turn: Turn, admitted: Admitted) -> TurnRecord:
        """The turn itself, from settling what was left to settling what it left."""
        meta, record = await self._loop.in_thread(_begin, admitted)
        turn.record = record
        history = admitted.store.history(meta)
        agents: list[SessionAgent] = []
        outcome = await self._attempt(turn, admitted, history, agents)
        return await self._loop.in_thread(_end, turn, admitted, record, history, outcome, agents)

    async def _attempt(self, turn: Turn, admitted: Admitted, history: History, agents: list[SessionAgent]) -> _Outcome:
        try:
            built = await self._loop.in_thread(self._build, admitted.spec, admitted.model, history, admitted.store)
            agents.append(built)
            result = await self._interruptible(
                turn, self._stream(turn, built.agent, admitted.record.prompt), seconds=self._limits.seconds
            )
        except _Cancelled:
            return _Outcome(status="cancelled", stop_reason="cancelled")
        except TimeoutError:
            text = f"The turn was stopped after {self._limits.seconds:g} s. What it had done is kept; ask again."
            return _Outcome(status="failed", failure=TurnTimeout(text))
        except Exception as error:
            return _failed(error)
        finally:
            for built in agents:
                built.agent.cancel()  # Tells tools and streams that outlive the turn to stop.
        return self._completed(result)

    async def _interruptible(self, turn: Turn, work: Coroutine[Any, Any, Any], *, seconds: float | None) -> Any:
        """Runs `work` until it is done; raises _Cancelled if the turn is stopped, TimeoutError after `seconds`.

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
            raise TimeoutError
        finally:
            stop.cancel()

    @staticmethod
    async def _stopped(turn: Turn) -> None:
        """Waits until the turn is cancelled, in this process or by a mark that another one left."""
        while not turn.stop.is_set():
            try:
                async with asyncio.timeout(_MARK_SECONDS):
                    await turn.stop.wait()
            except TimeoutError:
                if turn.admission is not None and turn.admission.store.cancel_is_asked(turn.turn_id):
                    return

    async def _stream(self, turn: Turn, agent: Agent, prompt: str) -> AgentResult:
        result: AgentResult | None = None
        async for event in agent.stream_async(prompt, limits={"turns": self._limits.calls}):
            if "result" in event:
                result = event["result"]
            else:
                turn.take(event)
        assert result is not None, "Strands ends its stream with a result"
        return result

    def _completed(self, result: AgentResult) -> _Outcome:
        reason = str(result.stop_reason)
        if reason == "limit_turns":
            note = f"[Stopped: this turn used its {self._limits.calls} model calls. Ask again to go on.]"
            return _Outcome(status="completed", stop_reason=reason, note=note, response=note)
        if not result.message["content"]:
            return _Outcome(
                status="failed",
                failure=ModelFailed("The model's answer broke off without a word: ask again."),
            )
        text = "\n".join(block["text"] for block in result.message["content"] if "text" in block)
        return _Outcome(status="completed", stop_reason=reason, response=text)

    async def _recover(self, store: Store, record: TurnRecord) -> TurnRecord:
        current = await self._loop.in_thread(store.find_turn, record.turn_id)
        if current is None or not current.is_open:
            return current or record
        if current.first_message is None:  # It never came to its session, whoever uses that now.
            return await self._loop.in_thread(recover, store, current)
        lock = store.session_lock(record.session_id)
        try:
            await lock.acquire(timeout=0.5)
        except TimeoutError:
            return current
        try:
            current = await self._loop.in_thread(store.find_turn, record.turn_id)
            if current is None or not current.is_open:
                return current or record
            return await self._loop.in_thread(recover, store, current)
        finally:
            await lock.release()


def _begin(admitted: Admitted) -> tuple[SessionMeta, TurnRecord]:
    """Settles what was left in the session and writes that the turn works now. Under the session's lock."""
    store, record = admitted.store, admitted.record
    meta = store.find_session(record.session_id)
    if meta is None:
        raise SessionNotFound(f"The session {record.session_id!r} was deleted while the ask waited.")
    left = store.find_turn(meta.last_turn) if meta.last_turn else None
    if left is not None and left.is_open:
        recover(store, left)
        meta = store.find_session(record.session_id) or meta
    history = store.history(meta)
    history.manager()
    if settle(history, saved=left.conversation if left else None):
        store.save_session(meta, sync=False)
    record = record.model_copy(
        update={"status": "working", "first_message": history.count(), "conversation": history.conversation()}
    )
    store.save_turn(record, sync=False)
    meta = meta.model_copy(update={"last_turn": record.turn_id})
    store.mark_turn(meta)
    return meta, record


def _end(
    turn: Turn,
    admitted: Admitted,
    record: TurnRecord,
    history: History,
    outcome: _Outcome,
    agents: list[SessionAgent],
) -> TurnRecord:
    """Settles, makes durable, and writes record, metadata and index. Under the session's lock."""
    usage = Usage()
    for built in agents:
        built.manager.fence()
        used = built.agent.event_loop_metrics.accumulated_usage
        usage += built.window.usage + Usage(
            input_tokens=used["inputTokens"],
            output_tokens=used["outputTokens"],
            total_tokens=used["totalTokens"],
        )
    first = record.first_message or 0
    settle(history, note=outcome.note, partial=turn.partial, saved=record.conversation)
    history.make_durable(since=first)
    said = history.read(offset=first)
    store = admitted.store
    meta = store.find_session(record.session_id)
    if meta is None:
        raise SessionNotFound(f"The session {record.session_id!r} was deleted while the turn ran.")
    meta = meta.model_copy(
        update={
            "last_active_at": now(),
            "turns": meta.turns + bool(said),
            "usage": meta.usage + usage,
            "model": str(admitted.model),
            "title": meta.title or (_title(record.prompt) if said else ""),
        }
    )
    record = record.model_copy(
        update={
            "status": outcome.status,
            "ended_at": meta.last_active_at,
            "response": outcome.response if outcome.response is not None else (said[-1].text if said else ""),
            "stop_reason": outcome.stop_reason,
            "usage": usage,
            "session_usage": meta.usage,
            "tool_calls": tuple(turn.calls.values()),
            "expires_at": meta.expires_at,
            "failure": _failure(outcome.failure),
        }
    )
    store.save_turn(record, sync=True)
    store.save_session(meta, sync=False)
    logger.info("turn %s in session %s: %s", record.turn_id, record.session_id, record.status)
    return record


def _end_unbegun(admitted: Admitted, error: AgentMcpError | None) -> TurnRecord:
    """The record of a turn that never touched its session: cancelled in the queue, or failed before it began."""
    status = "failed" if error else "cancelled"
    ended = {
        "status": status,
        "ended_at": now(),
        "failure": _failure(error),
        "stop_reason": None if error else status,
    }
    record = admitted.record.model_copy(update=ended)
    admitted.store.save_turn(record, sync=True)
    return record


def _failure(error: AgentMcpError | None) -> Failure | None:
    return Failure(code=error.code, message=error.message) if error else None


def _title(prompt: str) -> str:
    line = next((line.strip() for line in prompt.splitlines() if line.strip()), "")
    return line if len(line) <= _TITLE_LENGTH else line[: _TITLE_LENGTH - 3].rstrip() + "..."


def _failed(error: Exception) -> _Outcome:
    """What an exception out of Strands means for the turn."""
    from strands.types.exceptions import (
        ContextWindowOverflowException,
        EventLoopException,
        MaxTokensReachedException,
        ModelThrottledException,
    )

    while isinstance(error, EventLoopException):
        error = error.original_exception
    if isinstance(error, AgentMcpError):
        return _Outcome(status="failed", failure=error)
    if isinstance(error, MaxTokensReachedException):
        return _Outcome(status="completed", stop_reason="max_tokens")
    logger.warning("a turn failed in the model or in Strands", exc_info=error)
    if isinstance(error, ContextWindowOverflowException):
        text = "The prompt and what must stay of the conversation are too long for the model: ask something shorter."
    elif isinstance(error, ModelThrottledException):
        text = "The model's service turned the request down as one too many, also when it was tried again: ask later."
    else:
        reason = " ".join(str(error).split())[:500] or "no reason given"
        text = f"The model could not answer ({type(error).__name__}: {reason}). The session is usable: ask again."
    return _Outcome(status="failed", failure=ModelFailed(text))
