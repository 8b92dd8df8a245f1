"""What is wrong with arguments, in words for whoever gave them: the same at every door."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from agent_mcp.errors import AgentMcpError


def explain(what: str, known: Iterable[str], error: Mapping[str, Any], *, field: str) -> str:
    """One of pydantic's errors about the argument `field` of `what`, which has the `known` arguments."""
    reason = error.get("ctx", {}).get("error")
    if isinstance(reason, AgentMcpError):
        return reason.message
    if error["type"] == "extra_forbidden":
        return f"{what} has no argument {field[:60]!r}. {suggest(field, known)}"
    if error["type"] == "missing":
        return f"{what} needs the argument {field!r}."
    return f"The argument {field!r} can't be used: {error['msg']}."


def suggest(name: str, known: Iterable[str]) -> str:
    """What was perhaps meant by `name`, and all that there is."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}There are: {', '.join(names)}." if names else "There is none."
