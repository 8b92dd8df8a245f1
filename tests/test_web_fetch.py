"""web_fetch reads the public web, and nothing leads it anywhere else."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent_mcp.domain import AgentId, Reply
from agent_mcp.service import AgentDraft, Service
from agent_mcp.toolbox.addresses import in_domains, is_odd_number, is_open_port, is_public
from in_process import CALLER, ask, running
from life import order
from loopback_web import OTHER, PUBLIC, PUBLIC_V6, LoopbackWeb, Page, certificate, moved, packed

ARTICLE = """<html><head><title>Bees</title><script>steal()</script></head><body><nav>Menu</nav>
<h1>Honey</h1><p>Bees make <b>honey</b>. <a href="/more">More</a> <a href="javascript:x()">here</a></p></body></html>"""

_CODECS = ("punycode", "idna", "zlib", "undefined", "klingon")


class Reader:
    """An agent with web_fetch."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def read(self, url: str, **arguments: object) -> tuple[str, str]:
        """How the tool ended, and what it gave."""
        reply: Reply = await ask(self.service, order("web_fetch", url=url, **arguments), agent="reader")
        (call,) = reply.tool_calls
        page = await self.service.sessions.read(CALLER, reply.session_id)
        return str(call.status), next(m.text for m in page.messages if m.role == "tool")

    async def read_all(self, urls: Sequence[str]) -> tuple[list[str], str]:
        """How the tool ended for each, and all that it gave, from one turn."""
        prompt = " and ".join(order("web_fetch", url=url) for url in urls)
        reply: Reply = await ask(self.service, prompt, agent="reader")
        assert [call.arguments["url"] for call in reply.tool_calls] == list(urls)
        page = await self.service.sessions.read(CALLER, reply.session_id)
        return [str(call.status) for call in reply.tool_calls], "".join(
            m.text for m in page.messages if m.role == "tool"
        )


@asynccontextmanager
async def reader(web: LoopbackWeb, data: Path, domains: Sequence[str] = ()) -> AsyncGenerator[Reader]:
    async with running(data, internet=web.internet(*domains)) as service:
        await service.agents.create(CALLER, AgentDraft(name="Reader", tools=("web_fetch",)), agent_id=AgentId("reader"))
        yield Reader(service)


async def test_a_page_is_read_as_markdown_with_its_links_whole(data_dir: Path) -> None:
    web = LoopbackWeb({"bees.example/honey": Page(ARTICLE)}, names={"bees.example": [PUBLIC]})
    with web:
        async with reader(web, data_dir) as agent:
            status, text = await agent.read("http://bees.example/honey")
    assert status == "success"
    assert text.startswith("[http://bees.example/honey]\n\n# Bees")
    assert "Bees make **honey**. [More](http://bees.example/more) here" in text
    assert "steal" not in text
    assert "Menu" not in text
    (asked,) = web.asked
    assert (asked.address, asked.host) == (PUBLIC, "bees.example")
    assert not {"cookie", "authorization", "referer"} & set(asked.headers)


async def test_a_long_text_is_read_in_pieces(data_dir: Path) -> None:
    text = "".join(f"line {n}\n" for n in range(5000))
    web = LoopbackWeb({"a.example/t": Page(text, kind="text/plain")}, names={"a.example": [PUBLIC]})
    with web:
        async with reader(web, data_dir) as agent:
            _, first = await agent.read("http://a.example/t")
            assert "call web_fetch with start=20000" in first
            _, last = await agent.read("http://a.example/t", start=40000)
    assert last.endswith("line 4999\n")


async def test_a_page_that_names_no_charset_of_pages_is_read_as_utf_8(data_dir: Path) -> None:
    # Python has codecs for names and for packing under the same lookup: punycode takes hours for what a page can hold.
    named = {name: Page(f"Grüße in {name}", kind=f"text/plain; charset={name}") for name in _CODECS}
    web = LoopbackWeb({f"a.example/{name}": page for name, page in named.items()}, names={"a.example": [PUBLIC]})
    with web:
        async with reader(web, data_dir) as agent:
            for name in named:
                status, text = await agent.read(f"http://a.example/{name}")
                assert (status, text.splitlines()[-1]) == ("success", f"Grüße in {name}")


async def test_what_is_no_text_or_too_much_is_refused(data_dir: Path) -> None:
    big = b"a" * (6 * 1024 * 1024)
    pages = {
        "a.example/image": Page(b"\x89PNG\0", kind="image/png"),
        "a.example/lie": Page(b"\0\1\2", kind="text/plain"),
        "a.example/big": Page(big, kind="text/plain"),
        "a.example/bomb": packed(b"a" * (16 * 1024 * 1024)),
        "a.example/nested": Page(b"x", headers={"Content-Encoding": "gzip, gzip"}),
        "a.example/broken": Page(b"no gzip", headers={"Content-Encoding": "gzip"}),
        "a.example/packed": packed(b"small"),
        "a.example/gone": Page("Gone", status=410),
        "a.example/deep": Page("<div>" * 3_000 + "in the deep"),
    }
    web = LoopbackWeb(pages, names={"a.example": [PUBLIC]})
    reasons = {
        "image": "only text can be read",
        "lie": "no text",
        "big": "larger than 5 MiB",
        "bomb": "larger than 5 MiB",
        "nested": "which is not read",
        "broken": "not packed as it says",
        "gone": "410",
        "missing": "404",
    }
    with web:
        async with reader(web, data_dir) as agent:
            for path, reason in reasons.items():
                status, text = await agent.read(f"http://a.example/{path}")
                assert status == "error", path
                assert reason in text
            assert await agent.read("http://a.example/packed") == (
                "success",
                "[http://a.example/packed]\n\nsmall",
            )
            status, _ = await agent.read("http://a.example/deep")
            assert status == "success"


LOCAL = [
    *("http://169.254.169.254/latest/meta-data/", "http://localhost:8080/", "http://127.0.0.1:8080/"),
    *("http://2130706433:8080/", "http://0x7f000001:8080/", "http://0x7f.1:8080/", "http://0177.0.0.1:8080/"),
    *("http://127.1:8080/", "http://0:8080/", "http://0.0.0.0:8080/", "http://[::1]:8080/", "http://[::]:8080/"),
    *("http://[::ffff:127.0.0.1]:8080/", "http://[::ffff:a9fe:a9fe]/", "http://[64:ff9b::a9fe:a9fe]/"),
    *("http://[2002:7f00:1::]:8080/", "http://[fe80::1%25eth0]/", "http://[fd00:ec2::254]/", "http://[ff02::1]/"),
    *("http://10.0.0.1/", "http://172.16.0.1/", "http://192.168.1.1/", "http://100.100.100.200/", "http://224.0.0.1/"),
    *("http://①②⑦.0.0.1:8080/", "http://127。0。0。1:8080/", "http://localhost.:8080/", "http://intern.example/"),
    *("http://both.example/", "http://v6.example/", "http://nowhere.example/", f"http://{PUBLIC}:25/"),
    *("file:///etc/passwd", "ftp://a.example/", "gopher://127.0.0.1:70/x", "data:text/plain,x", "//a.example/", "/etc"),
    *("http://user:secret@a.example/", "http://a.example@127.0.0.1:8080/", "http://", "http:///x", "http://[::1/", ""),
]
LOCATIONS = {
    number: url
    for number, url in enumerate(LOCAL)
    if url.isascii() and url not in ("", "/etc", "http:///x", "http://", "//a.example/")
}
"""Those that can stand in a header and don't lead back to the page itself."""
NAMES = {
    "localhost": ["127.0.0.1", "::1"],
    "a.example": [PUBLIC],
    "intern.example": ["10.1.2.3"],
    "both.example": [PUBLIC, "127.0.0.1"],
    "v6.example": ["::ffff:169.254.169.254"],
}


async def test_no_form_of_a_local_address_is_reached_directly_or_by_a_redirect(data_dir: Path) -> None:
    web = LoopbackWeb({f"a.example/{number}": moved(url) for number, url in LOCATIONS.items()}, names=NAMES)
    with web:
        async with reader(web, data_dir) as agent:
            statuses, text = await agent.read_all(LOCAL)
            assert dict(zip(LOCAL, statuses, strict=True)) == dict.fromkeys(LOCAL, "error")
            assert text.count("was not read") == len(LOCAL)
            assert web.dialled == []
            redirects = [f"http://a.example/{number}" for number in LOCATIONS]
            statuses, text = await agent.read_all(redirects)
            assert dict(zip(LOCATIONS.values(), statuses, strict=True)) == dict.fromkeys(LOCATIONS.values(), "error")
    assert {address for address, _ in web.dialled} == {PUBLIC}


async def test_a_name_that_changes_its_meaning_is_connected_to_where_it_was_checked(data_dir: Path) -> None:
    names = {"rebind.example": [[PUBLIC], ["127.0.0.1"], ["169.254.169.254"]]}
    web = LoopbackWeb({"rebind.example/": Page("public"), "rebind.example/on": moved("/")}, names=names)
    with web:
        async with reader(web, data_dir) as agent:
            status, text = await agent.read("http://rebind.example/")
            assert (status, web.dialled) == ("success", [(PUBLIC, 80)])
            status, text = await agent.read("http://rebind.example/on")
            assert status == "error"
            assert "not on the public internet" in text
    assert web.dialled == [(PUBLIC, 80)]


async def test_each_hop_of_a_redirect_is_checked_and_brings_nothing_along(data_dir: Path) -> None:
    pages = {
        "a.example/": Page(status=302, headers={"Location": "http://b.example/there", "Set-Cookie": "id=1; Path=/"}),
        "b.example/there": moved("/end"),
        "b.example/end": Page("You are here."),
        "a.example/loop": moved("/loop"),
    }
    web = LoopbackWeb(pages, names={"a.example": [PUBLIC], "b.example": [OTHER]})
    with web:
        async with reader(web, data_dir) as agent:
            status, text = await agent.read("http://a.example/")
            assert (status, text) == ("success", "[http://b.example/end]\n\nYou are here.")
            assert web.dialled == [(PUBLIC, 80), (OTHER, 80), (OTHER, 80)]
            assert not any("cookie" in asked.headers for asked in web.asked)
            status, text = await agent.read("http://a.example/loop")
            assert (status, "redirect" in text.lower()) == ("error", True)


async def test_the_next_address_is_tried_where_one_does_not_answer(data_dir: Path) -> None:
    web = LoopbackWeb({"a.example/": Page("here")}, names={"a.example": [PUBLIC_V6, PUBLIC]})
    web.dead.add(PUBLIC_V6)
    with web:
        async with reader(web, data_dir) as agent:
            status, text = await agent.read("http://a.example/")
    assert (status, "here" in text) == ("success", True)
    assert web.dialled == [(PUBLIC_V6, 80), (PUBLIC, 80)]


async def test_only_the_operators_domains_are_reached(data_dir: Path) -> None:
    names = {name: [PUBLIC] for name in ("good.example", "docs.good.example", "notgood.example", "bad.example")}
    pages = {f"{name}/": Page(name) for name in names} | {"good.example/out": moved("http://bad.example/")}
    web = LoopbackWeb(pages, names=names)
    with web:
        async with reader(web, data_dir, ["good.example"]) as agent:
            ends = {name: (await agent.read(f"http://{name}/"))[0] for name in names}
            out, text = await agent.read("http://good.example/out")
    assert [name for name, status in ends.items() if status == "success"] == ["good.example", "docs.good.example"]
    assert (out, "AGENT_MCP_WEB_DOMAINS" in text) == ("error", True)


async def test_a_certificate_must_be_the_hosts_whose_name_was_asked_for(data_dir: Path, tmp_path: Path) -> None:
    server_tls, client_tls = certificate("safe.example", tmp_path / "tls")
    names = {"safe.example": [PUBLIC], "false.example": [PUBLIC]}
    web = LoopbackWeb(
        {"safe.example/": Page("safe"), "false.example/": Page("false")},
        names=names,
        server_tls=server_tls,
        client_tls=client_tls,
    )
    with web:
        async with reader(web, data_dir) as agent:
            status, text = await agent.read("https://safe.example/")
            assert (status, "safe" in text) == ("success", True), text
            status, text = await agent.read("https://false.example/")
            assert status == "error"
            assert "certificate" in text.lower()


async def test_web_tools_can_be_closed_as_a_whole(data_dir: Path) -> None:
    async with running(data_dir, web_domains=("none",)) as service:
        assert "web_fetch" not in service.toolbox.names()
        why = next(offer for offer in service.toolbox.offers() if offer.name == "web_fetch")
        assert (why.allowed, "AGENT_MCP_WEB_DOMAINS" in why.why) == (False, True)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        *((text, True) for text in (PUBLIC, OTHER, PUBLIC_V6, "8.8.8.8", "2a00:1450:4001::1", "64:ff9b::808:808")),
        *((text, False) for text in ("127.0.0.1", "127.255.0.1", "0.0.0.0", "255.255.255.255", "169.254.169.254")),
        *((text, False) for text in ("192.0.0.192", "168.63.129.16", "192.88.99.1", "198.18.0.1", "240.0.0.1")),
        *((text, False) for text in ("::", "::1", "::ffff:8.8.8.8", "::8.8.8.8", "fec0::1", "fe80::1%eth0", "fc00::1")),
        *((text, False) for text in ("64:ff9b::7f00:1", "64:ff9b:1::808:808", "2001:0:4136:e378::1", "2001:db8::1")),
        *((text, False) for text in ("2002:808:808::1", "3fff::1", "100::1", "5f00::1", "ff0e::1", "host", "")),
    ],
)
def test_only_addresses_of_the_internet_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_numbers_that_resolvers_read_in_their_own_way_are_odd() -> None:
    assert all(map(is_odd_number, ("2130706433", "0x7f.1", "0177.0.0.1", "127.1", "1.2.3.4.5", "a.0x", "01.2.3.4")))
    assert not any(map(is_odd_number, ("127.0.0.1", "8.8.8.8", "a.example", "1and1.com", "x.0xygen", "::1")))


def test_domains_hold_what_is_below_them() -> None:
    assert in_domains("a.b.example", ["b.example"])
    assert in_domains("b.example", ["*.b.example"])
    assert in_domains("anything", ["*"])
    assert not in_domains("xb.example", ["b.example"])
    assert not in_domains("b.example", ["a.b.example", "none"])


def test_ports_of_other_services_are_closed() -> None:
    assert [port for port in (0, 22, 25, 80, 443, 993, 1024, 8080, 65535, 70000) if is_open_port(port)] == [
        *(80, 443, 1024, 8080, 65535)
    ]


async def test_a_page_that_takes_hours_to_take_apart_holds_up_nobody(data_dir: Path) -> None:
    pages = {
        "a.example/list": Page("<ol>" + "<li>x" * 180_000),
        "a.example/spaces": Page("<p>" + " " * 1_000_000 + "x"),  # one step, in which no other thread would run
        "a.example/good": Page(ARTICLE),
    }
    web = LoopbackWeb(pages, names={"a.example": [PUBLIC]})
    with web:
        async with reader(web, data_dir) as agent:
            for name in ("list", "spaces"):
                status, text = await agent.read(f"http://a.example/{name}")
                assert (status, "its markup was not taken apart" in text) == ("error", True)
            status, text = await agent.read("http://a.example/good")
    assert (status, "Bees make **honey**" in text) == ("success", True)


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-7"])
async def test_a_page_can_name_no_encoding_but_those_of_text(data_dir: Path, charset: str) -> None:
    web = LoopbackWeb(
        {"a.example/t": Page(b"a \\ud800 +2AA- z", kind=f"text/plain; charset={charset}")},
        names={"a.example": [PUBLIC]},
    )
    with web:
        async with reader(web, data_dir) as agent:
            status, text = await agent.read("http://a.example/t")
    assert status == "success"
    assert text.endswith("a \\ud800 +2AA- z")
