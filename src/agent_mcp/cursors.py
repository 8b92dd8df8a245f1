"""Cursors: where the next page of a list begins, opaque to callers."""

import base64
import binascii
import json
from typing import cast

from agent_mcp.errors import InvalidArgument

Position = list[str | int]


def encode(position: Position) -> str:
    return base64.urlsafe_b64encode(json.dumps(position, separators=(",", ":")).encode()).decode().rstrip("=")


def decode(cursor: str, shape: tuple[type, ...]) -> Position:
    """The position that `encode` was given; raises InvalidArgument unless its items are of the types in `shape`."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        value: object = json.loads(text)
    except (binascii.Error, ValueError, RecursionError):
        value = None
    if isinstance(value, list):
        position = cast("Position", value)
        if len(position) == len(shape) and all(
            type(item) is kind and _is_storable(item) for item, kind in zip(position, shape, strict=True)
        ):
            return position
    raise InvalidArgument("The cursor is none of this list: pass a next_cursor as it was given, or none to start.")


def _is_storable(item: str | int) -> bool:
    """Whether a database takes it: a forged cursor may hold any number, and halves of surrogate pairs."""
    return abs(item) < 2**63 if isinstance(item, int) else item.isprintable()
