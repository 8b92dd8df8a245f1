"""A fact about an actor, where it came from, and what every memory can do with facts."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agent_mcp.domain import ActorId, Fact, MemoryId, SessionId, Timestamp, TurnId, TurnRecord
from agent_mcp.errors import InvalidArgument

LONGEST = 1_000
"""Characters of one fact: it is a sentence, not a document."""
MOST = 2_000
"""Facts of one actor."""


class Memory(Fact):
    """One fact, as it is kept. `score` is how well it fits a query, from 0 to 1; `confirmed` is false where an agent
    wrote it down in a turn that read what others wrote."""

    memory_id: MemoryId
    text: str
    created_at: Timestamp
    score: float | None = None
    session_id: SessionId | None = None
    turn_id: TurnId | None = None
    confirmed: bool = True


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a fact came from: a session and a turn, or a caller's own word (neither)."""

    session_id: SessionId | None = None
    turn_id: TurnId | None = None
    confirmed: bool = True

    @classmethod
    def of(cls, record: TurnRecord, *, confirmed: bool) -> Origin:
        return cls(session_id=record.session_id, turn_id=record.turn_id, confirmed=confirmed)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found, the best first. `note` says what the result lacks, where it lacks something."""

    memories: tuple[Memory, ...]
    note: str | None = None


class FactStore(Protocol):
    """The facts of one subject's actors. Blocking, and safe to use from several threads; raises StorageFailed.

    An actor is compared exactly, and no method takes a fact of one for another's.
    """

    def add(self, actor: ActorId, text: str, origin: Origin) -> Memory:
        """Keeps a fact. The same fact again is the one there is, confirmed if either is."""
        ...

    def confirm(self, actor: ActorId, memory_id: MemoryId) -> Memory | None:
        """Confirms a fact; None if the actor has no such fact."""
        ...

    def search(self, actor: ActorId, query: str, *, limit: int, confirmed_only: bool = False) -> Found:
        """Facts that fit a query, the best first."""
        ...

    def brief(self, actor: ActorId, query: str, *, limit: int) -> Sequence[Memory]:
        """Confirmed facts for a model to begin with: those that fit what was asked, then the newest."""
        ...

    def forget(self, actor: ActorId, memory_id: MemoryId) -> bool:
        """Deletes a fact; False if the actor has no such fact."""
        ...

    def erase(self, actor: ActorId) -> int:
        """Deletes all facts of an actor, so that none of their words is left; returns how many there were."""
        ...

    def close(self) -> None: ...


def checked(text: str) -> str:
    """A fact's text on one line, in NFC; raises InvalidArgument where it is empty, too long or no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument("The text is not valid Unicode: send it as UTF-8. Nothing was remembered.") from None
    line = unicodedata.normalize("NFC", " ".join(text.replace("\0", " ").split()))
    if not line:
        raise InvalidArgument("The text is empty: say what to remember, as one sentence.")
    if len(line) > LONGEST:
        raise InvalidArgument(
            f"The text has {len(line)} characters, and a fact at most {LONGEST}: shorten it, or remember it as several."
        )
    return line


def key_of(text: str) -> str:
    """What two ways of writing the same fact have in common: neither case, spaces nor the last stop count."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return hashlib.sha256(" ".join(plain.split()).rstrip(" .!").encode()).hexdigest()
