"""An OAuth authorization server on loopback: metadata, keys, and tokens signed with them."""

import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm


@dataclass
class Issuer:
    """One issuer. `asked` are the paths that were asked for, `said` replaces what its metadata say, and who asks for a
    path in `moved` is sent elsewhere."""

    url: str = ""
    asked: list[str] = field(default_factory=list[str])
    said: dict[str, str] = field(default_factory=dict[str, str])
    moved: dict[str, str] = field(default_factory=dict[str, str])
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    def token(self, sub: str, *, key: Any = None, algorithm: str = "RS256", kid: str = "one", **claims: Any) -> str:
        """A token as the issuer gives it; `claims` replace what it would say, None leaves one out."""
        given = {"iss": self.url, "aud": "agents", "sub": sub, "exp": int(time.time()) + 600, **claims}
        said = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(said, key or self.key, algorithm=algorithm, headers={"kid": kid})

    def document(self, path: str) -> dict[str, Any] | None:
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.said}
        if path == "/keys":
            public = json.loads(RSAAlgorithm.to_jwk(self.key.public_key()))
            return {"keys": [{**public, "kid": "one", "alg": "RS256", "use": "sig"}]}
        return None


@contextmanager
def issuing() -> Generator[Issuer]:
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            document = issuer.document(self.path)
            body = json.dumps(document).encode()
            elsewhere = issuer.moved.get(self.path)
            self.send_response(302 if elsewhere else 200 if document else 404)
            if elsewhere:
                self.send_header("Location", elsewhere)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
