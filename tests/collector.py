"""An OpenTelemetry collector on loopback: what it got, byte for byte and decoded. It can be made to hang."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

DEADLINE = 120.0


class Collector:
    """A server for OTLP over HTTP. With `hangs` it answers nothing until it is closed."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self._asked = threading.Event()
        self._free = threading.Event()
        if not hangs:
            self._free.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.paths.append(self.path)
                collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                collector._asked.set()
                collector._free.wait()
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that did not wait

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._free.set()
        self._server.shutdown()
        self._server.server_close()

    def wait_until_asked(self) -> None:
        assert self._asked.wait(DEADLINE), "nothing was sent"

    def spans(self) -> list[Any]:
        """All spans that came, in the order in which they ended."""
        found: list[Any] = []
        for body in self.bodies:
            request: Any = ExportTraceServiceRequest.FromString(body)
            found += [
                span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
            ]
        return found

    def resource(self) -> dict[str, str]:
        request: Any = ExportTraceServiceRequest.FromString(self.bodies[0])
        return {item.key: item.value.string_value for item in request.resource_spans[0].resource.attributes}


def attributes(span: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}
