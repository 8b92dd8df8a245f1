"""What somebody may mean who has typed the beginning of an id."""

from __future__ import annotations

from collections.abc import Iterable

from agent_mcp import transcripts
from agent_mcp.domain import Caller, Fact, SessionId, now
from agent_mcp.service.agent_cases import AgentCases
from agent_mcp.service.session_cases import SessionCases
from agent_mcp.service.stores import Stores, threaded

MOST = 100
"""Suggestions at once; the protocol allows no more."""
_LOOKED_AT = 2_000
"""Sessions among whose ids a beginning is looked for, the most recently active ones."""
_PAGES = 20
"""Pages of a transcript that are suggested: each is read for it."""


class Suggestions(Fact):
    """Ids, the likeliest first. `more` says that there are others."""

    values: tuple[str, ...]
    more: bool = False


class SuggestionCases:
    """The use cases of those who complete ids. What is not the caller's is never suggested."""

    def __init__(self, *, stores: Stores, agents: AgentCases, sessions: SessionCases) -> None:
        self._stores = stores
        self._agents = agents
        self._sessions = sessions

    @threaded
    def agents(self, caller: Caller, text: str) -> Suggestions:
        """Agents whose id begins with `text`, then those with it in their id or name."""
        agents = sorted(self._agents.all(self._stores.of(caller))[0].items())
        wanted = text.lower()
        begun = [agent_id for agent_id, _ in agents if agent_id.startswith(wanted)]
        named = [agent_id for agent_id, agent in agents if wanted in f"{agent_id} {agent.name}".lower()]
        return _suggestions((*begun, *named))

    @threaded
    def sessions(self, caller: Caller, text: str) -> Suggestions:
        """Sessions whose id begins with `text`, the most recently active first; if there are none, those that have
        it in their title or in what was said: few people know an id by heart."""
        store = self._stores.of(caller)
        ids = [row.session_id for row in store.list_sessions(now=now(), limit=_LOOKED_AT, exact=False)]
        begun = [session_id for session_id in ids if session_id.startswith(text.lower())]
        if begun or not text.strip():
            return _suggestions(begun)
        found = store.list_sessions(now=now(), limit=MOST + 1, query=text)
        return _suggestions(row.session_id for row in found)

    @threaded
    def pages(self, caller: Caller, session_id: SessionId, text: str) -> Suggestions:
        """The pages of a transcript behind its newest part, the latest first; raises SessionNotFound."""
        store = self._stores.of(caller)
        history = store.history(self._sessions.find(store, session_id))
        starts = transcripts.page_starts(
            lambda offset, count: history.read(offset=offset, limit=count), total=history.count(), most=_PAGES
        )
        return _suggestions(str(start) for start in starts if str(start).startswith(text))


def _suggestions(values: Iterable[str]) -> Suggestions:
    different = list(dict.fromkeys(values))
    return Suggestions(values=tuple(different[:MOST]), more=len(different) > MOST)
