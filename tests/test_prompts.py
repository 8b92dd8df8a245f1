"""Prompts, the completion of ids, and what hosts show besides: icons, annotations, links."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference, ResourceLink, ResourceTemplateReference, TextContent

from agent_mcp.server.app import build_server
from conftest import ERAS, Door, call, held
from contract_record import RecordingClient
from in_process import running
from wire import REVISIONS, wire

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", params=ERAS)
async def near(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Door]:
    """A server in the test's own process, with a directory of its own."""
    async with (
        running(tmp_path / "data") as service,
        held(RecordingClient(build_server(service), mode=str(request.param))) as client,
    ):
        yield Door(client, tmp_path / "data")


async def text_and_links(client: Client, name: str, **arguments: str) -> tuple[str, list[str]]:
    messages = (await client.get_prompt(name, arguments)).messages
    assert all(message.role == "user" for message in messages)
    texts = [m.content.text for m in messages if isinstance(m.content, TextContent)]
    return "\n".join(texts), [m.content.uri for m in messages if isinstance(m.content, ResourceLink)]


async def of_prompt(client: Client, prompt: str, argument: str, text: str) -> list[str]:
    reference = PromptReference(type="ref/prompt", name=prompt)
    return (await client.complete(reference, {"name": argument, "value": text})).completion.values


async def of_template(client: Client, uri: str, argument: str, text: str, **chosen: str) -> list[str]:
    reference = ResourceTemplateReference(type="ref/resource", uri=uri)
    found = await client.complete(reference, {"name": argument, "value": text}, context_arguments=chosen or None)
    return found.completion.values


async def test_there_are_three_prompts_and_each_says_what_it_needs(near: Door) -> None:
    prompts = {prompt.name: prompt for prompt in (await near.client.list_prompts()).prompts}
    needed = {name: [a.name for a in prompt.arguments or [] if a.required] for name, prompt in prompts.items()}
    assert needed == {
        "delegate": ["task"],
        "continue_session": ["session_id"],
        "hand_over": ["session_id", "agent_id"],
    }
    for prompt in prompts.values():
        assert prompt.title
        assert prompt.description
        assert all(argument.description for argument in prompt.arguments or [])


async def test_delegate_names_the_agent_and_carries_the_task(near: Door) -> None:
    await call(near.client, "create_agent", name="Poet", description="Writes verse")
    text, links = await text_and_links(near.client, "delegate", task='Write "it"\nin two lines', agent_id="poet")
    assert 'ask_agent with agent_id "poet" (Writes verse)' in text
    assert 'Write "it"\nin two lines' in text
    assert "get_reply" in text
    assert links == []
    text, _ = await text_and_links(near.client, "delegate", task="Add")
    assert '"assistant"' in text


async def test_continue_session_says_what_stands_in_the_way_and_links_to_the_transcript(near: Door) -> None:
    reply = await call(near.client, "ask_agent", prompt="My name is John")
    session = reply["session_id"]
    text, links = await text_and_links(near.client, "continue_session", session_id=session)
    assert session in text
    assert '"My name is John"' in text
    assert "read_transcript" in text
    assert "expired" not in text
    assert links == [reply["transcript"]]
    text, _ = await text_and_links(near.client, "continue_session", session_id=session, message="What's my name?")
    assert f'ask_agent with session_id "{session}"' in text
    assert text.endswith("What's my name?")
    await call(near.client, "update_session", session_id=session, ttl_seconds=1)
    old = json.loads((near.data / f"session_{session}" / "metadata.json").read_text())
    old |= {"last_active_at": "2026-01-01T00:00:00Z", "revived_at": "2026-01-01T00:00:00Z"}
    (near.data / f"session_{session}" / "metadata.json").write_text(json.dumps(old))
    text, _ = await text_and_links(near.client, "continue_session", session_id=session)
    assert f'update_session(session_id="{session}", ttl_seconds=2592000)' in text


async def test_hand_over_tells_the_two_calls_that_it_takes(near: Door) -> None:
    reply = await call(near.client, "ask_agent", prompt="My name is John")
    await call(near.client, "create_agent", name="Poet")
    arguments = {"session_id": reply["session_id"], "agent_id": "poet"}
    text, links = await text_and_links(near.client, "hand_over", **arguments)
    assert f'start_session with continue_from "{reply["session_id"]}" and agent_id "poet"' in text
    assert "ask_agent" in text
    assert links == [reply["transcript"]]


WRONG: list[tuple[str, dict[str, str], str, str]] = [
    ("dellegate", {}, "invalid_argument", "delegate"),
    ("delegate", {}, "invalid_argument", "'task'"),
    ("delegate", {"task": " "}, "invalid_argument", "'task'"),
    ("delegate", {"task": "x", "agnet_id": "y"}, "invalid_argument", "agent_id"),
    ("delegate", {"task": "x", "agent_id": "../x"}, "invalid_argument", "agent_id"),
    ("delegate", {"task": "x", "agent_id": "nobody"}, "agent_not_found", "list_agents"),
    ("delegate", {"task": "x" * 200_000}, "invalid_argument", "shorten"),
    ("continue_session", {"session_id": "nothing"}, "session_not_found", "list_sessions"),
    ("hand_over", {"session_id": "nothing", "agent_id": "assistant"}, "session_not_found", "list_sessions"),
]


@pytest.mark.parametrize(("name", "arguments", "code", "way_out"), WRONG)
async def test_a_prompt_that_cant_be_made_is_a_protocol_error_that_says_what_to_do(
    near: Door, name: str, arguments: dict[str, str], code: str, way_out: str
) -> None:
    with pytest.raises(MCPError) as caught:
        await near.client.get_prompt(name, arguments)
    assert caught.value.error.code == -32602
    assert caught.value.error.message.endswith(f"[{code}]")
    assert way_out in caught.value.error.message


async def test_ids_of_agents_and_sessions_complete_in_prompts_and_templates(near: Door) -> None:
    for name in ("Poet", "Painter"):
        await call(near.client, "create_agent", name=name)
    first = await call(
        near.client, "ask_agent", prompt="The invoice of the plumber", session_id="plumber", agent_id="poet"
    )
    second = await call(near.client, "ask_agent", prompt="Something else")
    assert first["session_id"] == "plumber"
    for prompt in ("delegate", "hand_over"):
        assert await of_prompt(near.client, prompt, "agent_id", "p") == ["painter", "poet"]
    assert await of_template(near.client, "agent://{agent_id}", "agent_id", "Ass") == ["assistant"]
    assert await of_template(near.client, "agent://{agent_id}", "agent_id", "zzz") == []
    for argument in (("continue_session", "session_id"), ("hand_over", "session_id")):
        assert await of_prompt(near.client, *argument, "") == [second["session_id"], "plumber"]
        assert await of_prompt(near.client, *argument, "plu") == ["plumber"]
        assert await of_prompt(near.client, *argument, "invoice") == ["plumber"], "found by what was said"
    for uri in ("session://{session_id}/transcript", "session://{session_id}/messages"):
        assert await of_template(near.client, uri, "session_id", second["session_id"][:8]) == [second["session_id"]]
    assert await of_prompt(near.client, "delegate", "task", "any") == []


async def test_pages_complete_to_those_that_the_links_lead_to(near: Door) -> None:
    own = {"session_id": "long", "agent_id": "assistant"}
    for number in range(6):
        await call(near.client, "ask_agent", prompt=f"This is prompt {number}. {'x' * 200_000}", **own)
    template = "session://{session_id}/transcript/{page}"
    pages = await of_template(near.client, template, "page", "", session_id="long")
    assert pages
    text = (await near.client.read_resource("session://long/transcript")).contents[0]
    for page in pages:
        assert f"Earlier: <session://long/transcript/{page}>" in str(text)
        text = (await near.client.read_resource(f"session://long/transcript/{page}")).contents[0]
    assert "Earlier:" not in str(text)
    assert await of_template(near.client, template, "page", "x", session_id="long") == []
    assert await of_template(near.client, template, "page", "") == []


async def test_no_more_than_a_hundred_ids_are_suggested_and_more_are_announced(near: Door) -> None:
    for number in range(103):
        await call(near.client, "start_session", session_id=f"many-{number:03}")
    reference = PromptReference(type="ref/prompt", name="continue_session")
    found = (await near.client.complete(reference, {"name": "session_id", "value": "many"})).completion
    assert len(found.values) == 100
    assert found.has_more
    found = (await near.client.complete(reference, {"name": "session_id", "value": "many-01"})).completion
    assert len(found.values) == found.total == 10
    assert not found.has_more


async def test_completion_of_what_there_is_not_is_a_protocol_error(near: Door) -> None:
    for ask in (
        of_prompt(near.client, "nothing", "task", ""),
        of_prompt(near.client, "delegate", "tsak", ""),
        of_template(near.client, "file://{path}", "path", ""),
        of_template(near.client, "agent://{agent_id}", "session_id", ""),
        of_template(near.client, "session://{session_id}/transcript/{page}", "page", "", session_id="nothing"),
        of_template(near.client, "session://{session_id}/transcript/{page}", "page", "", session_id="../x"),
    ):
        with pytest.raises(MCPError) as caught:
            await ask
        assert caught.value.error.code == -32602
        assert caught.value.error.message.endswith("]")


async def test_what_hosts_show_has_icons_titles_and_annotations(near: Door) -> None:
    await call(near.client, "ask_agent", prompt="Hello")
    info = near.client.server_info  # later revisions tell it with each result instead
    shown: list[Any] = [
        *([info] if info else []),
        *(await near.client.list_tools()).tools,
        *(await near.client.list_prompts()).prompts,
    ]
    resources = (await near.client.list_resources()).resources
    templates = (await near.client.list_resource_templates()).resource_templates
    placed: list[Any] = [*resources, *templates]
    for one in [*shown, *placed]:
        assert one.title
        [icon] = one.icons
        assert icon.src.startswith("data:image/svg+xml,")
        assert len(icon.src) < 300
        assert "script" not in icon.src
    for one in placed:
        assert one.annotations.audience
        assert 0 < one.annotations.priority <= 1
    assert resources[0].uri.startswith("session://")
    assert resources[0].annotations is not None
    assert str(resources[0].annotations.last_modified).endswith("Z")


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_reply_links_to_its_transcript_where_the_revision_knows_links(data_dir: Path, revision: str) -> None:
    async with running(data_dir) as service, wire(build_server(service), revision) as client:
        result = await client.call("ask_agent", prompt="Hello")
        links = [part for part in result["content"] if part["type"] == "resource_link"]
        if revision < "2025-06-18":
            assert links == []
            return
        [link] = links
        assert link["uri"] == result["structuredContent"]["transcript"]
        assert link["annotations"]["audience"] == ["user"]
        read = await client.request("resources/read", {"uri": link["uri"]})
        assert "Hello" in read["contents"][0]["text"]


async def test_what_is_the_same_for_all_may_be_kept_and_the_callers_own_may_not(data_dir: Path) -> None:
    async with running(data_dir) as service, wire(build_server(service)) as client:
        reply = (await client.call("ask_agent", prompt="Hello"))["structuredContent"]
        for method in ("tools/list", "prompts/list", "resources/templates/list", "server/discover"):
            result = await client.request(method)
            assert (result["cacheScope"], result["ttlMs"] > 60_000) == ("public", True), method
        result = await client.request("resources/list")
        assert (result["cacheScope"], result["ttlMs"]) == ("private", 0)
        for uri, kept in ((reply["transcript"], False), (f"{reply['transcript']}/1", True)):
            result = await client.request("resources/read", {"uri": uri})
            assert (result["cacheScope"], result["ttlMs"] > 0) == ("private", kept)
