"""How web tools get out: which domains they may reach, who resolves names, and what connects."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""A host's addresses, as texts."""


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """What the system's resolver says. Raises OSError where it knows no such host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def connect_directly() -> httpx.AsyncBaseTransport:
    """Connections to the addresses that are asked for: no proxies, and nothing that is kept for another host."""
    import httpx

    # A connection is for one host's name, by which its certificate was checked. Here requests name addresses, and two
    # hosts can share one: so none is kept.
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncHTTPTransport(verify=_authorities(), trust_env=False, limits=limits)


@cache
def _authorities() -> ssl.SSLContext:
    """Whose certificates are believed. Reading them takes some 30 ms: once, not for each request."""
    import httpx

    return httpx.create_ssl_context(trust_env=False)


@dataclass(frozen=True, kw_only=True)
class Internet:
    """The internet as the operator lets agents see it.

    `domains` are those that web tools may reach. `resolve` and `connect` are the two places where the outside begins;
    whatever they are, only addresses that were found to be public are connected to.
    """

    domains: tuple[str, ...] = ("*",)
    resolve: Resolve = resolve_by_system
    connect: Callable[[], httpx.AsyncBaseTransport] = connect_directly

    @property
    def is_open(self) -> bool:
        """Whether there is anything to reach: AGENT_MCP_WEB_DOMAINS=none closes it."""
        return self.domains != ("none",)
