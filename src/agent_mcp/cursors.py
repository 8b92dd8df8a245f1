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
        value: object = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        value = None
    if isinstance(value, list):
        position = cast("Position", value)
        if len(position) == len(shape) and all(type(item) is kind for item, kind in zip(position, shape, strict=True)):
            return position
    raise InvalidArgument("The cursor is none of this list: pass a next_cursor as it was given, or none to start.")
