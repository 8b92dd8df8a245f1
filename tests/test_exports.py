"""Exports, and what a terminal is shown: whatever was said in a session, a page and a terminal do nothing of it."""

import base64
import hashlib
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from agent_mcp.characters import visible
from agent_mcp.domain import ActorId, AgentId, Message, SessionId, SessionInfo, ToolCall, Usage
from agent_mcp.transcript_page import html_page
from agent_mcp.transcripts import document
from in_process import ask, running
from life import shell

AT = datetime(2026, 11, 29, 18, 4, tzinfo=UTC)
HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(2)><style>*{display:none}</style></main></article>",
    "![picture](https://evil.example/p.png) ![p](data:image/png;base64,AAAA)",
    "[a](javascript:alert(3)) [b](JaVaScRiPt:alert(3)) [c](data:text/html,x) [d](//evil.example) [e](vbscript:x)",
    "<javascript:alert(4)> [f]: javascript:alert(5)\n\n[f]\n\n[g](&#106;avascript:alert(6))",
    "[good](https://example.com/?a=1&b=2) [mail](mailto:ann@example.com)",
    "```html\n<script>alert(7)</script>",
    '| a |\n| :-: |\n| <b onclick="x()">x</b> |',
    "\x1b]0;title\x07 \x00 \x1c \x85 \ud800 \u202e reversed",
    '"><script>alert(8)</script>',
]


def session(title: str = '</title><script>alert("t")</script>') -> SessionInfo:
    return SessionInfo(
        session_id=SessionId("mine"),
        agent_id=AgentId("assistant"),
        actor_id=ActorId('"><b>ann'),
        title=title,
        status="active",
        model="<i>model",
        created_at=AT,
        last_active_at=AT,
        expires_at=None,
        turns=1,
        usage=Usage(),
        transcript="session://mine/transcript",
    )


def said() -> list[Message]:
    call = ToolCall(name="<script>", arguments={"x": "</pre><script>alert(9)</script>"}, status="error")
    texts = [Message(index=n, role="user", text=text, created_at=AT) for n, text in enumerate(HOSTILE)]
    tools = [Message(index=n, role="tool", text=text, created_at=AT) for n, text in enumerate(HOSTILE, len(texts))]
    return [*texts, *tools, Message(index=99, role="assistant", text="", tool_calls=(call,))]


class Page(HTMLParser):
    """The tags of a page with their attributes, and what its style element holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.style = ""
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.style += data


def test_a_page_holds_no_script_no_request_and_no_dangerous_link() -> None:
    page = Page(html_page(session(), said()))
    names = {name for name, _ in page.tags}
    assert not names & {"script", "img", "iframe", "object", "embed", "form", "link", "base", "svg", "i", "b"}
    assert [name for name, _ in page.tags].count("style") == 1
    for name, attributes in page.tags:
        assert not [a for a in attributes if a.startswith("on") or a in ("src", "srcset", "style")], (name, attributes)
        if (target := attributes.get("href")) is not None:
            assert re.match(r"https?://|mailto:|#m\d+$", target), target
            assert target.startswith("#") or attributes.get("rel") == "noopener noreferrer nofollow"
    links = [a["href"] for tag, a in page.tags if tag == "a" and not str(a["href"]).startswith("#")]
    assert "https://example.com/?a=1&b=2" in links
    assert "mailto:ann@example.com" in links


def test_the_policy_of_a_page_allows_its_own_style_and_nothing_else() -> None:
    page = Page(html_page(session(), said()))
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_a_page_holds_all_that_was_said_and_no_control_characters() -> None:
    call = ToolCall(name="turned \u202e", arguments={}, status="success")
    messages = [*said(), Message(index=100, role="assistant", text="", tool_calls=(call,))]
    text = html_page(session("A title \u202e \x1c می‌خواهم 👨‍👩‍👧"), messages)
    assert "alert(7)" in text
    assert "می‌خواهم 👨‍👩‍👧" in text
    assert text.count("<article") == len(messages)
    assert not re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    text.encode()


@pytest.mark.parametrize(
    "text",
    [
        "```\nunclosed",
        "~~~~ python\nx = 1\n```\n~~~",
        "a closed one\n```\nx\n```\nand\n   ````\nan open one\n```",
        "<!-- a comment",
        "<pre>\n\nopen",
        "<?php\n\n$x",
        "``` not `a` fence",
        "```\nclosed\n```",
    ],
)
def test_what_somebody_leaves_open_does_not_swallow_the_rest_of_a_transcript(text: str) -> None:
    messages = [Message(index=0, role="user", text=text), Message(index=1, role="assistant", text="Here I am.")]
    tokens = MarkdownIt("commonmark").parse(document(session("T"), messages))
    headings = [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings == ["T", "0. User", "1. Assistant"]


def test_a_terminal_is_sent_nothing_that_it_would_act_on() -> None:
    shown = visible("red \x1b[31m \x9b2J \x07 \u202e line\nbreak\ttab é 漢 می‌خواهم 👨‍👩‍👧")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert visible("of Windows\r\nand of\rnobody") == "of Windows\nand of\ufffdnobody"
    assert "line\nbreak\ttab é 漢 می‌خواهم 👨‍👩‍👧" in shown


async def test_sessions_are_searched_and_exported_in_the_shell(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    async with running(data) as service:
        first = (await ask(service, "A violet zeppelin")).session_id
        await ask(service, "Something else")
    found = await shell(data, "sessions", "search", '"violet zeppelin"')
    assert found.code == 0
    assert found.out.startswith(f"{first}\t")
    page = await shell(data, "sessions", "export", first, "--output", str(tmp_path / "page.html"))
    assert (page.code, page.out) == (0, "")
    assert "zeppelin" in (tmp_path / "page.html").read_text()
    every = await shell(data, "sessions", "export", "--all", "--format", "json", "--output", str(out))
    assert every.code == 0, every.err
    assert len(list(out.iterdir())) == 2
    assert json.loads((out / f"{first}.json").read_text())["messages"][0]["text"] == "A violet zeppelin"
    both = await shell(data, "sessions", "export", first, "--all")
    assert both.code == 2


async def test_a_shell_completes_the_ids_that_there_are(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with running(data) as service:
        session_id = (await ask(service, "Hello")).session_id
    script = await shell(data, "completion", "zsh")
    assert "_AGENT_MCP_COMPLETE" in script.out
    words = {"COMP_WORDS": "agent-mcp sessions show s-", "COMP_CWORD": "3", "_AGENT_MCP_COMPLETE": "bash_complete"}
    done = await shell(data, env=words)
    assert done.out == f"plain,{session_id}\n"
