"""The internet on loopback: names and public addresses of the test's own, behind which a real web server answers."""

import datetime
import gzip
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent_mcp.toolbox.internet import Internet, connect_directly

PUBLIC = "93.184.215.14"
OTHER = "151.101.1.69"
PUBLIC_V6 = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"


@dataclass(frozen=True)
class Page:
    """What the server answers at a URL."""

    body: bytes | str = ""
    kind: str = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def content(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else self.body


def moved(to: str) -> Page:
    return Page(status=302, headers={"Location": to})


def packed(body: bytes) -> Page:
    return Page(gzip.compress(body), kind="text/plain", headers={"Content-Encoding": "gzip"})


@dataclass(frozen=True)
class Asked:
    """A request as it came: of which host, by which name, for what."""

    address: str
    host: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


class LoopbackWeb:
    """Names in `names` mean their addresses (a list of lists: one after the other), and everything that is connected to
    ends at one server, which has `pages` by `host/path`. `dialled` are the addresses that were connected to."""

    def __init__(
        self,
        pages: Mapping[str, Page | Callable[[Asked], Page]],
        *,
        names: Mapping[str, Sequence[str] | Sequence[Sequence[str]]] | None = None,
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
    ) -> None:
        self.pages = dict(pages)
        self.names = dict(names or {})
        self.asked: list[Asked] = []
        self.dialled: list[tuple[str, int]] = []
        self.dead: set[str] = set()
        self._looked_up: dict[str, int] = {}
        self._client_tls = client_tls
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        if server_tls is not None:
            self._http.socket = server_tls.wrap_socket(self._http.socket, server_side=True)

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def port(self) -> int:
        return self._http.server_port

    def internet(self, *domains: str) -> Internet:
        return Internet(domains=domains or ("*",), resolve=self.resolve, connect=self.connect)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        if host not in self.names:
            # As a resolver does with what is an address already, whatever the form.
            return [host] if host.replace(".", "").isdigit() else await _unknown(host)
        answers = self.names[host]
        if answers and isinstance(answers[0], str):
            return [str(answer) for answer in answers]
        turn = self._looked_up.get(host, 0)
        self._looked_up[host] = turn + 1
        return list(answers[min(turn, len(answers) - 1)])

    def connect(self) -> httpx.AsyncBaseTransport:
        inner = httpx.AsyncHTTPTransport(verify=self._client_tls) if self._client_tls else connect_directly()
        return _Dialled(self, inner)


async def _unknown(host: str) -> Sequence[str]:
    raise OSError(f"no such host: {host}")


class _Dialled(httpx.AsyncBaseTransport):
    """Connects to the loopback server in place of the address that a request names."""

    def __init__(self, web: LoopbackWeb, inner: httpx.AsyncBaseTransport) -> None:
        self._web = web
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        address = request.url.host
        self._web.dialled.append((address, request.url.port or {"http": 80, "https": 443}[request.url.scheme]))
        if address in self._web.dead:
            raise httpx.ConnectError(f"{address} does not answer")
        headers = request.headers.copy()
        headers["X-Dialled"] = address
        url = request.url.copy_with(host="127.0.0.1", port=self._web.port)
        return await self._inner.handle_async_request(
            httpx.Request(request.method, url, headers=headers, stream=request.stream, extensions=request.extensions)
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, web: LoopbackWeb, *args: Any) -> None:
        self._web = web
        super().__init__(*args)

    def log_message(self, format: str, *args: object) -> None:
        """Keep requests out of the test's output."""

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        asked = Asked(headers.pop("x-dialled", ""), headers.get("host", ""), self.path, headers, body)
        self._web.asked.append(asked)
        page = self._web.pages.get(f"{asked.host}{asked.path.partition('?')[0]}", Page("No such page.", status=404))
        if callable(page):
            page = page(asked)
        self.send_response(page.status)
        for name, value in {
            "Content-Type": page.kind,
            "Content-Length": str(len(page.content)),
            **page.headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # the client has seen enough
            self.wfile.write(page.content)

    do_POST = do_GET
    do_PUT = do_GET
    do_DELETE = do_GET


def certificate(name: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for a server of that name, and for clients that trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return server, ssl.create_default_context(cafile=str(folder / "cert.pem"))
