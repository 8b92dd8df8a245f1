"""What a web server answers, as text that a model can read."""

from __future__ import annotations

import codecs
from urllib.parse import urljoin

from bs4 import BeautifulSoup, Tag
from markdownify import MarkdownConverter

MAX_MARKUP = 1024 * 1024
"""The most of a page's markup that is read: more is data, and taking it apart would hold up everybody."""

_MARKUP = ("text/html", "application/xhtml+xml")
_TEXT = ("application/json", "application/xml", "application/javascript", "application/yaml", "application/toml")
_NOT_CONTENT = (
    *("script", "style", "noscript", "template", "svg", "canvas", "iframe", "object", "embed", "video", "audio"),
    *("form", "input", "button", "select", "textarea", "nav"),
)


_NO_CHARSETS = ("idna", "punycode")
"""Python decodes these too: they are for names, and take hours for what a page can hold."""


class NotText(ValueError):
    """An answer that is no text."""


def as_text(body: bytes, *, content_type: str, url: str) -> str:
    """A page as Markdown, other text as it is; raises NotText. `url` is what its links are relative to. Blocking."""
    kind, _, parameters = content_type.lower().partition(";")
    kind = kind.strip()
    charset = _charset(parameters)
    if kind in _MARKUP:
        return _markdown(body[:MAX_MARKUP], charset=charset, url=url)
    if not (kind.startswith("text/") or kind in _TEXT or kind.endswith(("+json", "+xml")) or (not kind and body)):
        raise NotText(f"it is {kind or 'empty'}, and only text can be read")
    if b"\0" in body[:8192]:
        raise NotText("it is no text, whatever it says")
    return body.decode(charset or "utf-8", errors="replace")


def _charset(parameters: str) -> str | None:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "charset":
            try:
                found = codecs.lookup(value.strip("\"' ")).name
                b"a".decode(found)  # refused by those that make no text, like zlib
            except (LookupError, UnicodeError):
                return None
            return None if found in _NO_CHARSETS else found
    return None


def _markdown(body: bytes, *, charset: str | None, url: str) -> str:
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
