"""The ids: what each looks like, how it is parsed, and those that the server gives."""

import hashlib
import re
import secrets
import unicodedata
from typing import NewType

from agent_mcp.errors import InvalidArgument

AgentId = NewType("AgentId", str)
SessionId = NewType("SessionId", str)
ActorId = NewType("ActorId", str)
TurnId = NewType("TurnId", str)
MemoryId = NewType("MemoryId", str)

_AGENT_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SESSION_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_ISSUED_PREFIX = "s-"
_TURN_ID = re.compile(r"t-[0-9a-f]{32}")
_MEMORY_ID = re.compile(r"m(?:em)?-[a-zA-Z0-9_-]{1,60}")
# Windows opens a device for these names, whatever their extension.
_DEVICE_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


def shown(text: str) -> str:
    """`text` quoted for an error: short, on one line, nothing that a terminal would act on."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _parse_id(text: str, *, pattern: re.Pattern[str], kind: str, longest: int) -> str:
    if pattern.fullmatch(text):
        return text
    if pattern.fullmatch(text.lower()):
        raise InvalidArgument(f"Every {kind} is written in lower case: use {text.lower()!r} instead of {text!r}.")
    raise InvalidArgument(
        f"{shown(text)} is no {kind}: use 1-{longest} of a-z, 0-9, '_' and '-', beginning with a letter or digit."
    )


def parse_agent_id(text: str) -> AgentId:
    """An agent id: `[a-z0-9][a-z0-9_-]{0,63}` and no device name of Windows; raises InvalidArgument."""
    parsed = _parse_id(text, pattern=_AGENT_ID, kind="agent_id", longest=64)
    if parsed in _DEVICE_NAMES:
        raise InvalidArgument(f"{text!r} is a device name on Windows and can't be an agent_id: choose another.")
    return AgentId(parsed)


def parse_session_id(text: str) -> SessionId:
    """A session id: `[a-z0-9][a-z0-9_-]{0,99}`; raises InvalidArgument."""
    return SessionId(_parse_id(text, pattern=_SESSION_ID, kind="session_id", longest=100))


def parse_turn_id(text: str) -> TurnId:
    """A turn id as the server gave it: `t-` and 32 hexadecimal digits; raises InvalidArgument."""
    if not _TURN_ID.fullmatch(text):
        raise InvalidArgument(f"{shown(text)} is no turn_id: use the turn_id of a reply, 't-' and 32 hex digits.")
    return TurnId(text)


def parse_actor_id(text: str) -> ActorId:
    """An actor id: 1-200 printable characters without white space, in NFC; raises InvalidArgument."""
    if not 1 <= len(text) <= 200 or any(not c.isprintable() or c.isspace() for c in text):
        raise InvalidArgument(f"{shown(text)} is no actor_id: use 1-200 printable characters without white space.")
    if unicodedata.normalize("NFC", text) != text:
        raise InvalidArgument("The actor_id is not in Unicode's NFC form: normalise it and call again.")
    return ActorId(text)


def parse_memory_id(text: str) -> MemoryId:
    """A memory id as a memory gave it, `m-...` or AgentCore's `mem-...`; raises InvalidArgument."""
    if not _MEMORY_ID.fullmatch(text):
        raise InvalidArgument(f"{shown(text)} is no memory_id: use the memory_id of a fact as recall gives it.")
    return MemoryId(text)


def is_issued(session_id: SessionId) -> bool:
    """Whether only the server gives ids of this shape, so that an unknown one must be a mistake.

    The beginning decides: an id that was cut short or mistyped must not begin an empty conversation either.
    """
    return session_id.startswith(_ISSUED_PREFIX)


def new_session_id() -> SessionId:
    return SessionId(f"{_ISSUED_PREFIX}{secrets.token_hex(16)}")


def new_turn_id() -> TurnId:
    return TurnId(f"t-{secrets.token_hex(16)}")


def new_memory_id() -> MemoryId:
    return MemoryId(f"m-{secrets.token_hex(16)}")


def keyed_turn_id(key: str, *, subject: str, actor_id: ActorId) -> TurnId:
    """The id of the turn that an idempotency key of an actor stands for: the same key, the same turn."""
    digest = hashlib.sha256("\0".join((subject, actor_id, key)).encode())
    return TurnId(f"t-{digest.hexdigest()[:32]}")


def slug(name: str) -> AgentId:
    """The agent id that a name gives: ASCII, lower case, dashes for the rest; raises InvalidArgument if none."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    text = re.sub(r"[^a-z0-9_]+", "-", ascii_name.lower()).strip("-_")[:64].rstrip("-_")
    if not text:
        raise InvalidArgument(f"No agent_id can be made from the name {shown(name)}: give one as agent_id.")
    return AgentId(f"{text}-agent"[:64] if text in _DEVICE_NAMES else text)
