"""Which requests are let in at all: by the address that the server has, and by the Host and Origin that they name."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_mcp.errors import Forbidden, InvalidArgument, TooLarge
from agent_mcp.http.problems import TOO_LONG, problem_response

DEFAULT_ADDRESS = "127.0.0.1:8080"
LONGEST_REQUEST = 4 * 1024 * 1024
"""Bytes of one request. A prompt has at most 1 MiB, which JSON may write three times as long."""

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` (`[::1]:PORT` too), or a port alone; raises InvalidArgument."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(f"{text[:80]!r} is no address: give HOST:PORT, such as {DEFAULT_ADDRESS}.")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_named_loopback(host: str) -> bool:
    """Whether a Host header names this machine."""
    return _fits(host, _local_names())


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address, port 0 meaning any that is free; raises InvalidArgument."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family, backlog=2048)
        # Its connections inherit it. asyncio sets it only where it has made the socket itself; without it the second
        # part of an answer waits 40 ms for the client to acknowledge the first.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise InvalidArgument(
            f"The server can't listen on {host}:{port}: {error.strerror or error}. Give another address with "
            "--http HOST:PORT; port 0 takes any that is free."
        ) from None


def url_of(listening: socket.socket) -> str:
    """The URL that a socket is reached at."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """The hosts and origins that are answered; a port `*` is any port, `hosts` None any host."""

    hosts: tuple[str, ...] | None
    origins: tuple[str, ...]


def allowed_by(
    *, loopback: bool, public_url: str | None = None, hosts: Sequence[str] = (), origins: Sequence[str] = ()
) -> Allowed:
    """What a server answers to: loopback names, its public URL's, and those that the operator adds.

    Where it can be reached from elsewhere and the operator names none, any host: callers authenticate there.
    """
    named = [*hosts]
    pages = [*origins]
    if public_url is not None:
        parts = urlsplit(public_url)
        named.append(parts.netloc)
        pages.append(f"{parts.scheme}://{parts.netloc}")
    local = _local_names()
    if not loopback and not named:
        return Allowed(hosts=None, origins=tuple(pages))
    return Allowed(hosts=(*local, *named), origins=(*(f"http://{host}" for host in local), *pages))


def _local_names() -> list[str]:
    return [f"{host}{port}" for host in _LOOPBACK for port in ("", ":*")]


def loopback_only() -> Allowed:
    """Requests that name this machine. What a page elsewhere has a browser send names the page's own host or origin."""
    return allowed_by(loopback=True)


class HostsAndOrigins:
    """Middleware that refuses what comes from elsewhere, or asks for another host: pages that a browser has open."""

    def __init__(self, app: ASGIApp, allowed: Allowed) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._lets_in(Headers(scope=scope)):
            error = Forbidden(
                "The request names a Host or an Origin that this server does not answer to: use the address that it "
                "printed at its start, or have its operator name it in AGENT_MCP_ALLOWED_HOSTS or "
                "AGENT_MCP_ALLOWED_ORIGINS. Nothing was changed."
            )
            await problem_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _lets_in(self, headers: Headers) -> bool:
        host, origin = headers.get("host", ""), headers.get("origin")
        hosts = self._allowed.hosts
        return (hosts is None or _fits(host, hosts)) and (origin is None or _fits(origin, self._allowed.origins))


def _fits(name: str, allowed: Sequence[str]) -> bool:
    given = name.lower()
    base, _, port = given.rpartition(":")
    return any(
        given == one.lower() or (one.endswith(":*") and port.isdigit() and base == one[:-2].lower()) for one in allowed
    )


class BodyLimit:
    """Middleware that ends a request whose body is longer than the server takes, told ahead or not."""

    def __init__(self, app: ASGIApp, longest: int) -> None:
        self._app = app
        self._longest = longest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        told = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        if told.isascii() and told.isdigit() and int(told) > self._longest:
            await problem_response(TooLarge(TOO_LONG))(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._longest:
                raise HTTPException(413)
            return message

        await self._app(scope, counted, send)
