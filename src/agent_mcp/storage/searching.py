"""Finding sessions and messages in the catalog: the order of lists, relevance, snippets."""

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from agent_mcp.domain import ActorId, AgentId, SessionId
from agent_mcp.storage import wording

RANKED = 400
"""A query that fits no more sessions than this is answered by relevance; one that fits more, by activity."""
SHIFT = 20
"""A chunk's row is its session's number and, in so many bits, its place in it; place 0 has the title and the id."""
PLACES = (1 << SHIFT) - 1
_LOOKED_AT = 4  # chunks of a session whose hits are counted; the others count as one each
_BY_ACTIVITY = -1
_ROLES = {"u": "user", "a": "assistant", "t": "tool"}
_SELECT = "SELECT number, session_id, damaged, active_ms FROM sessions s"
_MARKED = f"highlight(words, 0, '{wording.BEGIN}', '{wording.END}')"
_IS_EXPIRED = (
    "(expires_ms IS NOT NULL AND expires_ms <= :now"
    " AND NOT EXISTS (SELECT 1 FROM turns t WHERE t.session_id = s.session_id AND t.open))"
)


class Hit(tuple[int, str, str]):
    """What a search found: the message's index, its role, and a piece of its text."""

    __slots__ = ()


class Position(NamedTuple):
    """A place in a list of sessions: `score` is -1 in lists by activity, else the relevance."""

    score: int
    active_ms: int
    session_id: str


class Listed(NamedTuple):
    """A session in a list. Its position depends on nothing but itself and the query, so others may come and go."""

    session_id: SessionId
    damaged: bool
    position: Position
    snippet: str | None
    number: int


class Filters(NamedTuple):
    """A condition in SQL and its values."""

    where: str
    values: dict[str, object]


class _Look(NamedTuple):
    score: int
    snippet: str | None


def filters(
    *,
    now: datetime,
    agent_id: AgentId | None,
    actor_id: ActorId | None,
    status: str,
    actors: Sequence[str] | None = None,
) -> Filters:
    """The condition for a list of sessions; `actors` are patterns, an id or a beginning and `*`."""
    where = ["1"]
    values: dict[str, object] = {"now": int(now.timestamp() * 1000)}
    if agent_id is not None:
        where.append("agent_id = :agent")
        values["agent"] = agent_id
    if actor_id is not None:
        where.append("actor_id = :actor")
        values["actor"] = actor_id
    if actors is not None:
        values |= {f"a{n}": pattern.removesuffix("*") for n, pattern in enumerate(actors)}
        left = ("substr(actor_id, 1, length(:a{}))" if pattern.endswith("*") else "actor_id" for pattern in actors)
        covered = [f"{side.format(n)} = :a{n}" for n, side in enumerate(left)]
        where.append(f"({' OR '.join(covered)})")
    if status != "all":
        kinds = {"damaged": "damaged", "expired": f"NOT damaged AND {_IS_EXPIRED}"}
        where.append(kinds.get(status, f"NOT damaged AND NOT {_IS_EXPIRED}"))
    return Filters(" AND ".join(where), values)


def by_activity(
    db: sqlite3.Connection, chosen: Filters, *, after: Position | None, limit: int, among: set[int] | None = None
) -> list[Listed]:
    """Sessions (those with a number in `among`), most recently active first, from behind `after`."""
    where, values = chosen.where, dict(chosen.values)
    if after is not None:
        where += " AND (active_ms, session_id) < (:after_ms, :after_id)"
        values |= {"after_ms": after.active_ms, "after_id": after.session_id}
    found: list[Listed] = []
    for row in db.execute(f"{_SELECT} WHERE {where} ORDER BY active_ms DESC, session_id DESC", values):
        if among is None or row[0] in among:
            found.append(_listed(row, _BY_ACTIVITY))
            if len(found) == limit:
                break
    return found


def find(
    db: sqlite3.Connection, terms: list[str], chosen: Filters, *, after: Position | None, limit: int
) -> list[Listed]:
    """Sessions in which all terms occur, as `Catalog.list_sessions` says."""
    hits = [[int(r[0]) for r in db.execute("SELECT rowid FROM words WHERE words MATCH ?", (t,))] for t in terms]
    numbers = set[int].intersection(*({rowid >> SHIFT for rowid in rowids} for rowids in hits))
    if after.score < 0 if after is not None else len(numbers) > RANKED:
        found = by_activity(db, chosen, after=after, limit=limit, among=numbers)
        looked = _look(db, terms, hits, {listed.number for listed in found})
        return [listed._replace(snippet=looked[listed.number].snippet) for listed in found]
    among = f"{_SELECT} WHERE {chosen.where} AND number IN (SELECT value FROM json_each(:numbers))"
    rows = db.execute(among, chosen.values | {"numbers": json.dumps(list(numbers))}).fetchall()
    looked = _look(db, terms, hits, {int(row[0]) for row in rows})
    found = [_listed(row, looked[row[0]].score, looked[row[0]].snippet) for row in rows]
    found.sort(key=lambda listed: listed.position, reverse=True)
    return [listed for listed in found if after is None or listed.position < after][:limit]


def within(db: sqlite3.Connection, session_id: SessionId, terms: list[str], *, limit: int) -> list[Hit]:
    """The messages of one session that fit best: those with most of the words, then the latest."""
    row = db.execute("SELECT number FROM sessions WHERE session_id = ?", (session_id,)).fetchone()
    if row is None:
        return []
    first = int(row[0]) << SHIFT
    found = db.execute(
        f"SELECT {_MARKED}, places FROM words WHERE words MATCH ? AND rowid BETWEEN ? AND ?",
        (" OR ".join(terms), first + 1, first + PLACES),
    )
    marked = [piece for text, places in found for piece in wording.unpack(text, places) if wording.hits(piece.text)]
    marked.sort(key=lambda p: (*_worth(p.text), p.message), reverse=True)
    return [Hit((p.message, _ROLES.get(p.role, "user"), wording.snippet(p.text))) for p in marked[:limit]]


def _listed(row: sqlite3.Row, score: int, snippet: str | None = None) -> Listed:
    position = Position(score, int(row[3]), str(row[1]))
    return Listed(SessionId(row[1]), bool(row[2]), position, snippet, int(row[0]))


def _worth(text: str) -> tuple[int, int]:
    """How well a text with marks fits: the different words that were found in it, and how many in all."""
    return len(wording.marked_words(text)), wording.hits(text)


def _look(db: sqlite3.Connection, terms: list[str], hits: list[list[int]], numbers: set[int]) -> dict[int, _Look]:
    """The score of each session, and the piece of it in which most of the terms stand."""
    chunks: dict[int, list[int]] = {number: [] for number in numbers}
    for rowid in sorted({rowid for rowids in hits for rowid in rowids if rowid >> SHIFT in numbers}):
        chunks[rowid >> SHIFT].append(rowid)
    wanted = [rowid for rowids in chunks.values() for rowid in rowids[:_LOOKED_AT]]
    texts = db.execute(  # the plus keeps SQLite from a search for each row
        f"SELECT rowid, {_MARKED}, places FROM words"
        " WHERE words MATCH ? AND +rowid IN (SELECT value FROM json_each(?))",
        (" OR ".join(terms), json.dumps(wanted)),
    )
    counts = {number: max(0, len(rowids) - _LOOKED_AT) for number, rowids in chunks.items()}
    titles = dict.fromkeys(numbers, False)
    best: dict[int, tuple[tuple[int, int], str]] = {}
    for row in texts:
        number = int(row[0]) >> SHIFT
        counts[number] += wording.hits(row[1])
        titles[number] |= not int(row[0]) & PLACES and _worth(row[1])[0] >= len(terms)
        for piece in wording.unpack(row[1], row[2]):
            worth = _worth(piece.text)
            if worth[1] and (number not in best or worth > best[number][0]):
                best[number] = (worth, piece.text)
    return {
        number: _Look(
            (16 if titles[number] else 0) + min(15, counts[number].bit_length()),
            wording.snippet(best[number][1]) if number in best else None,
        )
        for number in numbers
    }
