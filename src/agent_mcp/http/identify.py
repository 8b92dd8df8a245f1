"""Who calls, by the bearer token that a request brings: the operator's tokens first, then OAuth."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.routes import build_resource_metadata_url
from pydantic import AnyHttpUrl
from starlette.requests import HTTPConnection

from agent_mcp.domain import Caller
from agent_mcp.errors import RateLimited, Unauthorized

_MAX_SUBJECTS = 10_000


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Whom a token stands for. `client` and `issuer` are the principal to which the SDK binds its connections."""

    caller: Caller
    client: str
    issuer: str | None = None
    scopes: tuple[str, ...] = ()


Verify = Callable[[str], Awaitable[Identity | None]]
"""Finds whom a token stands for; None = it is not known here."""


@dataclass
class Rate:
    """How many requests each subject may make: so many a minute, as many at once after a pause."""

    a_minute: int
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict[str, tuple[float, float]])

    def take(self, subject: str, *, now: float) -> None:
        """Counts one request; raises RateLimited."""
        left, at = self._left.pop(subject, (float(self.a_minute), now))
        left = min(float(self.a_minute), left + (now - at) * self.a_minute / 60)
        self._left[subject] = (max(0.0, left - 1), now) if left >= 1 else (left, now)
        if len(self._left) > _MAX_SUBJECTS:
            self._left.popitem(last=False)
        if left < 1:
            raise RateLimited(
                f"More than {self.a_minute} requests a minute came from you, and this one was not looked at: wait, "
                "then send it again.",
                retry_after=max(1, round((1 - left) * 60 / self.a_minute)),
            )


def metadata_url_of(resource: str) -> str:
    """Where clients read whose tokens a resource takes (RFC 9728)."""
    return str(build_resource_metadata_url(AnyHttpUrl(resource)))


class Authenticated:
    """Lets in whoever brings a token that one of `verifiers` knows, as often as the limits allow."""

    def __init__(
        self, verifiers: tuple[Verify, ...], *, rate: int, turns: int, metadata_url: str | None = None
    ) -> None:
        self._verifiers = verifiers
        self._rate = Rate(rate)
        self._turns = turns
        self._challenge = "Bearer" if metadata_url is None else f'Bearer resource_metadata="{metadata_url}"'

    async def __call__(self, connection: HTTPConnection) -> Caller:
        kind, _, token = connection.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise Unauthorized(
                "This server wants to know who calls: send the header `Authorization: Bearer <token>`. Nothing was "
                "changed.",
                challenge=self._challenge,
            )
        identity = await self._find(token.strip())
        if identity is None:
            separator = ", " if " " in self._challenge else " "
            raise Unauthorized(
                "The token is not known here, expired or revoked: get a new one. Nothing was changed.",
                challenge=f'{self._challenge}{separator}error="invalid_token"',
            )
        self._rate.take(identity.caller.subject, now=time.monotonic())
        # The SDK lets a connection, and the state of a question, be used by the principal only that began it.
        access = AccessToken(
            token="",
            client_id=identity.client,
            scopes=list(identity.scopes),
            subject=identity.caller.subject,
            claims={"iss": identity.issuer} if identity.issuer else None,
        )
        connection.scope["user"] = AuthenticatedUser(access)
        return replace(identity.caller, max_turns=self._turns)

    async def _find(self, token: str) -> Identity | None:
        for verify in self._verifiers:
            identity = await verify(token)
            if identity is not None:
                return identity
        return None
