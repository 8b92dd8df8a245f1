"""What changed since somebody looked, whichever process did it."""

from __future__ import annotations

from dataclasses import dataclass

from agent_mcp.domain import Caller, SessionId
from agent_mcp.service.stores import Stores, threaded
from agent_mcp.storage.catalog import ANYTHING_CHANGED, LIST_CHANGED
from agent_mcp.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Up to where somebody has seen the changes of a subject."""

    version: tuple[int, int]
    seq: int


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is new: `uris` of transcripts and agents, whether there are other ones to list, or `anything` at all."""

    mark: Mark
    uris: tuple[str, ...] = ()
    lists: bool = False
    anything: bool = False


class ChangeCases:
    """The use cases of those who tell others of changes."""

    def __init__(self, *, stores: Stores) -> None:
        self._stores = stores

    @threaded
    def mark(self, caller: Caller) -> Mark:
        """Where to begin: whatever is written from now on is behind it."""
        store = self._stores.of(caller)
        return Mark(version=store.data_version(), seq=store.last_change())

    @threaded
    def since(self, caller: Caller, mark: Mark) -> Changes:
        """What changed behind a mark. Takes microseconds where nothing did."""
        store = self._stores.of(caller)
        version = store.data_version()
        if version == mark.version:
            return Changes(mark=mark)
        changes = store.changes_after(mark.seq)
        seq = changes[-1].seq if changes else mark.seq
        words = [change.uri for change in changes]
        uris = dict.fromkeys(word for word in words if word not in (LIST_CHANGED, ANYTHING_CHANGED))
        return Changes(
            mark=Mark(version=version, seq=seq),
            uris=tuple(uri for uri in uris if _may_hear(caller, store, uri)),
            lists=LIST_CHANGED in words,
            anything=ANYTHING_CHANGED in words,
        )


def _may_hear(caller: Caller, store: Store, uri: str) -> bool:
    """Whether a change of `uri` may be told: not of a session of an actor for whom the caller may not act."""
    scheme, _, rest = uri.partition("://")
    if caller.act_as is None or scheme != "session":
        return True
    return store.find_session(SessionId(rest.partition("/")[0])) is not None
