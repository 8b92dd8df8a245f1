"""What a web server answers, as text that a model can read."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from agent_mcp.toolbox.charsets import charset_of

MAX_MARKUP = 1024 * 1024
"""The most of a page's markup that is read: more is data."""
SECONDS = 20.0
"""How long the conversion of a page may take."""

_MARKUP = ("text/html", "application/xhtml+xml")
_TEXT = ("application/json", "application/xml", "application/javascript", "application/yaml", "application/toml")
_CONVERTER = os.path.join(os.path.dirname(__file__), "markup.py")


class NotText(ValueError):
    """An answer that is no text, or none that can be made of it."""


def as_text(body: bytes, *, content_type: str, url: str) -> str:
    """A page as Markdown, other text as it is; raises NotText. `url` is what its links are relative to. Blocking."""
    kind = content_type.lower().partition(";")[0].strip()
    charset = charset_of(content_type)
    if kind in _MARKUP:
        return _markdown(body[:MAX_MARKUP], charset=charset, url=url)
    if not (kind.startswith("text/") or kind in _TEXT or kind.endswith(("+json", "+xml")) or (not kind and body)):
        raise NotText(f"it is {kind or 'empty'}, and only text can be read")
    if b"\0" in body[:8192]:
        raise NotText("it is no text, whatever it says")
    return body.decode(charset or "utf-8", errors="replace")


def _markdown(body: bytes, *, charset: str | None, url: str) -> str:
    about = json.dumps({"charset": charset, "url": url}).encode()
    try:
        # -P: the modules beside the converter are none of those that its imports mean.
        done = subprocess.run(
            [sys.executable, "-P", _CONVERTER],
            input=about + b"\n" + body,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except subprocess.TimeoutExpired:
        raise NotText(f"its markup was not taken apart within {SECONDS:g} seconds") from None
    except subprocess.CalledProcessError:
        raise NotText("its markup can't be taken apart") from None
    return done.stdout.decode()
