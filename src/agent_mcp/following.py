"""A turn as the requests see it that follow it: one that this process runs, or one by its record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import Any, Protocol, cast

from agent_mcp.agent_loop import AgentLoop
from agent_mcp.domain import Reply, ToolCall, TurnId, TurnRecord, reply_of
from agent_mcp.errors import BY_CODE, AgentMcpError, TurnInterrupted
from agent_mcp.events import Event, Mailbox, Retrying, StillWorking, TextWritten, ToolEnded, ToolStarted
from agent_mcp.storage.store import Store
from agent_mcp.tally import Tally
from agent_mcp.turn_steps import Admitted


class Turn:
    """A turn of this process. Its fields are changed on the agents' loop only."""

    def __init__(self, turn_id: TurnId, subject: str, tally: Tally) -> None:
        self.turn_id = turn_id
        self.subject = subject
        self.is_running = False  # its time in its session has come
        self.has_agent = False
        self._tally = tally
        self._since = time.monotonic()
        self.admitted: Future[TurnRecord] = Future()
        self.ended: Future[TurnRecord] = Future()
        self.admission: Admitted | None = None
        self.record: TurnRecord | None = None
        self.text = ""  # all that the model wrote in this turn so far
        self.partial = ""  # the part of it whose message is not complete
        self.calls: dict[str, ToolCall] = {}
        self.stop = asyncio.Event()
        self._followers: set[Mailbox] = set()

    def admit(self, admitted: Admitted) -> None:
        # What was answered waits for nobody any more, though its record says so until the turn has the lock.
        working = {"status": "working"} if admitted.response is not None else {}
        self.admission, self.record = admitted, admitted.record.model_copy(update=working)
        self.calls = dict(admitted.record.tool_calls)
        self.admitted.set_result(self.record)

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

    def finish(self, result: TurnRecord | AgentMcpError) -> None:
        if isinstance(result, AgentMcpError):
            self._tally.refused(result.code)
        else:
            seconds = time.monotonic() - self._since
            failure = result.failure.code if result.failure else None
            self._tally.stopped(result.status, seconds=seconds, failure=failure)
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
    """A turn that this process runs."""

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

    async def ends_within(self, seconds: float) -> bool:
        """Whether the turn ends within some seconds."""
        ended = asyncio.wrap_future(self._turn.ended)
        ended.add_done_callback(lambda done: done.cancelled() or done.exception())
        done, _ = await asyncio.wait({ended}, timeout=seconds)
        return bool(done)

    def record(self) -> TurnRecord:
        """The turn's record as it is now; raises what the turn could not be kept for."""
        if self._turn.ended.done():
            return self._turn.ended.result()
        assert self._turn.record is not None, "a turn is followed only once it is admitted"
        return self._turn.record

    def reply(self) -> Reply:
        """The reply, or how far the turn has come; raises the error of a turn that failed."""
        return reply_or_raise(self.record(), text_so_far=self._turn.text)

    def cancel(self) -> None:
        """Cancels the turn. Does not wait, and can be called where nothing may be awaited any more."""
        self._loop.call(self._turn.stop.set)


class Keeper(Protocol):
    """Who can tell about turns of other processes, and end those that nobody will."""

    def is_running(self, store: Store, record: TurnRecord) -> bool: ...

    async def recover(self, store: Store, record: TurnRecord) -> TurnRecord: ...

    async def refuse(self, store: Store, record: TurnRecord) -> TurnRecord: ...


class Watching:
    """A turn by its record: one that has ended, waits for somebody, or is run by another process."""

    def __init__(self, keeper: Keeper, store: Store, record: TurnRecord) -> None:
        self._keeper = keeper
        self._store = store
        self._record = record

    @property
    def turn_id(self) -> TurnId:
        return self._record.turn_id

    async def events(self, *, wait: float, beat: float = 10.0, pace: float = 0.2) -> AsyncIterator[Event]:
        """Signs of life until the turn ends or `wait` seconds are over; a turn whose process died is ended here."""
        clock = asyncio.get_running_loop().time
        start = said = clock()
        if self._record.is_overdue:
            self._record = await self._keeper.refuse(self._store, self._record)
        while self._record.is_open:
            if not await asyncio.to_thread(self._keeper.is_running, self._store, self._record):
                self._record = await self._keeper.recover(self._store, self._record)
                if not self._record.is_open:
                    return
            if clock() - start >= wait:
                return
            if clock() - said >= beat:
                said = clock()
                yield StillWorking(round(said - start))
            await asyncio.sleep(min(pace, max(0.0, start + wait - clock())))
            self._record = await asyncio.to_thread(self._store.find_turn, self.turn_id) or self._record

    def record(self) -> TurnRecord:
        """The turn's record as it was read last."""
        return self._record

    def reply(self) -> Reply:
        """The reply, or that the turn still works; raises the error of a turn that failed."""
        return reply_or_raise(self._record)

    def cancel(self) -> None:
        """Asks the process that runs the turn to cancel it."""
        if self._record.is_open:
            self._store.ask_cancel(self.turn_id)


Followed = Following | Watching
"""A turn as a request sees it: `events()` while it runs, then `reply()`."""


def reply_or_raise(record: TurnRecord, *, text_so_far: str = "") -> Reply:
    """The reply of a record; raises its failure again, as it was raised at first."""
    if record.failure is not None:
        raise BY_CODE.get(record.failure.code, TurnInterrupted)(record.failure.message)
    return reply_of(record, text_so_far=text_so_far)
