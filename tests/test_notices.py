"""Notices: clients are told of new messages and sessions, in both generations, whichever process made them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from mcp.server.subscriptions import ResourcesListChanged, ResourceUpdated

from agent_mcp.domain import Reply
from agent_mcp.server.app import build_server
from agent_mcp.service import Service
from in_process import CALLER, ask, running
from life import shell
from web import serving
from wire import DEADLINE, MODERN, Refused, Wire, wire

LIST = "notifications/resources/list_changed"
UPDATED = "notifications/resources/updated"
BEGUN = "notifications/subscriptions/acknowledged"
STREAM = "io.modelcontextprotocol/subscriptionId"
REVISIONS = ["2024-11-05", "2025-11-25", MODERN]


async def watch(client: Wire, *uris: str) -> int | None:
    """Has a client told of changes of the list and of these resources; returns the id of the stream."""
    if client.revision != MODERN:
        await client.request("resources/list")
        for uri in uris:
            assert set(await client.request("resources/subscribe", {"uri": uri})) <= {"resultType"}
        return None
    wanted = {"resourcesListChanged": True, "resourceSubscriptions": list(uris)}
    number, _ = await client.start("subscriptions/listen", {"notifications": wanted})
    # Of this stream: that another one began says nothing about what is told on it.
    await client.until(lambda: number in [params["_meta"][STREAM] for m, params in client.told if m == BEGUN])
    return number


def told(client: Wire, method: str, uri: str | None = None) -> int:
    """How often a client was told of something."""
    return sum(m == method and (uri is None or params.get("uri") == uri) for m, params in client.told)


@asynccontextmanager
async def asked_before(data_dir: Path, *prompts: str) -> AsyncGenerator[tuple[Service, list[Reply]]]:
    """A service in which all this was asked before anybody connects, so that nobody is told of it, however late."""
    async with running(data_dir) as service:
        yield service, [await ask(service, prompt) for prompt in prompts]


@asynccontextmanager
async def connected(service: Service, revision: str, **more: Any) -> AsyncGenerator[Wire]:
    async with wire(build_server(service, **more), revision) as client:
        yield client


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_turn_is_told_as_an_update_of_its_transcript_and_a_session_as_a_change_of_the_list(
    data_dir: Path, revision: str
) -> None:
    async with asked_before(data_dir, "My name is John", "Something else") as (service, (reply, other)):
        transcript = reply.transcript
        messages = transcript.replace("/transcript", "/messages")
        async with connected(service, revision) as client:
            await watch(client, transcript, messages)
            await ask(service, "What's my name?", reply.session_id)
            await client.until(lambda: told(client, UPDATED, transcript) > 0 and told(client, UPDATED, messages) > 0)
            assert told(client, LIST) == 0
            session = await service.sessions.start(CALLER)
            await client.until(lambda: told(client, LIST) > 0)
            seen = told(client, LIST)
            await service.turns.delete_session(CALLER, session.session_id)
            await client.until(lambda: told(client, LIST) > seen)
            assert told(client, UPDATED, other.transcript) == 0
            assert {method for method, _ in client.told} <= {LIST, UPDATED, BEGUN}


@pytest.mark.parametrize("revision", REVISIONS[1:])
async def test_what_another_process_does_is_told_too(data_dir: Path, revision: str) -> None:
    async with asked_before(data_dir, "My name is John") as (service, (reply,)), connected(service, revision) as client:
        await watch(client, reply.transcript)
        done = await shell(data_dir, "ask", "What's my name?", "--session", reply.session_id)
        assert "John" in done.out, done.err
        await client.until(lambda: told(client, UPDATED, reply.transcript) > 0)
        seen = told(client, LIST)
        done = await shell(data_dir, "ask", "Hello")
        assert done.code == 0
        await client.until(lambda: told(client, LIST) > seen)


@pytest.mark.parametrize("revision", REVISIONS[1:])
async def test_notices_go_on_when_the_catalog_is_deleted(data_dir: Path, revision: str) -> None:
    async with asked_before(data_dir, "My name is John") as (service, (reply,)), connected(service, revision) as client:
        await watch(client, reply.transcript)
        remove_catalog(data_dir)
        await ask(service, "What's my name?", reply.session_id)
        await client.until(lambda: told(client, UPDATED, reply.transcript) > 0)


def remove_catalog(data_dir: Path) -> None:
    for path in data_dir.glob("catalog.db*"):
        path.unlink()


@pytest.mark.parametrize("revision", REVISIONS[1:])
async def test_an_agent_that_is_made_changed_or_deleted_is_told(data_dir: Path, revision: str) -> None:
    async with running(data_dir) as service, connected(service, revision) as client:
        await watch(client, "agent://poet")
        await client.call("create_agent", name="Poet")
        await client.until(lambda: told(client, LIST) > 0)
        await client.call("update_agent", agent_id="poet", system_prompt="Write verse.")
        await client.until(lambda: told(client, UPDATED, "agent://poet") > 0)
        seen = told(client, LIST)
        await client.call("delete_agent", agent_id="poet")
        await client_told(client, seen)


async def test_each_generation_hears_what_the_server_can_tell(data_dir: Path) -> None:
    async with running(data_dir) as service:
        async with connected(service, MODERN) as client:
            offered = (await client.request("server/discover"))["capabilities"]
        assert offered["resources"] == {"subscribe": True, "listChanged": True}
        async with connected(service, "2025-11-25") as client:
            assert client.initialized["capabilities"]["resources"] == {"subscribe": True, "listChanged": True}
            assert not client.initialized["capabilities"]["tools"].get("listChanged")
            assert client.initialized["capabilities"]["completions"] == {}


async def test_a_client_of_the_older_revisions_is_told_of_the_list_without_asking(data_dir: Path) -> None:
    async with running(data_dir) as service, connected(service, "2025-11-25") as client:
        await client.call("list_sessions")
        seen = told(client, LIST)
        await service.sessions.start(CALLER)
        await client.until(lambda: told(client, LIST) > seen)


async def test_who_left_is_told_nothing_any_more(data_dir: Path) -> None:
    prompts = "My name is John", "Hello"
    async with (
        asked_before(data_dir, *prompts) as (service, (reply, other)),
        connected(service, "2025-11-25") as client,
    ):
        await watch(client, reply.transcript, other.transcript)
        await client.request("resources/unsubscribe", {"uri": reply.transcript})
        await ask(service, "What's my name?", reply.session_id)
        await ask(service, "Hello again", other.session_id)  # told after it, if that were told
        await client.until(lambda: told(client, UPDATED, other.transcript) > 0)
        assert told(client, UPDATED, reply.transcript) == 0


async def test_a_stream_of_notices_is_left_by_cancelling_its_request(data_dir: Path) -> None:
    async with running(data_dir) as service, connected(service, MODERN) as client:
        number = await watch(client)
        await client.notify("notifications/cancelled", {"requestId": number})
        again = await watch(client)
        await service.sessions.start(CALLER)
        await client.until(lambda: told(client, LIST) > 0)
        assert {params["_meta"][STREAM] for method, params in client.told if method == LIST} == {again}


@pytest.mark.parametrize("revision", REVISIONS[1:])
async def test_no_more_is_subscribed_to_than_can_be_kept(data_dir: Path, revision: str) -> None:
    async with running(data_dir) as service, connected(service, revision) as client:
        for uris in ([f"session://s-{number}/transcript" for number in range(600)], ["session://" + "x" * 5000]):
            if revision == MODERN:
                given = {"notifications": {"resourceSubscriptions": uris}}
                refused = client.request("subscriptions/listen", given)
            else:
                refused = subscribe_all(client, uris)
            with pytest.raises(Refused) as caught:
                await refused
            assert caught.value.code == -32602


async def subscribe_all(client: Wire, uris: list[str]) -> None:
    for uri in uris:
        await client.request("resources/subscribe", {"uri": uri})


@pytest.mark.filterwarnings("ignore:resources/subscribe is removed")  # it is how the older revisions ask
async def test_notices_reach_clients_over_http(tmp_path: Path, era: str) -> None:
    heard: list[str] = []
    news = asyncio.Event()

    async def hear(message: object) -> None:
        heard.append(type(message).__name__)
        news.set()

    with serving(tmp_path / "data") as web:
        own = {"session_id": "mine"}
        transcript = await asyncio.to_thread(lambda: web.ask("My name is John", **own)["transcript"])
        async with web.mcp(era, message_handler=hear) as client, asyncio.timeout(DEADLINE):
            if era == MODERN:
                async with client.listen(resources_list_changed=True, resource_subscriptions=[transcript]) as events:
                    await asyncio.to_thread(web.ask, "What's my name?", **own)
                    await asyncio.to_thread(web.ask, "Hello")
                    missing = {ResourceUpdated(uri=transcript), ResourcesListChanged()}
                    while missing:
                        missing.discard(await anext(events))
                return
            await client.subscribe_resource(transcript)  # pyright: ignore[reportDeprecated]
            # The client may still be opening the stream on which notices come: what is told before goes nowhere.
            while {"ResourceUpdatedNotification", "ResourceListChangedNotification"} - set(heard):
                news.clear()
                await asyncio.to_thread(web.ask, "What's my name?", **own)
                await asyncio.to_thread(web.ask, "Hello")
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), 2)


async def client_told(client: Wire, seen: int) -> None:
    await client.until(lambda: told(client, LIST) > seen)
