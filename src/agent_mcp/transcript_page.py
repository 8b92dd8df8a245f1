"""A transcript as one HTML page that needs nothing else: no scripts, no requests, whatever was said in it.

What is shown comes from people, models and tools, and none of it is trusted: text is Markdown without HTML, links lead
only to the web or to mail, pictures are not fetched. Should something slip through, the page's own policy forbids
scripts, requests and every style but the one below.
"""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from agent_mcp.characters import visible
from agent_mcp.domain import Message, SessionInfo

_SAFE_SCHEMES = ("http", "https", "mailto")
_NAMES = {"user": "User", "assistant": "Assistant", "tool": "Tool"}
_STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f5f2; --card: #ffffff; --ink: #1d1d1b; --quiet: #6a6862; --line: #e2dfd8; --code: #f1efea;
  --user: #2f5d8a; --assistant: #3c7a57; --tool: #8a6a2f; --link: #1f5fa8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #161615; --card: #1f1f1d; --ink: #e8e6e1; --quiet: #a09d95; --line: #34332f; --code: #2a2926;
    --user: #86b3dd; --assistant: #8cc9a6; --tool: #d3b06c; --link: #8fbdf0;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main { max-width: 46rem; margin: 0 auto; padding: 2.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
.about { margin: 0 0 2rem; color: var(--quiet); font-size: .875rem; }
.about { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
.about div { display: flex; gap: .4rem; min-width: 0; }
.about dd { margin: 0; color: var(--ink); overflow-wrap: anywhere; }
article {
  background: var(--card); border: 1px solid var(--line); border-left: 3px solid var(--who);
  border-radius: .5rem; padding: .9rem 1.1rem 1rem; margin: 0 0 1rem; overflow-wrap: anywhere;
}
.user { --who: var(--user); } .assistant { --who: var(--assistant); } .tool { --who: var(--tool); }
.head { display: flex; align-items: baseline; gap: .6rem; margin-bottom: .45rem; }
.head { font-size: .8125rem; color: var(--quiet); }
.head h2 { font-size: .875rem; margin: 0; color: var(--who); letter-spacing: .01em; }
.head a { color: inherit; text-decoration: none; margin-left: auto; }
.head a:hover { text-decoration: underline; }
.said > :first-child { margin-top: 0; } .said > :last-child { margin-bottom: 0; }
.said :is(h1, h2, h3, h4, h5, h6) { font-size: 1.05rem; line-height: 1.35; margin: 1.2rem 0 .4rem; }
p, ul, ol, blockquote, pre, table { margin: 0 0 .8rem; }
ul, ol { padding-left: 1.5rem; }
blockquote { border-left: 3px solid var(--line); padding-left: .9rem; margin-left: 0; color: var(--quiet); }
blockquote > :last-child { margin-bottom: 0; }
a { color: var(--link); }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .85em; }
code { background: var(--code); border-radius: .25rem; padding: .1em .3em; }
pre { background: var(--code); border-radius: .4rem; padding: .75rem .9rem; overflow-x: auto; overflow-wrap: normal; }
pre code { background: none; padding: 0; font-size: 1em; }
.wide { overflow-x: auto; margin-bottom: .8rem; }
table { border-collapse: collapse; margin: 0; font-size: .925rem; overflow-wrap: normal; }
th, td { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top; }
.right { text-align: right; } .center { text-align: center; }
hr { border: 0; border-top: 1px solid var(--line); margin: 1.2rem 0; }
details { margin-top: .7rem; font-size: .9rem; }
summary { cursor: pointer; color: var(--quiet); } summary code { color: var(--ink); }
details pre { margin: .5rem 0 0; max-height: 24rem; overflow: auto; }
.failed { color: #b3372f; } @media (prefers-color-scheme: dark) { .failed { color: #f08c83; } }
footer { color: var(--quiet); font-size: .8125rem; text-align: center; margin-top: 2rem; }
@media (max-width: 30rem) {
  main { padding-top: 1.25rem; } article { padding: .75rem .85rem .85rem; } h1 { font-size: 1.35rem; }
}
@media print { body { background: none; } article { break-inside: avoid; } details pre { max-height: none; } }
"""


def html_page(session: SessionInfo, messages: Sequence[Message]) -> str:
    """The whole transcript, however long, as one page for light and dark, phone and desk."""
    title = _text(session.title or session.session_id)
    style = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    about = {
        "Session": session.session_id,
        "Agent": session.agent_id,
        "Actor": session.actor_id,
        "Model": session.model or "",
        "Begun": _time(session.created_at),
        "Turns": str(session.turns),
    }
    facts = "".join(f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>" for name, value in about.items() if value)
    said = "\n".join(_article(message) for message in messages) or "<p>Nothing was said yet.</p>"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header>
<h1 dir="auto">{title}</h1>
<dl class="about">{facts}</dl>
</header>
{said}
<footer>{len(messages)} messages, exported by agent-mcp</footer>
</main>
</body>
</html>
"""


def _article(message: Message) -> str:
    at = f"<time>{_time(message.created_at)}</time>" if message.created_at else ""
    if message.role == "tool":
        body = _folded("What the tool returned", message.text)
    else:
        body = f'<div class="said" dir="auto">{_markdown().render(visible(message.text))}</div>' if message.text else ""
    for call in message.tool_calls:
        arguments = json.dumps(call.arguments, ensure_ascii=False, indent=2, default=str)
        failed = ' <span class="failed">failed</span>' if call.status == "error" else ""
        body += _folded(f"Uses the tool <code>{_text(call.name)}</code>{failed}", arguments)
    number = message.index
    return (
        f'<article class="{message.role}" id="m{number}">'
        f'<div class="head"><h2>{_NAMES[message.role]}</h2>{at}<a href="#m{number}">#{number}</a></div>'
        f"{body}</article>"
    )


def _folded(summary: str, text: str) -> str:
    return f'<details><summary>{summary}</summary><pre dir="auto">{_text(text)}</pre></details>'


def _text(text: str) -> str:
    return html.escape(visible(text))


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _is_safe(url: str) -> bool:
    try:
        return urlsplit(url.strip()).scheme.lower() in _SAFE_SCHEMES
    except ValueError:
        return False


@cache
def _markdown() -> MarkdownIt:
    """Markdown as people and models write it, without HTML; pictures stay the links that they are."""
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")
    parser.validateLink = _is_safe
    parser.add_render_rule("link_open", _link_open)
    for name in ("th_open", "td_open"):
        parser.add_render_rule(name, _cell_open)
    parser.add_render_rule("table_open", _table_open)
    parser.add_render_rule("table_close", _table_close)
    return parser


Tokens = Sequence[Token]


def _link_open(self: RendererHTML, tokens: Tokens, at: int, options: OptionsDict, env: EnvType) -> str:
    tokens[at].attrSet("rel", "noopener noreferrer nofollow")
    return str(self.renderToken(tokens, at, options, env))


def _cell_open(self: RendererHTML, tokens: Tokens, at: int, options: OptionsDict, env: EnvType) -> str:
    """The policy forbids styles of single elements, so a column's alignment becomes a class."""
    style: Any = tokens[at].attrs.pop("style", None)
    if style in ("text-align:right", "text-align:center"):
        tokens[at].attrSet("class", str(style).partition(":")[2])
    return str(self.renderToken(tokens, at, options, env))


def _table_open(self: RendererHTML, tokens: Tokens, at: int, options: OptionsDict, env: EnvType) -> str:
    return '<div class="wide"><table>\n'


def _table_close(self: RendererHTML, tokens: Tokens, at: int, options: OptionsDict, env: EnvType) -> str:
    return "</table></div>\n"
