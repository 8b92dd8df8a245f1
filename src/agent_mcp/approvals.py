"""A person's yes before a tool is used."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from strands.hooks import BeforeToolCallEvent, HookProvider, HookRegistry

from agent_mcp.approval_words import APPROVED

NAME_PREFIX = "approve:"
_REFUSED = "A person was asked and did not allow this use of the tool. Do not try it again unless you are told to."
_NOBODY = "This tool needs a person's approval, and an agent that is called as a tool has nobody to ask."


class Approvals(HookProvider):
    """Interrupts the agent before each use of one of `tools`, until somebody has decided on just that use.

    The interrupt is named by tool and arguments: a yes for one command is never taken for another one, whatever ids the
    model gives its calls.
    """

    def __init__(self, tools: frozenset[str], *, may_interrupt: bool) -> None:
        self._tools = tools
        self._may_interrupt = may_interrupt

    def register_hooks(self, registry: HookRegistry, **kwargs: Any) -> None:
        registry.add_callback(BeforeToolCallEvent, self._before_tool_call)

    def _before_tool_call(self, event: BeforeToolCallEvent) -> None:
        use = event.tool_use
        if use["name"] not in self._tools:
            return
        if not self._may_interrupt:
            event.cancel_tool = _NOBODY
            return
        arguments = json.dumps(use["input"], sort_keys=True, ensure_ascii=False, default=str)
        digest = hashlib.sha256(f"{use['name']}\0{arguments}".encode()).hexdigest()
        decision = event.interrupt(f"{NAME_PREFIX}{digest}", reason=f"{use['name']} with {_plain(arguments)}")
        if decision != APPROVED:
            event.cancel_tool = _REFUSED


def _plain(text: str) -> str:
    """`text` as a person can read it: what terminals obey, or what turns the direction of writing, is spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
