"""Whether a turn has read what others wrote: facts from such a turn need somebody's word before they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from strands.hooks import HookProvider, HookRegistry, MessageAddedEvent


class Outside(HookProvider):
    """Watches the tools of one turn. `reads` tells by a tool's name whether it brings in what others wrote, `before`
    names those that the turn used already, before it had to wait for somebody."""

    def __init__(self, reads: Callable[[str], bool], before: Iterable[str] = ()) -> None:
        self._reads = reads
        self.seen = any(map(reads, before))

    def register_hooks(self, registry: HookRegistry, **kwargs: Any) -> None:
        registry.add_callback(MessageAddedEvent, self._message_added)

    def _message_added(self, event: MessageAddedEvent) -> None:
        # Before the first of its tools runs: they run side by side, and what comes first is chance.
        used = [block["toolUse"]["name"] for block in event.message["content"] if "toolUse" in block]
        self.seen = self.seen or any(map(self._reads, used))
