"""Access tokens of an OAuth authorization server: checked by its public keys, without asking it about each."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import jwt

from agent_mcp.domain import ActorId, Caller
from agent_mcp.errors import InvalidArgument
from agent_mcp.ids import parse_actor_id

logger = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric ones only: with a symmetric one, whoever has the public key could sign."""

_KEYS_SECONDS = 3600.0
_RETRY_SECONDS = 15.0
"""How often the issuer is asked at most: an unknown key id must not become a request for each request."""
_FETCH_SECONDS = 10.0
_MAX_BYTES = 256 * 1024
_MAX_KEYS = 100
_LEEWAY_SECONDS = 10
_LONGEST_TOKEN = 16 * 1024


@dataclass(frozen=True, kw_only=True)
class Grant:
    """Whom an access token stands for."""

    issuer: str
    sub: str
    client_id: str
    scopes: tuple[str, ...]
    expires_at: int

    def caller(self) -> Caller:
        """The subject is of its issuer: the same `sub` of another issuer is somebody else."""
        try:
            actor = parse_actor_id(self.sub)
        except InvalidArgument:
            actor = ActorId(f"sub-{self.sub.encode(errors='replace').hex()[:64]}")
        return Caller(subject=f"{self.issuer}#{self.sub}", actor=actor, act_as=())


def check_url(url: str, what: str) -> str:
    """The URL, if it is https or on this machine; raises InvalidArgument."""
    parts = urlsplit(url)
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise InvalidArgument(f"{what}={url[:200]!r} can't be used: give an https URL.")
    if parts.query or parts.fragment:
        raise InvalidArgument(f"{what}={url[:200]!r} can't be used: give it without query and fragment.")
    return url


class OAuthIssuer:
    """Checks the access tokens of one issuer for one audience. Its keys are fetched when they are first needed."""

    def __init__(self, issuer: str, audience: str) -> None:
        self.issuer = check_url(issuer, "AGENT_MCP_OAUTH_ISSUER")
        self._audience = audience
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._fetched = 0.0
        self._tried = float("-inf")
        self._fetching = asyncio.Lock()

    async def verify(self, token: str) -> Grant | None:
        """Whom the token stands for; None if it is not this issuer's, not for us, or not valid (any more)."""
        if len(token) > _LONGEST_TOKEN:
            return None
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                return None
            key = await self._key(header.get("kid"))
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name] if key.algorithm_name in ALGORITHMS else [],
                audience=self._audience,
                issuer=self.issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError):
            return None
        sub = claims["sub"]
        if not isinstance(sub, str) or not 0 < len(sub) <= 1000:
            return None
        scope: object = claims.get("scope", "")
        return Grant(
            issuer=self.issuer,
            sub=sub,
            client_id=str(claims.get("client_id") or claims.get("azp") or sub),
            scopes=tuple(scope.split()) if isinstance(scope, str) else (),
            expires_at=int(claims["exp"]),
        )

    async def _key(self, kid: object) -> jwt.PyJWK | None:
        wanted = kid if isinstance(kid, str) else None
        fresh = time.monotonic() - self._fetched < _KEYS_SECONDS
        if wanted not in self._keys or not fresh:
            async with self._fetching:
                now = time.monotonic()
                if (wanted not in self._keys or not fresh) and now - self._tried > _RETRY_SECONDS:
                    self._tried = now
                    await self._fetch()
        return self._keys.get(wanted)

    async def _fetch(self) -> None:
        """Reads the issuer's metadata and keys. Where that fails, the keys that are known stay."""
        try:
            # No redirects: the keys are only where the issuer's own metadata says.
            async with httpx.AsyncClient(timeout=_FETCH_SECONDS, follow_redirects=False) as client:
                metadata = await self._metadata(client)
                if metadata.get("issuer") != self.issuer:
                    raise ValueError(f"its metadata is of the issuer {str(metadata.get('issuer'))[:200]!r}")
                jwks = await _json(client, check_url(str(metadata.get("jwks_uri")), "jwks_uri"))
            self._keys = await asyncio.to_thread(_usable_keys, jwks)
            self._fetched = time.monotonic()
        except (httpx.HTTPError, ValueError) as error:
            logger.error(
                "the keys of the OAuth issuer %s can't be read: %s", self.issuer, error or type(error).__name__
            )

    async def _metadata(self, client: httpx.AsyncClient) -> dict[str, Any]:
        parts = urlsplit(self.issuer)
        base, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
        # RFC 8414 puts its name in front of the issuer's path, OpenID Connect behind it.
        first, second = (
            f"{base}/.well-known/oauth-authorization-server{path}",
            f"{base}{path}/.well-known/openid-configuration",
        )
        try:
            return await _json(client, first)
        except httpx.HTTPStatusError:
            return await _json(client, second)


async def _json(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """A JSON object of limited size; raises httpx.HTTPError, ValueError."""
    body = b""
    async with client.stream("GET", url, headers={"Accept": "application/json"}) as answer:
        if answer.status_code != 200:
            raise httpx.HTTPStatusError(f"{url}: {answer.status_code}", request=answer.request, response=answer)
        async for part in answer.aiter_bytes():
            body += part
            if len(body) > _MAX_BYTES:
                raise ValueError(f"{url} sends more than {_MAX_BYTES} bytes")
    found: object = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError(f"{url} is no JSON object")
    return cast("dict[str, Any]", found)


def _usable_keys(jwks: Mapping[str, Any]) -> dict[str | None, jwt.PyJWK]:
    """Keys for signatures by their id; a single one is also found without an id."""
    found: dict[str | None, jwt.PyJWK] = {}
    for data in jwks.get("keys", [])[:_MAX_KEYS]:
        try:
            key = jwt.PyJWK(data)
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
            continue  # of a kind that is not known
        if key.algorithm_name in ALGORITHMS and key.public_key_use in (None, "sig"):
            found[key.key_id] = key
    if len(found) == 1:
        found[None] = next(iter(found.values()))
    return found
