"""The catalog is a copy: deleted, overwritten or out of date, the answers are those of the files."""

import asyncio
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from agent_mcp.domain import SessionId
from agent_mcp.service import Service
from agent_mcp.storage.wording import terms
from in_process import CALLER, ask, running

WORDS = ["marmalade", "zeppelin", "bicycle"]


async def told(service: Service) -> dict[str, str]:
    """Three sessions, each about one thing: its id and the thing, the latest first."""
    sessions = {str((await ask(service, f"I keep thinking of a {word}")).session_id): word for word in WORDS}
    return dict(reversed(sessions.items()))


async def found(service: Service, query: str) -> list[str]:
    return [session.session_id for session in (await service.sessions.list_sessions(CALLER, query=query)).sessions]


async def listed(service: Service) -> list[str]:
    return [session.session_id for session in (await service.sessions.list_sessions(CALLER)).sessions]


async def check(service: Service, words: dict[str, str]) -> None:
    """Everything that stands on the catalog is right."""
    sessions = list(words)
    assert await listed(service) == sessions
    for session, word in words.items():
        assert await found(service, word) == [session]
        followed = await service.turns.follow(CALLER, session_id=SessionId(session))
        assert followed.reply().session_id == session
    first = await service.sessions.list_sessions(CALLER, limit=2)
    rest = await service.sessions.list_sessions(CALLER, limit=2, cursor=first.next_cursor)
    assert [s.session_id for s in (*first.sessions, *rest.sessions)] == sessions
    assert rest.next_cursor is None


def files(data_dir: Path) -> list[Path]:
    return [data_dir / f"catalog.db{suffix}" for suffix in ("", "-wal", "-shm")]


def delete(data_dir: Path) -> None:
    for path in files(data_dir):
        path.unlink(missing_ok=True)


def delete_the_main_file_only(data_dir: Path) -> None:
    files(data_dir)[0].unlink()


def fill_with_garbage(data_dir: Path) -> None:
    for path in files(data_dir):
        if path.exists():
            path.write_bytes(b"no database at all " * 500)


def cut_off(data_dir: Path) -> None:
    for path in files(data_dir)[:2]:
        if path.exists():
            path.write_bytes(path.read_bytes()[:1000])


def make_old(data_dir: Path) -> None:
    db = sqlite3.connect(files(data_dir)[0])
    db.executescript("DROP TABLE words; DROP TABLE sessions; CREATE TABLE sessions (id); PRAGMA user_version = 999")
    db.close()


DAMAGES = [delete, delete_the_main_file_only, fill_with_garbage, cut_off, make_old]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_catalog_damaged_between_two_starts_is_made_again(data_dir: Path, damage: object) -> None:
    async with running(data_dir) as service:
        sessions = await told(service)
        await check(service, sessions)
    assert callable(damage)
    damage(data_dir)
    async with running(data_dir) as service:
        await check(service, sessions)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_catalog_damaged_while_the_server_runs_is_made_again(data_dir: Path, damage: object) -> None:
    async with running(data_dir) as service:
        sessions = await told(service)
        await check(service, sessions)
        assert callable(damage)
        damage(data_dir)
        (oldest, word) = list(sessions.items())[-1]
        await ask(service, "What was I thinking of?", oldest)
        await check(service, {oldest: word} | sessions)


async def test_a_list_whose_index_is_lost_between_the_filling_and_the_reading_is_read_again(data_dir: Path) -> None:
    async with running(data_dir) as service:
        sessions = list(await told(service))
        store = service.store(CALLER)
        upkeep, catalog = store._upkeep, store._catalog  # pyright: ignore[reportPrivateUsage] the moment between them
        lost: list[str] = []

        def look() -> list[str]:
            upkeep.before_list()
            if not lost:
                lost.append("by another server, say")
                delete(data_dir)
            return [row.session_id for row in catalog.list_sessions(now=datetime.now(UTC), limit=10)]

        assert await asyncio.to_thread(upkeep.of_one_index, look) == sessions


async def test_a_copy_that_took_the_catalogs_place_is_not_believed_whatever_it_says(data_dir: Path) -> None:
    async with running(data_dir) as service:
        sessions = await told(service)
        await check(service, sessions)
        source, copy = sqlite3.connect(data_dir / "catalog.db"), sqlite3.connect(data_dir.with_name("copy.db"))
        source.backup(copy)
        copy.execute("DELETE FROM words")  # and it goes on saying that it has read them all
        copy.commit()
        for db in (source, copy):
            db.close()
        delete(data_dir)
        data_dir.with_name("copy.db").rename(data_dir / "catalog.db")
        await check(service, sessions)


async def test_the_models_own_search_finds_what_was_said_before_the_catalog_was_lost(data_dir: Path) -> None:
    async with running(data_dir) as service:
        session = (await ask(service, "The parcel with the violet marmalade came on Tuesday")).session_id
        delete(data_dir)
        reply = await ask(service, 'use the tool search_session with {"query": "parcel"}', session)
    assert "violet marmalade" in reply.response


async def test_two_servers_see_each_others_sessions_also_after_one_has_made_the_catalog_again(data_dir: Path) -> None:
    async with running(data_dir) as one, running(data_dir) as other:
        first = (await ask(one, "marmalade")).session_id
        assert await found(other, "marmalade") == [first]
        delete(data_dir)
        second = (await ask(other, "marmalade")).session_id
        assert await found(one, "marmalade") == [second, first]


async def test_a_session_removed_by_hand_is_listed_no_more(data_dir: Path) -> None:
    async with running(data_dir) as service:
        sessions = list(await told(service))
        (data_dir / f"session_{sessions[1]}").rename(data_dir.parent / "elsewhere")
        assert await listed(service) == [sessions[0], sessions[2]]
        assert await found(service, "zeppelin") == []


async def test_a_catalog_that_can_not_be_written_does_not_fail_a_turn(data_dir: Path) -> None:
    async with running(data_dir) as service:
        session = (await ask(service, "My name is John")).session_id
        blocker = sqlite3.connect(data_dir / "catalog.db", isolation_level=None)
        delete(data_dir)
        files(data_dir)[0].mkdir()  # whatever is done, no database can be opened there
        reply = await ask(service, "What's my name?", session)
        assert "John" in reply.response
        files(data_dir)[0].rmdir()
        assert await found(service, "John") == [session]
        blocker.close()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("runs", True),  # an inflected form of "running"
        ("RUNNING", True),
        ("rabbits", True),
        ("cafe", True),  # without its accent
        ("Ünïted", True),
        ("running rabbit", True),
        ("rabbit running", True),
        ('"rabbit running"', False),
        ('"running rabbit"', True),
        ("unit", True),
        ("rab", True),  # the beginning of the last word
        ("rab running", False),  # but not of another one
        ("hare", False),
        ("don't", True),
        ("title of a session", False),
        ("42%", True),
        ("?!", False),
    ],
)
async def test_what_a_query_finds(data_dir: Path, query: str, expected: bool) -> None:
    async with running(data_dir) as service:
        session = (await ask(service, "A running rabbit at the café of the United Nations: don't ask, 42%")).session_id
        await ask(service, "something else")
        assert await found(service, query) == ([session] if expected else [])


async def test_a_snippet_shows_the_words_in_the_midst_of_a_long_message(data_dir: Path) -> None:
    text = " ".join(f"word{n}" for n in range(400))
    async with running(data_dir) as service:
        await ask(service, f"{text} marmalade {text}")
        (session,) = (await service.sessions.list_sessions(CALLER, query="marmalades")).sessions
    assert session.snippet is not None
    assert "marmalade" in session.snippet
    assert len(session.snippet) < 600


async def test_a_title_is_found_too(data_dir: Path) -> None:
    async with running(data_dir) as service:
        started = await service.sessions.start(CALLER, title="About the violet zeppelin")
        assert await found(service, "zeppelins") == [started.session_id]


ODD = st.text(alphabet=st.sampled_from("\"'*(){}[]:^~-+.,;\\/|&%$#@!?<>= \tab\x00\n\ud7ffß"), max_size=12)
OPERATORS = st.sampled_from(["NEAR", "AND", "OR", "NOT", "NEAR(a b)", "text:a", "a*", "^a", '"', '""', "a -b", "{a}"])


@pytest.fixture(scope="module")
def index() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = 'porter unicode61 remove_diacritics 2')")
    db.execute("INSERT INTO words VALUES ('a b near and or not text')")
    return db


@settings(max_examples=300, deadline=None)
@given(query=st.lists(ODD | OPERATORS | st.text(max_size=8), max_size=5).map(" ".join))
def test_no_query_is_an_error(index: sqlite3.Connection, query: str) -> None:
    expressions = terms(query)
    for expression in filter(None, [*expressions, " OR ".join(expressions)]):
        index.execute("SELECT * FROM words WHERE words MATCH ?", (expression,)).fetchall()


@pytest.mark.parametrize("query", ['"', "'*(){}:^NEAR AND OR -", 'a"b', "a\x00b", "\ud800", "x" * 1000])
async def test_odd_queries_find_nothing_or_something_through_the_front_door(data_dir: Path, query: str) -> None:
    async with running(data_dir) as service:
        await ask(service, "hello")
        assert isinstance(await found(service, query), list)
