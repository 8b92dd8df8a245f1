"""The operator's file of bearer tokens: who may come in, as which subject, and for which actors.

Only hashes of tokens are kept. The file is TOML that may be edited by hand; what is written here leaves comments as
they are.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import stat
import threading
import tomllib
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, cast

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from tomlkit.exceptions import TOMLKitError

from agent_mcp.domain import ActorId, Caller
from agent_mcp.errors import InvalidArgument, StorageFailed
from agent_mcp.ids import parse_actor_id
from agent_mcp.storage.durable import write_text
from agent_mcp.storage.locks import short_lock

logger = logging.getLogger(__name__)

_PREFIX = "amt_"
SCOPES = ("metrics",)
_HEAD = "Bearer tokens for agent-mcp: only their hashes. `agent-mcp token` edits this file; so may you."

# Without ':' and '/', so that no subject of this file can be one of an OAuth issuer, whose name begins with a URL.
_Subject = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$")]
_Pattern = Annotated[str, StringConstraints(pattern=r"^(\*|[^\s*]{1,199}\*?)$")]


class Token(BaseModel):
    """One token. `act_as` are the actors beside its own that it may act for: ids, or beginnings and `*`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] = Field(exclude=True)
    subject: _Subject
    act_as: tuple[_Pattern, ...] = ()
    scopes: tuple[str, ...] = ()
    created: datetime | None = None

    def caller(self) -> Caller:
        return Caller(subject=self.subject, actor=ActorId(self.subject), act_as=self.act_as)


class TokenFile:
    """The tokens of one file, read again whenever it has changed. Blocking."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reading = threading.Lock()
        self._seen: object = None
        self._tokens: tuple[Token, ...] = ()

    def find(self, secret: str) -> Token | None:
        """The token with this secret; None too where the file can't be read, which lets nobody in and is logged."""
        digest = hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
        found: Token | None = None
        for token in self._current():
            # All are compared, each in constant time: how long it takes tells nothing.
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return found

    def read(self) -> tuple[Token, ...]:
        """All tokens; raises InvalidArgument, which says what is wrong with the file."""
        try:
            entries: list[Any] = tomllib.loads(self.path.read_text(encoding="utf-8")).get("token", [])
            tokens = tuple(Token.model_validate(entry) for entry in entries)
        except FileNotFoundError:
            raise self._unusable("it is not there: `agent-mcp token add` makes it") from None
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise self._unusable(f"it is no TOML: {' '.join(str(error).split())[:200]}") from None
        except ValidationError as error:
            first = error.errors()[0]
            raise self._unusable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        except (TypeError, AttributeError):
            raise self._unusable("each token is a table [[token]]") from None
        names = [token.name for token in tokens]
        if len({*names}) < len(names):
            raise self._unusable("two tokens have the same name")
        return tokens

    def add(self, *, name: str, subject: str, act_as: Iterable[str] = (), scopes: Iterable[str] = ()) -> str:
        """Adds a token and returns its secret, which is kept nowhere; raises InvalidArgument, StorageFailed."""
        secret = _PREFIX + secrets.token_urlsafe(32)
        given = {
            "name": name,
            "sha256": hashlib.sha256(secret.encode()).hexdigest(),
            "subject": subject,
            "act_as": list(act_as),
            "scopes": list(scopes),
        }
        try:
            parse_actor_id(subject)
            Token.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            what, value = first["loc"][0], first["input"]
            raise InvalidArgument(f"The {what} {value!r} can't be used: {first['msg']}. Nothing was written.") from None
        unknown = [scope for scope in given["scopes"] if scope not in SCOPES]
        if unknown:
            raise InvalidArgument(f"There is no scope {unknown[0]!r}: there are {', '.join(SCOPES)}.")
        with self._edited(make=True) as document:
            tables = document.setdefault("token", tomlkit.aot())
            if any(table.get("name") == name for table in tables):
                raise InvalidArgument(f"There is a token {name!r} already: revoke it first, or choose another --name.")
            table = tomlkit.table()
            for key, value in given.items():
                if value:
                    table[key] = value
            table["created"] = datetime.now(UTC).replace(microsecond=0)
            tables.append(table)
        return secret

    def revoke(self, name: str) -> None:
        """Removes a token, which ends with the next request that brings it. Raises InvalidArgument, StorageFailed."""
        with self._edited(make=False) as document:
            tables = cast("Any", document).get("token", [])
            index = next((i for i, table in enumerate(tables) if table.get("name") == name), None)
            if index is None:
                names = ", ".join(str(table.get("name")) for table in tables) or "none"
                raise InvalidArgument(f"There is no token {name!r} in {self.path.name}: there are {names}.")
            del tables[index]

    def warnings(self) -> list[str]:
        """What is risky about the file, for the operator."""
        found: list[str] = []
        if os.name != "nt" and self.path.exists() and stat.S_IMODE(self.path.stat().st_mode) & 0o077:
            found.append(f"{self.path} can be read by others: chmod 600 it")
        try:
            found += [
                f'the token {token.name!r} may act for every actor of {token.subject!r} (act_as = ["*"])'
                for token in self.read()
                if "*" in token.act_as
            ]
        except InvalidArgument as error:
            found.append(error.message)
        return found

    def _current(self) -> tuple[Token, ...]:
        with self._reading:
            try:
                status = self.path.stat()
                seen: object = (status.st_mtime_ns, status.st_ino, status.st_size, status.st_ctime_ns)
            except OSError as error:
                seen = error.errno
            if seen != self._seen:
                self._seen = seen
                try:
                    self._tokens = self.read()
                except InvalidArgument as error:
                    self._tokens = ()
                    logger.error("nobody is let in: %s", error.message)
            return self._tokens

    def _document(self, *, make: bool) -> tomlkit.TOMLDocument:
        if make and not self.path.exists():
            document = tomlkit.document()
            document.add(tomlkit.comment(_HEAD))
            return document
        self.read()  # Nothing is written over a file that is broken.
        try:
            return tomlkit.parse(self.path.read_text(encoding="utf-8"))
        except (OSError, TOMLKitError) as error:
            raise self._unusable(str(error)) from None

    @contextmanager
    def _edited(self, *, make: bool) -> Generator[tomlkit.TOMLDocument]:
        """The document, to be changed in the block; then it is written, as a whole, for its owner only."""
        try:
            with short_lock(self.path.with_name(f"{self.path.name}.lock")):
                document = self._document(make=make)
                yield document
                path = self.path.resolve()  # What a link leads to is what a server reads.
                owner = path.stat() if path.exists() else None
                write_text(path, tomlkit.dumps(document), sync=True)  # pyright: ignore[reportUnknownMemberType] tomlkit's own
                if owner is not None and hasattr(os, "chown") and owner.st_uid != path.stat().st_uid:
                    os.chown(path, owner.st_uid, owner.st_gid)  # by root: its server runs as somebody else
        except OSError as error:
            raise StorageFailed(f"{self.path} can't be written ({error.strerror or error}); it is as it was.") from None

    def _unusable(self, reason: str) -> InvalidArgument:
        return InvalidArgument(f"The token file {self.path} (AGENT_MCP_TOKENS) can't be used: {reason}.")
