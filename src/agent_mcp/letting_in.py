"""How the operator's settings let callers in over HTTP: put together once, for the command and for tests."""

from __future__ import annotations

import anyio.to_thread
from fastapi import FastAPI

from agent_mcp.config import Settings
from agent_mcp.errors import InvalidArgument
from agent_mcp.http.access import allowed_by
from agent_mcp.http.app import build_app
from agent_mcp.http.callers import Identify, nobody_authenticates
from agent_mcp.http.identify import Authenticated, Identity, Verify, metadata_url_of
from agent_mcp.http.metrics import Readers
from agent_mcp.oauth import OAuthIssuer
from agent_mcp.service import Service
from agent_mcp.token_file import TokenFile


def authenticates(settings: Settings) -> bool:
    """Whether callers must say who they are."""
    return settings.tokens is not None or settings.oauth_issuer is not None


def check_address(settings: Settings, host: str, *, loopback: bool) -> None:
    """Raises InvalidArgument where strangers could come in."""
    if settings.oauth_issuer is not None and not settings.oauth_audience:
        raise InvalidArgument("AGENT_MCP_OAUTH_ISSUER needs AGENT_MCP_OAUTH_AUDIENCE: whom its tokens must be for.")
    if settings.trust_platform and authenticates(settings):
        raise InvalidArgument("AGENT_MCP_TRUST_PLATFORM=yes says that something else authenticates: set it, or tokens.")
    if not loopback and not authenticates(settings) and not settings.trust_platform:
        raise InvalidArgument(
            f"{host!r} can be reached from other machines, and nobody would be asked who they are. Set "
            "AGENT_MCP_TOKENS or AGENT_MCP_OAUTH_ISSUER, or AGENT_MCP_TRUST_PLATFORM=yes where a platform or proxy in "
            "front authenticates; or serve on 127.0.0.1."
        )


def app_for(service: Service, *, url: str, loopback: bool, stateless: bool = False) -> FastAPI:
    """The application over a service, with its settings' rules for who is let in. `url` is how it is reached."""
    settings = service.settings
    allowed = allowed_by(
        loopback=loopback,
        public_url=settings.public_url,
        hosts=settings.allowed_hosts,
        origins=settings.allowed_origins,
    )
    resource: tuple[str, str] | None = None
    metadata_url: str | None = None
    if settings.oauth_issuer is not None:
        resource = (f"{url.rstrip('/')}/mcp", settings.oauth_issuer)
        metadata_url = metadata_url_of(resource[0])
    identify = identify_by(settings, metadata_url=metadata_url)
    readers = Readers(
        identify=identify if authenticates(settings) else None, behind_proxy=settings.public_url is not None
    )
    return build_app(
        service, identify=identify, allowed=allowed, readers=readers, stateless=stateless, resource=resource
    )


def identify_by(settings: Settings, *, metadata_url: str | None = None) -> Identify:
    """How a request's caller is found."""
    if not authenticates(settings):
        return nobody_authenticates
    verifiers: list[Verify] = []
    if settings.tokens is not None:
        verifiers.append(_by_token(TokenFile(settings.tokens)))
    if settings.oauth_issuer is not None:
        verifiers.append(_by_oauth(OAuthIssuer(settings.oauth_issuer, settings.oauth_audience or "")))
    return Authenticated(
        tuple(verifiers), rate=settings.subject_rate, turns=settings.subject_turns, metadata_url=metadata_url
    )


def _by_token(file: TokenFile) -> Verify:
    async def verify(secret: str) -> Identity | None:
        token = await anyio.to_thread.run_sync(file.find, secret)
        return Identity(caller=token.caller(), client=token.name, scopes=token.scopes) if token else None

    return verify


def _by_oauth(issuer: OAuthIssuer) -> Verify:
    async def verify(secret: str) -> Identity | None:
        grant = await issuer.verify(secret)
        if grant is None:
            return None
        return Identity(caller=grant.caller(), client=grant.client_id, issuer=grant.issuer, scopes=grant.scopes)

    return verify
