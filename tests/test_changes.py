"""Changes are told across processes: one list of them in the index, that survives the index."""

from pathlib import Path

from agent_mcp.domain import transcript_uri
from agent_mcp.service import Service
from agent_mcp.storage.catalog import ANYTHING_CHANGED, LIST_CHANGED
from agent_mcp.storage.store import Store
from in_process import CALLER, ask, running


def uris(store: Store, seq: int) -> list[str]:
    """What changed, each thing once."""
    return list(dict.fromkeys(change.uri for change in store.changes_after(seq)))


def store_of(service: Service) -> Store:
    return service.store(CALLER)


async def test_what_one_server_does_another_one_is_told(data_dir: Path) -> None:
    async with running(data_dir) as one, running(data_dir) as other:
        store = store_of(other)
        began, version = store.last_change(), store.data_version()
        assert store.changes_after(began) == []
        session = (await ask(one, "marmalade")).session_id
        assert store.data_version() != version
        assert uris(store, began) == [LIST_CHANGED, transcript_uri(session)]
        began, version = store.last_change(), store.data_version()
        assert store.data_version() == version
        await ask(one, "more", session)
        assert store.data_version() != version
        assert uris(store, began) == [transcript_uri(session)]
        began = store.last_change()
        await one.turns.delete_session(CALLER, session)
        assert uris(store, began) == [LIST_CHANGED]
        store_of(one).announce("agent://assistant")
        assert uris(store, began) == [LIST_CHANGED, "agent://assistant"]


async def test_own_writes_move_the_version_too(data_dir: Path) -> None:
    async with running(data_dir) as service:
        store = store_of(service)
        version = store.data_version()
        await ask(service, "marmalade")
        assert store.data_version() != version


async def test_a_reader_that_fell_behind_is_told_that_anything_may_have_changed(data_dir: Path) -> None:
    async with running(data_dir) as service:
        store = store_of(service)
        began = store.last_change()
        for number in range(1100):
            store.announce(f"agent://{number}")
        missed = uris(store, began)
        assert (missed[0], missed[-1], len(missed)) == (ANYTHING_CHANGED, "agent://1099", 1000)
        assert uris(store, store.last_change() - 2) == ["agent://1098", "agent://1099"]


async def test_changes_go_on_when_the_index_is_lost(data_dir: Path) -> None:
    async with running(data_dir) as one, running(data_dir) as other:
        session = (await ask(one, "marmalade")).session_id
        store = store_of(other)
        began, version = store.last_change(), store.data_version()
        for suffix in ("", "-wal", "-shm"):
            (data_dir / f"catalog.db{suffix}").unlink(missing_ok=True)
        assert store.data_version() != version
        await ask(one, "more", session)
        told = uris(store, began)
        assert told[0] == ANYTHING_CHANGED
        assert told[-1] == transcript_uri(session)
        assert store.last_change() > began
