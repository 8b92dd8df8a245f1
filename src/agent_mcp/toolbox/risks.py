"""Tools that are harmless alone and are not together: what others wrote, beside what it could be used for."""

from __future__ import annotations

from collections.abc import Iterable

_WEB = ("web_search", "web_fetch", "http_request")
_CODE = ("shell", "python_repl", "file_editor")


def risks(tools: Iterable[str], *, remembers: bool) -> list[str]:
    """What an operator should know of an agent with these tools, and whether it remembers facts; none: nothing."""
    names = set(tools)
    outside = sorted(name for name in names if name in _WEB or name.startswith("mcp:"))
    code = sorted(names.intersection(_CODE))
    if not outside:
        return []
    found: list[str] = []
    if code:
        found.append(
            f"{', '.join(outside)} and {', '.join(code)}: what it reads can talk it into running code, which only the "
            "person who approves would notice"
        )
    if remembers:
        found.append(
            f"{', '.join(outside)} and memory: what it reads can become a fact about the actor, unconfirmed until "
            "somebody confirms it"
        )
    if "read_files" in names and names.intersection(("web_fetch", "http_request", "web_search")):
        found.append("read_files and the web: what a page says can have it send what your files hold to that page")
    return found
