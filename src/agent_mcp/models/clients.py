"""What models of one provider share: its HTTP connections, AWS's session. All are used on the agents' loop only."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

if TYPE_CHECKING:
    import boto3
    import httpx

STREAMS = 64
"""Answers that may stream at once: as many as the agents' loop has threads for."""
_SECONDS_TO_CONNECT = 10.0
_SECONDS_OF_SILENCE = 600.0
"""How long a service may say nothing. The turn's own clock is nearly always the shorter one."""


class Closing(Protocol):
    """Something that is given back at the end."""

    async def aclose(self) -> None: ...


C = TypeVar("C", bound=Closing)


class Clients:
    """Made at their first use, given back by `close`."""

    def __init__(self) -> None:
        self._opened: list[Closing] = []
        self._shared: dict[type[Closing], Closing] = {}

    @cached_property
    def http(self) -> httpx.AsyncClient:
        """For every provider whose package takes a client of ours."""
        import httpx

        client = httpx.AsyncClient(
            timeout=httpx.Timeout(_SECONDS_OF_SILENCE, connect=_SECONDS_TO_CONNECT),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=STREAMS),
            follow_redirects=True,
        )
        return self.keep(client)

    @cached_property
    def local(self) -> httpx.AsyncHTTPTransport:
        """Connections for Ollama, whose package makes a client for each request."""
        import httpx

        return self.keep(
            httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None, max_keepalive_connections=STREAMS))
        )

    @cached_property
    def aws(self) -> boto3.Session:
        """Each new session reads AWS's service descriptions again, for 0.1 s."""
        import boto3

        return boto3.Session()

    def one(self, kind: type[C], make: Callable[[], C]) -> C:
        """The one client of this kind, for all models that need it."""
        if kind not in self._shared:
            self._shared[kind] = self.keep(make())
        return cast("C", self._shared[kind])

    def keep(self, client: C) -> C:
        """Has a client closed with the others."""
        self._opened.append(client)
        return client

    @property
    def is_open(self) -> bool:
        return bool(self._opened)

    async def close(self) -> None:
        """To be awaited on the loop on which they were used."""
        while self._opened:
            await self._opened.pop().aclose()
