"""A web page as Markdown. It is run as a process of its own, which can be ended: pages are made by others, and some
markup takes hours to convert, part of them in one step that holds up every thread of its process.

Nothing of agent_mcp is imported here, so that the process starts fast.
"""

from __future__ import annotations

import json
import sys
from urllib.parse import urljoin

from bs4 import BeautifulSoup, Tag
from markdownify import MarkdownConverter

_MAX_TEXT = 5 * 1024 * 1024
"""Characters that are handed back: quotes in quotes and lists in lists come out many times as long as they went in."""
_MEMORY = 2 * 1024**3
_NOT_CONTENT = (
    *("script", "style", "noscript", "template", "svg", "canvas", "iframe", "object", "embed", "video", "audio"),
    *("form", "input", "button", "select", "textarea", "nav"),
)


def markdown(body: bytes, *, charset: str | None, url: str) -> str:
    """The content of a page. `url` is what its links are relative to."""
    # lxml and not Python's own parser, which takes time without bound for some broken pages.
    soup = BeautifulSoup(body, "lxml", from_encoding=charset)
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    if soup.head is not None:
        soup.head.decompose()
    for element in soup(_NOT_CONTENT):
        element.decompose()
    for image in soup("img"):
        image.replace_with(_attribute(image, "alt"))
    for link in soup("a"):
        target = urljoin(url, _attribute(link, "href").strip()) if link.get("href") else ""
        if target.startswith(("http://", "https://")):
            link["href"] = target
        else:
            link.unwrap()
    try:
        text = MarkdownConverter(heading_style="ATX", bullets="-").convert_soup(soup).strip()
    except RecursionError:
        text = soup.get_text("\n", strip=True)
    return f"# {title}\n\n{text}" if title else text


def _attribute(tag: Tag, name: str) -> str:
    value = tag.get(name)
    return value if isinstance(value, str) else ""


def _bound_memory() -> None:
    if sys.platform == "linux":  # elsewhere the limit is not kept, or not there
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def main() -> None:
    """From stdin a line of JSON (charset, url) and the page's bytes; to stdout its Markdown in UTF-8."""
    _bound_memory()
    about = json.loads(sys.stdin.buffer.readline())
    text = markdown(sys.stdin.buffer.read(), charset=about["charset"], url=about["url"])
    sys.stdout.buffer.write(text[:_MAX_TEXT].encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
