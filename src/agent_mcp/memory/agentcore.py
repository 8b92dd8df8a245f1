"""The memory in Amazon Bedrock AgentCore: facts as memory records, turns as events from which it learns by itself.

What can't be sent is queued on disk and sent later. Nobody waits for the service longer than a moment.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from datetime import UTC, datetime
from typing import TypeVar

from agent_mcp.domain import ActorId, MemoryId, TurnRecord, now
from agent_mcp.errors import StorageFailed
from agent_mcp.memory.aws import Absent, Record, Wire
from agent_mcp.memory.facts import Found, Memory, Origin, checked, key_of
from agent_mcp.memory.queue import SCHEMA, Job, Queue, remove_actor
from agent_mcp.memory.ranking import Ranking
from agent_mcp.storage.database import Database

logger = logging.getLogger(__name__)
T = TypeVar("T")
_Key = tuple[str, str]
"""What was looked for: under which name, and how."""

DEADLINE = 2.0
"""Seconds that a search waits for the service."""
_FRESH_SECONDS = 30.0
_CACHED = 256
_PAUSE_SECONDS = 15.0
"""How long nothing is asked of a service that did not answer: each turn would wait for it anew."""
_LOOK_FOR_SAME = 5
_LONGEST_QUERY = 1_000
_LONGEST_MESSAGE = 90_000  # of 100,000 characters that the service takes


class AgentCoreFacts:
    """The facts of one subject's actors, in one AgentCore memory.

    An actor goes there as a hash of fixed length, so that no two meet and none is another's beginning. Facts that
    nobody confirmed stand under an actor of their own (`...-unconfirmed`), where no look for confirmed ones comes.
    """

    def __init__(self, wire: Wire, *, subject: str, path: str, sync: bool, executor: Executor) -> None:
        self._wire = wire
        self._subject = subject
        self._database = Database(path, SCHEMA, sync=sync)
        self._executor = executor
        self._cache: OrderedDict[_Key, tuple[float, list[Memory]]] = OrderedDict()
        self._lock = threading.Lock()
        self._pause_until = 0.0
        self.queue = Queue(self._database)

    def add(self, actor: ActorId, text: str, origin: Origin) -> Memory:
        """Sends a fact, or queues it where the service does not answer: it is kept either way."""
        line = checked(text)
        name = self._name(actor, confirmed=origin.confirmed)
        job = Job(key=_own_id(name, line), kind="fact", actor=actor, text=line, origin=origin, created_ms=_ms())
        try:
            same = self._ask(lambda: self._wire.search(name, line, limit=_LOOK_FOR_SAME))
            known = next((memory for memory in same if key_of(memory.text) == key_of(line)), None)
            if known is not None:
                return known.model_copy(update={"score": None})
            memory_id = self._ask(lambda: self._wire.create(name, job))
        except Absent as error:
            logger.warning("a fact is queued for AgentCore: %s", error)
            self.queue.put(job)
            return _waiting(job)
        finally:
            self._forget_cached(actor)
        return _waiting(job).model_copy(update={"memory_id": memory_id})

    def confirm(self, actor: ActorId, memory_id: MemoryId) -> Memory | None:
        """As FactStore.confirm. Raises StorageFailed where the service does not answer."""
        job = self._job(actor, memory_id)
        if job is not None and job.kind == "fact":
            # Under the confirmed actor it is another record, with another id.
            self.queue.finish(job.key)
            origin = Origin(session_id=job.origin.session_id, turn_id=job.origin.turn_id)
            return self.add(actor, job.text or "", origin)
        found = self._record(actor, memory_id, job)
        if found is None:
            return None
        target = self._name(actor, confirmed=True)
        if found.owner != target:
            self._must(lambda: self._wire.move(found.memory.memory_id, found.owner, target))
            self._forget_cached(actor)
        return found.memory.model_copy(update={"confirmed": True})

    def search(self, actor: ActorId, query: str, *, limit: int, confirmed_only: bool = False) -> Found:
        """What the service finds within its deadline, and what still waits to be sent; the note says what lacks."""
        names = self._names(actor)[: 1 if confirmed_only else 2]
        asked = query[:_LONGEST_QUERY]
        looks = [((name, f"?{limit}:{asked}"), self._search_call(name, asked, limit)) for name in names]
        memories, lacking = self._look(looks)
        waiting = [job for job in self.queue.waiting(actor) if job.kind == "fact"]
        deleted = {job.key for job in self.queue.waiting(actor) if job.kind == "delete"}
        shown = [_waiting(job) for job in waiting if job.origin.confirmed or not confirmed_only]
        hits = Ranking([memory.text for memory in shown]).search(query, limit=limit)
        memories += [shown[index].model_copy(update={"score": score}) for index, score in hits]
        ranked = sorted(memories, key=lambda memory: -(memory.score or 0))
        notes = [lacking] if lacking else []
        if waiting:
            notes.append(f"{len(waiting)} facts still wait to be sent to AgentCore.")
        kept = [memory for memory in ranked if memory.memory_id not in deleted]
        return Found(memories=tuple(kept[:limit]), note=" ".join(notes) or None)

    def brief(self, actor: ActorId, query: str, *, limit: int) -> Sequence[Memory]:
        name = self._name(actor, confirmed=True)
        asked = query[:_LONGEST_QUERY]
        looks = [
            ((name, f"?{limit // 2}:{asked}"), self._search_call(name, asked, limit // 2)),
            ((name, f"!{limit}"), lambda: self._wire.newest(name, limit=limit)),
        ]
        memories, _ = self._look(looks)
        jobs = self.queue.waiting(actor)
        deleted = {job.key for job in jobs if job.kind == "delete"}
        memories += [_waiting(job) for job in jobs if job.kind == "fact" and job.origin.confirmed]
        chosen = {memory.memory_id: memory for memory in memories if memory.memory_id not in deleted}
        return list(chosen.values())[:limit]

    def forget(self, actor: ActorId, memory_id: MemoryId) -> bool:
        """As FactStore.forget. Raises StorageFailed where the service does not answer whose fact it is."""
        job = self._job(actor, memory_id)
        if job is not None:
            self.queue.finish(job.key)
            if job.kind == "fact":
                return True
        found = self._record(actor, memory_id, job)
        if found is None:
            return False
        try:
            self._ask(lambda: self._wire.delete(found.memory.memory_id))
        except Absent as error:
            logger.warning("a deletion is queued for AgentCore: %s", error)
            self.queue.put(Job(key=found.memory.memory_id, kind="delete", actor=actor))
        self._forget_cached(actor)
        return True

    def erase(self, actor: ActorId) -> int:
        """Deletes records and events, and what waits to be sent. Raises StorageFailed where the service is not there:
        what waited is erased then."""
        queued = self._database.delete(lambda db: remove_actor(db, actor)) or 0
        self._database.scrub()
        self._forget_cached(actor)
        return queued + sum(self._must(lambda name=name: self._wire.erase(name)) for name in self._names(actor))

    def do(self, job: Job, record: TurnRecord | None, *, confirmed: bool) -> None:
        """Sends one job; raises Absent to have it tried again. `confirmed` is whether the turn may be learnt from."""
        name = self._name(job.actor, confirmed=confirmed if job.kind == "event" else job.origin.confirmed)
        if job.kind == "event" and record is not None and record.status == "completed":
            self._wire.tell(name, record, longest=_LONGEST_MESSAGE)
        elif job.kind == "fact":
            memory_id = self._wire.create(name, job)
            if not self.queue.sent(job.key, memory_id):
                self._wire.delete(memory_id)  # It was forgotten on its way.
        elif job.kind == "delete":
            self._wire.delete(MemoryId(job.key))
        if job.kind != "fact":
            self.queue.finish(job.key)
        self._pause_until = 0.0
        self._forget_cached(job.actor)

    def close(self) -> None:
        self._database.close()

    def _name(self, actor: ActorId, *, confirmed: bool) -> str:
        digest = hashlib.sha256("\0".join((self._subject, actor)).encode()).hexdigest()
        return digest if confirmed else f"{digest}-unconfirmed"

    def _names(self, actor: ActorId) -> tuple[str, str]:
        return self._name(actor, confirmed=True), self._name(actor, confirmed=False)

    def _job(self, actor: ActorId, memory_id: MemoryId) -> Job | None:
        """The fact that waits under this id, or what is known of it since it was sent."""
        kinds = ("fact", "sent")
        return next((job for job in self.queue.waiting(actor) if job.kind in kinds and job.key == memory_id), None)

    def _record(self, actor: ActorId, memory_id: MemoryId, job: Job | None) -> Record | None:
        """The actor's record of this id, be it the service's or the one that the fact had while it waited."""
        wanted = MemoryId(job.text) if job is not None and job.kind == "sent" and job.text else memory_id
        found = self._must(lambda: self._wire.get(wanted))
        return found if found is not None and found.owner in self._names(actor) else None

    def _search_call(self, name: str, query: str, limit: int) -> Callable[[], list[Memory]]:
        return lambda: self._wire.search(name, query, limit=max(1, limit)) if query.strip() else []

    def _ask(self, call: Callable[[], T]) -> T:
        """Asks the service, unless it did not answer a moment ago; raises Absent."""
        if time.monotonic() < self._pause_until:
            raise Absent("it did not answer a moment ago")
        try:
            return call()
        except Absent:
            self._pause_until = time.monotonic() + _PAUSE_SECONDS
            raise

    def _must(self, call: Callable[[], T]) -> T:
        """Asks the service what can't be queued; raises StorageFailed."""
        try:
            return call()
        except Absent as error:
            raise StorageFailed(
                f"AgentCore can't be reached ({error}), and nothing was changed there: try again later."
            ) from None

    def _look(self, looks: Sequence[tuple[_Key, Callable[[], list[Memory]]]]) -> tuple[list[Memory], str | None]:
        """What all looks find within the deadline, or found before; and what lacks."""
        at = time.monotonic()
        pending: list[Future[None]] = []
        for key, call in looks:
            known = self._cached(key)
            if known is None or at - known[0] > _FRESH_SECONDS:
                pending.append(self._executor.submit(self._fetch, key, call))
        if wait(pending, timeout=DEADLINE - 0.2).not_done:
            self._pause_until = time.monotonic() + _PAUSE_SECONDS
        found: dict[MemoryId, Memory] = {}
        lacking = False
        for key, _ in looks:
            known = self._cached(key)
            lacking = lacking or known is None or known[0] < at - _FRESH_SECONDS
            for memory in known[1] if known else ():
                found.setdefault(memory.memory_id, memory)
        note = "AgentCore did not answer in time: what is remembered there may be missing." if lacking else None
        return list(found.values()), note

    def _cached(self, key: _Key) -> tuple[float, list[Memory]] | None:
        with self._lock:
            return self._cache.get(key)

    def _fetch(self, key: _Key, call: Callable[[], list[Memory]]) -> None:
        """Asks the service and keeps the answer, also one that comes too late: the next look finds it."""
        try:
            found = self._ask(call)
        except Absent as error:
            logger.warning("AgentCore could not be searched: %s", error)
            return
        self._pause_until = 0.0
        with self._lock:
            self._cache[key] = (time.monotonic(), found)
            while len(self._cache) > _CACHED:
                self._cache.popitem(last=False)

    def _forget_cached(self, actor: ActorId) -> None:
        with self._lock:
            for key in [key for key in self._cache if key[0] in self._names(actor)]:
                del self._cache[key]


def _own_id(name: str, text: str) -> str:
    """The same fact of the same actor has the same id until AgentCore gives it one: sent twice it is one."""
    return f"m-{hashlib.sha256(f'{name}/{key_of(text)}'.encode()).hexdigest()[:32]}"


def _ms() -> int:
    return int(now().timestamp() * 1000)


def _waiting(job: Job) -> Memory:
    return Memory(
        memory_id=MemoryId(job.key),
        text=job.text or "",
        created_at=datetime.fromtimestamp(job.created_ms / 1000, UTC),
        session_id=job.origin.session_id,
        turn_id=job.origin.turn_id,
        confirmed=job.origin.confirmed,
    )
