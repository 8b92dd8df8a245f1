"""Search over everything said: what a query finds, in which order, page by page."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from agent_mcp.domain import SessionId
from agent_mcp.service import Service
from agent_mcp.storage import searching
from in_process import CALLER, ask, running
from life import files_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAID = {
    "once": ["A violet zeppelin flew over the harbour", "Then we spoke of nothing else"],
    "often": ["The zeppelin, a zeppelin and the zeppelins: how a zeppelin is built", "more of the zeppelin"],
    "apart": ["Marmalade is made of oranges", "filler", "and a bicycle has two wheels"],
    "chinese": ["我们昨天讨论了数据库的索引问题", "ok"],
    "japanese": ["東京タワーの近くで会いましょう"],
    "thai": ["ฉันชอบกินข้าวผัดมาก"],
    "titled": ["Nothing special"],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Service]:
    async with running(tmp_path_factory.mktemp("search") / "data") as service:
        for name, prompts in SAID.items():
            title = "All about the quantum lantern" if name == "titled" else "-"
            await service.sessions.start(CALLER, session_id=SessionId(name), title=title)
            for prompt in prompts:
                await ask(service, prompt, name)
        yield service


async def found(service: Service, query: str) -> list[str]:
    return [s.session_id for s in (await service.sessions.list_sessions(CALLER, query=query)).sessions]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("zeppelins", ["often", "once"]),  # the more often, the higher, though "once" is not older by chance
        ("bicycles marmalade", ["apart"]),  # all words, anywhere in the session
        ("bicycles zeppelin", []),
        ('"violet zeppelin"', ["once"]),
        ('"zeppelin violet"', []),
        ('"two wheels" oranges', ["apart"]),
        ("marm* wheels", ["apart"]),
        ("marm wheels", []),  # a beginning needs its star, but for the last word
        ("wheels marm", ["apart"]),
        ("索引", ["chinese"]),
        ("数据库", ["chinese"]),
        ("数库", []),
        ("タワー", ["japanese"]),
        ("東京", ["japanese"]),
        ("ข้าวผัด", ["thai"]),
        ("quantum", ["titled"]),
        ("titled", ["titled"]),  # its id
        ("quantum special", ["titled"]),
        ('zeppelin "', ["often", "once"]),
        ("zeppelin OR", []),
    ],
)
async def test_what_a_query_finds_and_in_which_order(service: Service, query: str, expected: list[str]) -> None:
    assert await found(service, query) == expected


async def test_each_snippet_shows_the_words_without_marks(service: Service) -> None:
    for query, word in (("zeppelin", "zeppelin"), ("索引", "数据库的索引问题"), ("bicycle marmalade", "bicycle")):
        page = await service.sessions.list_sessions(CALLER, query=query)
        for session in page.sessions:
            assert session.snippet is not None
            assert word in session.snippet or "Marmalade" in session.snippet
            assert session.snippet.isprintable()


@pytest.mark.parametrize("by_relevance", [True, False])
async def test_pages_stay_right_while_sessions_come_and_go(
    tmp_path: Path, by_relevance: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not by_relevance:
        monkeypatch.setattr(searching, "RANKED", 2)
    async with running(tmp_path / "data") as service:
        for n in range(9):
            await ask(service, " ".join(["marmalade"] * 10 ** (n % 3)), await begun(service, f"m-{n}"))
        seen: list[str] = []
        cursor: str | None = None
        for page_number in range(9):
            page = await service.sessions.list_sessions(CALLER, query="marmalade", limit=2, cursor=cursor)
            seen += [s.session_id for s in page.sessions]
            cursor = page.next_cursor
            if cursor is None:
                break
            # One that was shown goes, and others come that have the word more often than any.
            await service.turns.delete_session(CALLER, page.sessions[-1].session_id)
            await ask(service, "marmalade " * 1000, await begun(service, f"new-{page_number}"))
        wanted = [f"m-{n}" for n in reversed(range(9))]
        if by_relevance:
            wanted.sort(key=lambda name: int(name[2:]) % 3, reverse=True)
        assert [name for name in seen if name.startswith("m-")] == wanted
        assert len(seen) == len(set(seen))


async def test_a_long_session_is_found_by_its_beginning_and_its_end_and_shrinks_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with running(data) as service:
        session = await begun(service, "long")
        await ask(service, "the first is a walrus", session)
        for n in range(12):
            await ask(service, f"number {n} " + "and so on " * 200, session)
        await ask(service, "the last is a narwhal", session)
        for query in ("walrus", "narwhal", "walrus narwhal", '"number 7"'):
            assert await found(service, query) == [session]
        folder = data / "session_long" / "agents" / "agent_assistant" / "messages"
        for file in sorted(folder.iterdir(), key=lambda path: int(path.stem.split("_")[1]))[-2:]:
            file.unlink()
        assert await found(service, "narwhal") == []
        await ask(service, "a dugong", session)
        assert await found(service, "walrus dugong") == [session]
        hits = service.store(CALLER).search(session, "dugong", limit=3)
        assert (26, "user") in [(index, role) for index, role, _ in hits]


async def test_what_is_erased_is_in_no_byte_of_the_index(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with running(data) as service, running(data) as other:
        for n in range(5):
            await ask(service, f"the secret is xylophone{n}", await begun(service, f"secret-{n}"))
        kept = (await ask(service, "marmalade")).session_id
        assert await found(other, "marmalade") == [kept]
        ids = [SessionId(f"secret-{n}") for n in range(5)]
        for session_id in ids:
            await service.turns.delete_session(CALLER, session_id)
        service.store(CALLER).erase_from_index(ids)
        for trace in ("xylophone", "secret-"):
            assert [name for name in files_of(data, trace) if name.startswith("catalog")] == []
        assert await found(service, "marmalade") == await found(other, "marmalade") == [kept]


async def test_a_message_that_a_hand_has_changed_is_listed_as_it_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with running(data) as service:
        session = await begun(service, "edited")
        await ask(service, "a walrus", session)
        file = data / "session_edited" / "agents" / "agent_assistant" / "messages" / "message_0.json"
        message = json.loads(file.read_text())
        message["message"]["content"] = [{"text": "a completely different narwhal"}]
        file.write_text(json.dumps(message))
        assert [s.session_id for s in (await service.sessions.list_sessions(CALLER)).sessions] == [session]
        assert await found(service, "narwhal") == [session]


async def begun(service: Service, name: str) -> SessionId:
    return (await service.sessions.start(CALLER, session_id=SessionId(name), title="-")).session_id
