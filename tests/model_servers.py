"""Model services on loopback in the dialects of their providers, for tests with the real packages over the wire."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Json = dict[str, Any]


@dataclass(frozen=True)
class Say:
    """An answer in two pieces, to a prompt of seven tokens beside those that were `cached`. Without `ends` the response
    is complete for HTTP, and not for the dialect; `torn` tears the connection down there."""

    first: str
    second: str = ""
    ends: bool = True
    torn: bool = False
    cached: int = 0


@dataclass(frozen=True)
class Use:
    """A request to call a tool."""

    name: str
    arguments: Json


@dataclass(frozen=True)
class Refuse:
    """An HTTP error with a message."""

    status: int
    message: str = "Injected by the test."


@dataclass(frozen=True)
class HangUp:
    """The connection is closed without a word."""


Reply = Say | Use | Refuse | HangUp

PROVIDERS = ["anthropic", "gemini", "litellm", "llamacpp", "ollama", "openai"]


class ModelServer:
    """Gives the replies in turn, then `always` the same one, and keeps the requests."""

    def __init__(self, provider: str, *replies: Reply, always: Reply | None = None) -> None:
        self.provider = provider
        self.always = always
        self.requests: list[Json] = []
        self.connections = 0
        self.replies = list(replies)
        self._http: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        server = self

        class Handler(_Handler):
            owner = server

        self._http = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._http is not None
        self._http.shutdown()
        self._http.server_close()

    @property
    def model(self) -> str:
        return {"litellm": "litellm:openai/some-model"}.get(self.provider, f"{self.provider}:some-model")

    @property
    def environ(self) -> dict[str, str]:
        """The operator's environment in which the provider is found here."""
        assert self._http is not None
        url = f"http://127.0.0.1:{self._http.server_port}"
        return {
            "ANTHROPIC_API_KEY": SECRET,
            "ANTHROPIC_BASE_URL": url,
            "GEMINI_API_KEY": SECRET,
            "GOOGLE_GEMINI_BASE_URL": url,
            "LLAMACPP_BASE_URL": url,
            "OLLAMA_HOST": url,
            "OPENAI_API_KEY": SECRET,
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_API_BASE": f"{url}/v1",
        }


SECRET = "hush-hush-0123456789"


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away, which is part of many tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: ModelServer

    def setup(self) -> None:
        super().setup()
        self.owner.connections += 1

    def log_message(self, format: str, *args: object) -> None:
        """Keep requests out of the test's output."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.owner.requests.append(body)
        reply = self.owner.replies.pop(0) if self.owner.replies else self.owner.always
        assert reply is not None, "one request too many"
        match reply:
            case HangUp():
                self._hang_up()
            case Refuse():
                payload = json.dumps(_error(self.owner.provider, reply)).encode()
                self.send_response(reply.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)
            case _:
                self._stream(reply)

    def _stream(self, reply: Say | Use) -> None:
        kind = "application/x-ndjson" if self.owner.provider == "ollama" else "text/event-stream"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in DIALECTS[self.owner.provider](reply):
            data = piece.encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        if isinstance(reply, Say) and reply.torn:
            self._hang_up()
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _error(provider: str, refusal: Refuse) -> Json:
    if provider == "anthropic":
        return {"type": "error", "error": {"type": "some_error", "message": refusal.message}}
    if provider == "gemini":
        return {"error": {"code": refusal.status, "message": refusal.message, "status": "SOME_STATUS"}}
    if provider == "ollama":
        return {"error": refusal.message}
    return {"error": {"message": refusal.message, "type": "some_error", "code": None}}


def _texts(reply: Reply) -> Sequence[str]:
    return [text for text in (reply.first, reply.second) if text] if isinstance(reply, Say) else ()


def _cached(reply: Reply) -> int:
    return reply.cached if isinstance(reply, Say) else 0


def _is_whole(reply: Reply) -> bool:
    return not isinstance(reply, Say) or (reply.ends and not reply.torn)


def _openai(reply: Reply) -> Iterator[str]:
    def chunk(delta: Json, reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return _sse({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})

    cached = _cached(reply)
    yield chunk({"role": "assistant", "content": ""})
    for text in _texts(reply):
        yield chunk({"content": text})
    if isinstance(reply, Use):
        function = {"name": reply.name, "arguments": json.dumps(reply.arguments)}
        yield chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]})
    if _is_whole(reply):
        yield chunk({}, "tool_calls" if isinstance(reply, Use) else "stop")
        usage: Json = {"prompt_tokens": 7 + cached, "completion_tokens": 3, "total_tokens": 10 + cached}
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
        yield _sse(
            {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage}
        )
        yield "data: [DONE]\n\n"


def _anthropic(reply: Reply) -> Iterator[str]:
    def event(kind: str, **fields: Any) -> str:
        return f"event: {kind}\n{_sse({'type': kind, **fields})}"

    message: Json = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
    }
    usage = {"input_tokens": 7, "output_tokens": 1, "cache_read_input_tokens": _cached(reply)}
    yield event("message_start", message={**message, "stop_sequence": None, "usage": usage})
    if isinstance(reply, Use):
        block: Json = {"type": "tool_use", "id": "toolu_1", "name": reply.name, "input": {}}
        deltas: list[Json] = [{"type": "input_json_delta", "partial_json": json.dumps(reply.arguments)}]
    else:
        block = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": text} for text in _texts(reply)]
    yield event("content_block_start", index=0, content_block=block)
    for delta in deltas:
        yield event("content_block_delta", index=0, delta=delta)
    if _is_whole(reply):
        yield event("content_block_stop", index=0)
        reason = "tool_use" if isinstance(reply, Use) else "end_turn"
        delta = {"stop_reason": reason, "stop_sequence": None}
        yield event("message_delta", delta=delta, usage={"output_tokens": 3})
        yield event("message_stop")


def _ollama(reply: Reply) -> Iterator[str]:
    def line(message: Json, **fields: Any) -> str:
        whole = {"role": "assistant", "content": "", **message}
        return (
            json.dumps({"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": whole, "done": False, **fields})
            + "\n"
        )

    for text in _texts(reply):
        yield line({"content": text})
    if isinstance(reply, Use):
        yield line({"tool_calls": [{"function": {"name": reply.name, "arguments": reply.arguments}}]})
    if _is_whole(reply):
        counts = {"eval_count": 3, "total_duration": 1_000_000}
        if not _cached(reply):
            counts["prompt_eval_count"] = 7
        yield line({}, **{"done": True, "done_reason": "stop", **counts})


def _gemini(reply: Reply) -> Iterator[str]:
    def chunk(parts: list[Json], **fields: Any) -> str:
        candidate = {"index": 0, "content": {"role": "model", "parts": parts}, **fields}
        usage = {"promptTokenCount": 7 + cached, "candidatesTokenCount": 3, "totalTokenCount": 10 + cached}
        return _sse({"candidates": [candidate], "usageMetadata": {**usage, "cachedContentTokenCount": cached}})

    cached = _cached(reply)

    for text in _texts(reply):
        yield chunk([{"text": text}])
    if isinstance(reply, Use):
        yield chunk([{"functionCall": {"name": reply.name, "args": reply.arguments}}])
    if _is_whole(reply):
        yield chunk([{"text": ""}], finishReason="STOP")


def _sse(value: Json) -> str:
    return f"data: {json.dumps(value)}\n\n"


DIALECTS = {
    "anthropic": _anthropic,
    "gemini": _gemini,
    "litellm": _openai,
    "llamacpp": _openai,
    "ollama": _ollama,
    "openai": _openai,
}
