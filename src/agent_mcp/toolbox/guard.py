"""The one way by which tools reach the web: to public addresses only, and never for longer or more than is bounded."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from agent_mcp.toolbox.addresses import in_domains, is_odd_number, is_open_port, is_public
from agent_mcp.toolbox.charsets import charset_of
from agent_mcp.toolbox.internet import Internet

logger = logging.getLogger(__name__)

MAX_BYTES = 5 * 1024 * 1024
"""The most of a body that is read, also after it was unpacked."""
SECONDS = 30.0
"""The most that one request may take, from the look-up of the name to the last byte."""
REDIRECTS = 5
_ADDRESSES = 3
_PACKED = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS | 32}
_PLAIN = ("", "identity")


class NotReached(httpx.RequestError):
    """A request that was not made, or not to its end, because of a rule of ours."""


def guarded_client(internet: Internet) -> httpx.AsyncClient:
    """A client for one use: without cookies, proxies and credentials, each request and redirect checked."""
    return httpx.AsyncClient(
        transport=GuardedTransport(internet),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=True,
        max_redirects=REDIRECTS,
        timeout=httpx.Timeout(SECONDS, connect=10),
        trust_env=False,
    )


class GuardedTransport(httpx.AsyncBaseTransport):
    """Looks a host up, judges its addresses, and connects to just those: what a name means later doesn't matter."""

    def __init__(self, internet: Internet) -> None:
        self._internet = internet
        self._inner = internet.connect()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        deadline = asyncio.get_running_loop().time() + SECONDS
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._first_that_connects(request, await self._addresses(request.url))
        except TimeoutError:
            raise NotReached(f"{request.url.host} took more than {SECONDS:g} seconds") from None
        try:
            return _bounded(response, deadline)
        except NotReached:
            await response.aclose()  # nobody else will: a client that is kept would keep the connection too
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _addresses(self, url: httpx.URL) -> Sequence[str]:
        """The public addresses of a URL's host; raises NotReached where the URL leads anywhere else."""
        host, port = _host(url), url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
        if url.scheme not in ("http", "https"):
            raise NotReached(f"{url.scheme or 'no scheme'}: only http and https can be reached")
        if url.userinfo:
            raise NotReached("the URL carries a user name or password: give it without")
        if not host or is_odd_number(host):
            raise NotReached(f"{host!r} is no host: give a name, or an address as four plain numbers")
        if not is_open_port(port):
            raise NotReached(f"the port {port} is not reached: web tools reach 80, 443 and those from 1024 on")
        if not in_domains(host, self._internet.domains):
            raise NotReached(f"{host} is none of the domains that the operator allows (AGENT_MCP_WEB_DOMAINS)")
        try:
            addresses = [host] if ":" in host else list(await self._internet.resolve(host, port))
        except OSError:
            raise NotReached(f"there is no host {host}, or its name can't be looked up now") from None
        # One private address among public ones is enough: it is how a name is made to mean both.
        if not addresses or not all(is_public(address) for address in addresses):
            logger.info("a web tool was kept from %s, which is not on the internet", host)
            raise NotReached(f"{host} is not on the public internet: private and local addresses are never reached")
        return addresses[:_ADDRESSES]

    async def _first_that_connects(self, request: httpx.Request, addresses: Sequence[str]) -> httpx.Response:
        """The response of the first address that takes the connection, asked for the host by its name."""
        host = _host(request.url)
        headers = request.headers.copy()
        headers["Host"] = request.url.netloc.decode("ascii")  # whatever the model says: it is part of what was judged
        headers["Accept-Encoding"] = "gzip"
        extensions = {**request.extensions, "sni_hostname": host}
        failure: httpx.RequestError | None = None
        for address in addresses:
            url = request.url.copy_with(host=address)
            attempt = httpx.Request(request.method, url, headers=headers, stream=request.stream, extensions=extensions)
            try:
                return await self._inner.handle_async_request(attempt)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii").lower().rstrip(".")


def _bounded(response: httpx.Response, deadline: float) -> httpx.Response:
    """The response with a body that ends in NotReached where it gets too long, or too late."""
    packing = response.headers.get("content-encoding", "").strip().lower()
    if packing not in _PACKED and packing not in _PLAIN:
        raise NotReached(f"the answer is packed as {packing[:50]!r}, which is not read")
    headers = [
        (name, _content_type(value) if name == "content-type" else value)
        for name, value in response.headers.multi_items()
        if name not in ("content-encoding", "content-length", "set-cookie")
    ]
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return httpx.Response(
        response.status_code,
        headers=headers,
        stream=_Body(response.stream, deadline=deadline, packing=packing),
        extensions=response.extensions,
    )


def _content_type(value: str) -> str:
    """A content type with no encoding but those of text: http_request decodes by whatever it finds here."""
    kind = value.partition(";")[0].strip()
    charset = charset_of(value)
    return f"{kind}; charset={charset}" if charset else kind


class _Body(httpx.AsyncByteStream):
    """A body, unpacked piece by piece, so that a small one can't unfold into all of the memory."""

    def __init__(self, stream: httpx.AsyncByteStream, *, deadline: float, packing: str) -> None:
        self._stream = stream
        self._deadline = deadline
        self._packing = packing

    async def __aiter__(self) -> AsyncIterator[bytes]:
        unpacker = zlib.decompressobj(_PACKED[self._packing]) if self._packing in _PACKED else None
        left = MAX_BYTES
        try:
            async for chunk in self._in_time():
                data = unpacker.decompress(chunk, left + 1) if unpacker else chunk
                left -= len(data)
                if left < 0:
                    raise NotReached(f"the answer is larger than {MAX_BYTES // 1024 // 1024} MiB, and was left unread")
                yield data
        except zlib.error:
            raise NotReached("the answer is not packed as it says") from None

    async def _in_time(self) -> AsyncGenerator[bytes]:
        pieces = aiter(self._stream)
        while True:
            try:
                async with asyncio.timeout_at(self._deadline):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise NotReached(f"the answer was not complete after {SECONDS:g} seconds") from None
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()
