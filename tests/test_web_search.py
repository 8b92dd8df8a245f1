"""web_search asks the operator's service, with its key and nobody else's."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent_mcp.ids import AgentId
from agent_mcp.service import AgentDraft, Service
from in_process import CALLER, ask, running
from life import order
from loopback_web import PUBLIC, Asked, LoopbackWeb, Page, certificate, moved

TAVILY = {"results": [{"title": "Bees", "url": "https://a.example/bees", "content": "They make\nhoney."}]}
BRAVE = {"web": {"results": [{"title": "Wasps", "url": "https://a.example/wasps", "description": "They do not."}]}}


@asynccontextmanager
async def searcher(web: LoopbackWeb, data: Path, environ: Mapping[str, str]) -> AsyncGenerator[Service]:
    async with running(data, internet=web.internet(), environ=environ) as service:
        await service.agents.create(CALLER, AgentDraft(name="S", tools=("web_search",)), agent_id=AgentId("s"))
        yield service


async def search(service: Service, query: str = "honey", **arguments: object) -> tuple[str, str]:
    reply = await ask(service, order("web_search", query=query, **arguments), agent="s")
    page = await service.sessions.read(CALLER, reply.session_id)
    return str(reply.tool_calls[0].status), next(m.text for m in page.messages if m.role == "tool")


async def test_tavily_is_asked_where_there_is_a_key_for_it(data_dir: Path, tmp_path: Path) -> None:
    server, client = certificate("api.tavily.com", tmp_path / "tls")
    answers = [Page(json.dumps(TAVILY), kind="application/json"), Page("{}", status=429), moved("https://b.example/")]
    web = LoopbackWeb(
        {"api.tavily.com/search": lambda _: answers.pop(0)},
        names={"api.tavily.com": [PUBLIC], "b.example": [PUBLIC]},
        server_tls=server,
        client_tls=client,
    )
    with web:
        async with searcher(web, data_dir, {"TAVILY_API_KEY": "tvly-1", "BRAVE_API_KEY": "b"}) as service:
            assert await search(service, max_results=99) == (
                "success",
                "Bees\nhttps://a.example/bees\nThey make honey.",
            )
            status, text = await search(service)
            assert (status, "answered 429" in text, "tvly-1" in text) == ("error", True, False)
            status, text = await search(service)
            assert (status, "answered 302" in text) == ("error", True)
    assert [asked.host for asked in web.asked] == ["api.tavily.com"] * 3
    assert web.asked[0].headers["authorization"] == "Bearer tvly-1"
    assert json.loads(web.asked[0].body) == {"query": "honey", "max_results": 10}


async def test_brave_is_asked_where_there_is_a_key_for_it_alone(data_dir: Path, tmp_path: Path) -> None:
    server, client = certificate("api.search.brave.com", tmp_path / "tls")
    seen: list[Asked] = []

    def answer(asked: Asked) -> Page:
        seen.append(asked)
        return Page(json.dumps(BRAVE), kind="application/json")

    web = LoopbackWeb(
        {"api.search.brave.com/res/v1/web/search": answer},
        names={"api.search.brave.com": [PUBLIC]},
        server_tls=server,
        client_tls=client,
    )
    with web:
        async with searcher(web, data_dir, {"BRAVE_API_KEY": "brave-1"}) as service:
            assert await search(service) == ("success", "Wasps\nhttps://a.example/wasps\nThey do not.")
    assert seen[0].headers["x-subscription-token"] == "brave-1"
    assert "q=honey" in seen[0].path


async def test_the_search_is_offered_only_where_the_domains_let_its_service_be_asked(data_dir: Path) -> None:
    tavily = {"TAVILY_API_KEY": "k"}
    for domains, environ, offered in (
        (("a.example",), {}, False),
        (("a.example",), tavily, False),
        (("a.example", "api.tavily.com"), tavily, True),
        (("*",), {}, True),
    ):
        async with running(data_dir, web_domains=domains, environ=environ) as service:
            assert ("web_search" in service.toolbox.names()) is offered, domains


async def test_a_search_that_can_not_be_made_is_an_error_that_says_what_helps(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key. The library finds no way to any search engine: where it is sent nobody listens."""
    monkeypatch.setenv("DDGS_PROXY", "http://127.0.0.1:9")
    async with running(data_dir) as service:
        await service.agents.create(CALLER, AgentDraft(name="S", tools=("web_search",)), agent_id=AgentId("s"))
        status, text = await search(service, query="")
        assert (status, "the query is empty" in text) == ("error", True)
        status, text = await search(service)
        assert (status, "The search failed: " in text) == ("error", True)
        assert "TAVILY_API_KEY or BRAVE_API_KEY" in text
        assert "\n" not in text
        assert (await ask(service, order("current_time"), agent="s")).status == "completed"
