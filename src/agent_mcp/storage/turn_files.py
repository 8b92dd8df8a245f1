"""The record of each turn, so that any process can answer for it, and whether the process that runs it lives."""

import logging
import os
from collections.abc import Iterable
from contextlib import suppress

from pydantic import ValidationError

from agent_mcp.domain import RECORDS_KEPT, TurnId, TurnRecord, now, parse_turn_id
from agent_mcp.errors import InvalidArgument
from agent_mcp.storage import durable
from agent_mcp.storage.layout import Layout
from agent_mcp.storage.locks import ProcessLock

logger = logging.getLogger(__name__)


class TurnFiles:
    """The turns of one subject. `process` tells which of the servers that run turns live."""

    def __init__(self, layout: Layout, *, sync: bool, process: ProcessLock) -> None:
        self._layout = layout
        self._process = process
        self._sync = sync

    def write(self, record: TurnRecord, *, sync: bool) -> None:
        """Replaces the record. `sync` once somebody is told what stands in it."""
        text = record.model_dump_json(indent=2)
        durable.write_text(self._layout.turn(record.turn_id), text, sync=sync and self._sync)
        if not record.is_open:
            self._layout.cancel_mark(record.turn_id).unlink(missing_ok=True)
            self._layout.partial(record.turn_id).unlink(missing_ok=True)

    def create(self, record: TurnRecord) -> bool:
        """Writes a new record; False if there is one of this id already, which is then left as it is."""
        return durable.create_text(self._layout.turn(record.turn_id), record.model_dump_json(indent=2), sync=False)

    def remove(self, turn_id: TurnId) -> None:
        self._layout.turn(turn_id).unlink(missing_ok=True)
        self._layout.cancel_mark(turn_id).unlink(missing_ok=True)
        self._layout.partial(turn_id).unlink(missing_ok=True)

    def write_partial(self, turn_id: TurnId, text: str) -> None:
        """Keeps what the model has written of a message that is not complete, for the case that the process dies."""
        durable.write_text(self._layout.partial(turn_id), text, sync=False)

    def partial(self, turn_id: TurnId) -> str:
        """What was kept of an incomplete message, empty if nothing was."""
        try:
            text = self._layout.partial(turn_id).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return text.replace("\0", "")  # It is not synced, so a power cut may leave its length and nothing in it.

    def find(self, turn_id: TurnId) -> TurnRecord | None:
        """The record, or None if there is none (or none that can be read, after a power cut)."""
        try:
            return TurnRecord.model_validate_json(self._layout.turn(turn_id).read_bytes())
        except (FileNotFoundError, IsADirectoryError, ValidationError):
            return None

    def find_each(self, turn_ids: Iterable[TurnId]) -> list[TurnRecord]:
        """The records of these turns. What the system does not let us read does not hide the others."""
        found: list[TurnRecord] = []
        for turn_id in turn_ids:
            try:
                record = self.find(turn_id)
            except OSError:
                logger.warning("the record of turn %s can't be read", turn_id, exc_info=True)
                continue
            if record is not None:
                found.append(record)
        return found

    def ids(self) -> list[TurnId]:
        found: list[TurnId] = []
        for name in os.listdir(self._layout.turns):
            try:
                found.append(parse_turn_id(name.removesuffix(".json")))
            except InvalidArgument:
                continue
        return found

    def is_running(self, record: TurnRecord) -> bool:
        """Whether the record is open and the process that has it lives."""
        return record.is_open and self._process.lives(record.process)

    def ask_cancel(self, turn_id: TurnId) -> None:
        """Leaves a mark by which the process that runs the turn sees that it is to end."""
        self._layout.cancel_mark(turn_id).touch(mode=0o600)

    def cancel_is_asked(self, turn_id: TurnId) -> bool:
        return self._layout.cancel_mark(turn_id).exists()

    def remove_old(self) -> list[TurnId]:
        """Removes the records of turns that ended more than 7 days ago, and what else is as old; returns their ids."""
        limit = (now() - RECORDS_KEPT).timestamp()
        removed: list[TurnId] = []
        for path in self._layout.turns.iterdir():
            with suppress(OSError):  # Another server removes them too; and what is none of ours is left where it is.
                if path.stat().st_mtime >= limit:
                    continue
                if path.suffix != ".json":
                    path.unlink()  # the mark or the text of a turn that has ended long ago
                    continue
                with suppress(InvalidArgument):
                    turn_id = parse_turn_id(path.stem)
                    record = self.find(turn_id)
                    if record is None or not (record.is_pending or self.is_running(record)):
                        self.remove(turn_id)
                        removed.append(turn_id)
        return removed
