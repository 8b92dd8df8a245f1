"""Amazon Bedrock Runtime's ConverseStream on loopback, for tests with the real boto3 client.

A test gives a *script*: a function from the request that came in to the reply that goes out. Requests are
checked, and replies are shaped, by the service model that botocore ships, so neither side can drift from
the real interface. A request that Bedrock would refuse is refused here too, and kept in
`BedrockServer.violations`.

    with BedrockServer(lambda received: say(f"You said {received.last_text}")) as server:
        os.environ.update(server.env)
        ...
"""

import json
import re
import socket
import struct
import sys
import threading
import time
import traceback
import urllib.parse
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, cast

import botocore.session  # pyright: ignore[reportMissingTypeStubs]  # botocore ships no types
import botocore.validate  # pyright: ignore[reportMissingTypeStubs]  # botocore ships no types

Json = dict[str, Any]
Event = tuple[str, Json]
"""The name of a stream event and its payload."""

DEADLINE = 120.0
"""Seconds that a test waits for something to happen before it fails."""
GATE_LIMIT = 180.0
"""Seconds after which a gate that nobody releases ends its answer, and is reported as a violation."""
POLL = 0.02
"""Seconds between two looks at the client's connection while an answer is held."""


class Gate:
    """A point in an answer where the server stops until the test says go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()

    def wait_until_reached(self, timeout: float = DEADLINE) -> None:
        """Block until the answer has come to this gate; raises TimeoutError after `timeout` seconds."""
        if not self.reached.wait(timeout):
            raise TimeoutError(f"no answer came to this gate within {timeout} s")

    def release(self) -> None:
        """Let the answer go on. A released gate stays open for later answers too."""
        self.released.set()


@dataclass(frozen=True)
class Pause:
    """Hold the answer for some seconds."""

    seconds: float


@dataclass(frozen=True)
class StreamFault:
    """End the answer with an exception event, such as `throttlingException`, inside the stream."""

    code: str
    message: str = "Injected by the test."

    def __post_init__(self) -> None:
        known = _converse_stream().stream_faults
        if self.code not in known:
            raise ValueError(f"{self.code} is not an exception of the stream; one of {sorted(known)} is")


@dataclass(frozen=True)
class CutOff:
    """Tear the connection down in the middle of the stream.

    `orderly` ends the HTTP response as if it were complete, so that only the missing messageStop tells.
    """

    orderly: bool = False


Control = Gate | Pause | StreamFault | CutOff
"""What can stand between the blocks of an answer, or between the chunks of a block."""


@dataclass(frozen=True)
class Text:
    """A text block, streamed in pieces of a plausible size, or exactly in the given `chunks`."""

    text: str = ""
    chunks: Sequence[str | Control] = ()


@dataclass(frozen=True)
class ToolUse:
    """A request to call a tool. `chunks` replaces the JSON of `input`, so it can also be malformed."""

    name: str
    input: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tool_use_id: str = field(default_factory=lambda: f"tooluse_{uuid.uuid4().hex}")
    chunks: Sequence[str | Control] = ()


@dataclass(frozen=True)
class Answer:
    """A streamed answer.

    `stop_reason` defaults to what the blocks imply, `usage` (input and output tokens) to a quarter of the
    characters. `cached` are tokens read from the cache and written to it, beside the input's. The holds in `before` are
    played before the response's first byte.
    """

    blocks: Sequence[Text | ToolUse | Control]
    stop_reason: str | None = None
    usage: tuple[int, int] | None = None
    cached: tuple[int, int] = (0, 0)
    before: Sequence[Gate | Pause] = ()


@dataclass(frozen=True)
class Fault:
    """An HTTP error instead of a stream, after the holds in `before`."""

    status: int
    code: str
    message: str = "Injected by the test."
    before: Sequence[Gate | Pause] = ()


Reply = Answer | Fault


@dataclass(frozen=True, kw_only=True)
class Received:
    """A request as it arrived, with the parts that scripts and assertions ask for."""

    model_id: str
    body: Json

    @property
    def messages(self) -> list[Json]:
        """The conversation, oldest message first."""
        return self.body.get("messages", [])

    @property
    def system(self) -> str:
        """The system prompt's text, "" without one."""
        return _text(self.body.get("system", []))

    @property
    def tools(self) -> list[str]:
        """The names of the tools that the model may call."""
        tools: list[Json] = self.body.get("toolConfig", {}).get("tools", [])
        return [tool["toolSpec"]["name"] for tool in tools if "toolSpec" in tool]

    @property
    def last_text(self) -> str:
        """The text of the last user message, "" when it holds only tool results."""
        return next((_text(m["content"]) for m in reversed(self.messages) if m["role"] == "user"), "")

    @property
    def tool_results(self) -> list[str]:
        """The tool results in the last message: text as it is, other content as JSON."""
        return [
            "\n".join(part["text"] if "text" in part else json.dumps(part) for part in result["content"])
            for result in _blocks(self.messages[-1], "toolResult")
        ]

    @property
    def input_tokens(self) -> int:
        """A plausible count of the tokens in this request."""
        return _tokens(json.dumps(self.body))


Script = Callable[[Received], Reply]


def say(*parts: str | Control, stop_reason: str | None = None, usage: tuple[int, int] | None = None) -> Answer:
    """An answer of one text block: a single string, or the exact chunks with holds and faults between."""
    text = Text(parts[0]) if len(parts) == 1 and isinstance(parts[0], str) else Text(chunks=parts)
    return Answer([text], stop_reason=stop_reason, usage=usage)


def use_tool(name: str, input: Mapping[str, Any] | None = None) -> Answer:
    """An answer that calls one tool."""
    return Answer([ToolUse(name, input or {})])


def fail(code: str, message: str = "Injected by the test.") -> Fault:
    """A fault that ConverseStream documents, such as `ThrottlingException`, with its HTTP status."""
    return Fault(_converse_stream().fault_statuses[code], code, message)


def in_turn(*replies: Reply) -> Script:
    """A script that gives each reply once, in order of arrival; one request too many is a violation."""
    remaining = list(replies)

    def script(received: Received) -> Reply:
        try:
            return remaining.pop(0)  # one atomic step, so that requests may arrive at the same time
        except IndexError:
            raise AssertionError(f"only {len(replies)} requests were expected") from None

    return script


class BedrockServer:
    """Serves ConverseStream on a free port of 127.0.0.1 while it is entered as a context manager.

    `script` runs on the request's own thread, so concurrent requests run it concurrently, and may be
    replaced between requests. What has happened so far is read from `requests`, `violations` and
    `disconnects`, each a snapshot.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.closing = threading.Event()
        self._changed = threading.Condition()
        self._requests: list[Received] = []
        self._violations: list[str] = []
        self._disconnects = 0
        self._connections: set[socket.socket] = set()
        self._http: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        _converse_stream()  # read the service model here, not in the first request
        http = _HTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": POLL}, name="bedrock", daemon=True).start()
        self._http = http
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and drop every connection, whatever its answer is waiting for."""
        self.closing.set()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
        with self._changed:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        """The endpoint's address."""
        if self._http is None:
            raise RuntimeError("the server is not running: enter it with `with`")
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that send a process's Bedrock calls here."""
        return {
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": self.url,
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    @property
    def requests(self) -> list[Received]:
        """Every request with a JSON object as its body, refused ones too, in order of arrival."""
        with self._changed:
            return list(self._requests)

    @property
    def violations(self) -> list[str]:
        """What Bedrock would have refused, and what went wrong in the script itself."""
        with self._changed:
            return list(self._violations)

    @property
    def disconnects(self) -> int:
        """How many clients went away in the middle of an answer."""
        with self._changed:
            return self._disconnects

    def wait_for_requests(self, n: int, timeout: float = DEADLINE) -> list[Received]:
        """The requests, once there are `n` of them; raises TimeoutError after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= n, timeout):
                raise TimeoutError(f"{len(self._requests)} of {n} requests came within {timeout} s")
            return list(self._requests)

    def wait_for_disconnects(self, n: int, timeout: float = DEADLINE) -> None:
        """Block until `n` clients went away mid-answer; raises TimeoutError after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._disconnects >= n, timeout):
                raise TimeoutError(f"{self._disconnects} of {n} clients went away within {timeout} s")

    def record(self, *violations: str, request: Received | None = None, disconnect: bool = False) -> None:
        """Called by the handler with what has happened."""
        with self._changed:
            self._violations += violations
            self._requests += [request] if request else []
            self._disconnects += disconnect
            self._changed.notify_all()

    def track(self, connection: socket.socket, *, is_open: bool) -> None:
        """Called by the handler as a connection comes and goes."""
        with self._changed:
            (self._connections.add if is_open else self._connections.discard)(connection)


def check_history(body: Json) -> list[str]:
    """What Bedrock refuses in a well-formed request, as sentences; none when it is valid.

    The rules are those of Converse with Claude models: see "Carry out a conversation with the Converse API"
    in the Amazon Bedrock User Guide. It leaves the order of blocks to the models: Claude wants tool results
    at the beginning of a message and tool uses at its end.
    """
    found: list[str] = []
    messages: list[Json] = body.get("messages", [])
    called: list[str] = []  # tool use ids of the previous message
    seen: set[str] = set()
    for i, message in enumerate(messages):
        where, role, content = f"messages.{i}", message["role"], cast(list[Json], message["content"])
        if role != ("assistant" if i % 2 else "user"):
            found.append(f"{where}: roles must alternate, starting with user; this one is {role}")
        if not content:
            found.append(f"{where}: the content is empty")
        found += [f"{where}.content.{j}: the text is blank" for j in _blank(content)]

        uses, results = _blocks(message, "toolUse"), _blocks(message, "toolResult")
        answered = [result["toolUseId"] for result in results]
        if uses and role != "assistant":
            found.append(f"{where}: toolUse outside an assistant message")
        if results and role != "user":
            found.append(f"{where}: toolResult outside a user message")
        if missing := [id for id in called if id not in answered]:
            found.append(f"{where}: no toolResult for {', '.join(missing)}")
        if orphans := [id for id in answered if id not in called]:
            found.append(f"{where}: toolResult without a toolUse before it: {', '.join(orphans)}")
        if len(set(answered)) < len(answered):
            found.append(f"{where}: two toolResults for one toolUse")
        kinds = [next(iter(block)) for block in content if "cachePoint" not in block]
        if "toolResult" in kinds[len(results) :]:
            found.append(f"{where}: toolResults must come before other content")
        if "toolUse" in kinds[: len(kinds) - len(uses)]:
            found.append(f"{where}: toolUses must come after other content")
        if any(result.get("status") == "error" and not result["content"] for result in results):
            found.append(f"{where}: a toolResult with status error must have content")
        called = [use["toolUseId"] for use in uses]
        found += [f"{where}: toolUseId {id} was used before" for id in called if id in seen]
        seen.update(called)
        found += [f"{where}: the input of {u['name']} is no object" for u in uses if type(u["input"]) is not dict]

    if not messages or messages[-1]["role"] != "user":
        found.append("messages: the conversation must end with a user message")
    if "toolConfig" not in body and any(_blocks(m, kind) for m in messages for kind in ("toolUse", "toolResult")):
        found.append("toolConfig: missing, though messages use tools")
    tools = Received(model_id="", body=body).tools
    if len(set(tools)) < len(tools):
        found.append("toolConfig: two tools of one name")
    return found + [f"system.{j}: the text is blank" for j in _blank(body.get("system", []))]


def encode_frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message of `application/vnd.amazon.eventstream`, with string headers.

    Lengths and a CRC of them, headers, payload, and a CRC of all that; integers are big-endian. See "Event
    stream encoding" in the Amazon Transcribe Developer Guide.
    """
    head = b""
    for name, value in headers.items():
        key, text = name.encode(), value.encode()
        head += struct.pack(">B", len(key)) + key + struct.pack(">BH", 7, len(text)) + text  # 7: a string
    frame = struct.pack(">II", 4 + 4 + 4 + len(head) + len(payload) + 4, len(head))
    frame += struct.pack(">I", zlib.crc32(frame))
    frame += head + payload
    return frame + struct.pack(">I", zlib.crc32(frame))


def _play(answer: Answer, received: Received) -> Iterator[Event | Control]:
    """The answer as the stream's events, with the controls where the script put them."""
    started, index, said = time.monotonic(), 0, ""
    yield "messageStart", {"role": "assistant"}
    for block in answer.blocks:
        if not isinstance(block, Text | ToolUse):
            yield block
            continue
        if isinstance(block, ToolUse):
            start = {"toolUse": {"toolUseId": block.tool_use_id, "name": block.name}}
            yield "contentBlockStart", {"contentBlockIndex": index, "start": start}
        whole = block.text if isinstance(block, Text) else json.dumps(block.input)
        for chunk in block.chunks or _pieces(whole):
            if isinstance(chunk, str):
                said += chunk
                delta = {"text": chunk} if isinstance(block, Text) else {"toolUse": {"input": chunk}}
                yield "contentBlockDelta", {"contentBlockIndex": index, "delta": delta}
            else:
                yield chunk
        yield "contentBlockStop", {"contentBlockIndex": index}
        index += 1
    implied = "tool_use" if any(isinstance(block, ToolUse) for block in answer.blocks) else "end_turn"
    yield "messageStop", {"stopReason": answer.stop_reason or implied}
    tokens_in, tokens_out = answer.usage or (received.input_tokens, _tokens(said))
    usage = {"inputTokens": tokens_in, "outputTokens": tokens_out, "totalTokens": tokens_in + tokens_out}
    if any(answer.cached):
        usage["cacheReadInputTokens"], usage["cacheWriteInputTokens"] = answer.cached
        usage["totalTokens"] += sum(answer.cached)
    yield "metadata", {"usage": usage, "metrics": {"latencyMs": round((time.monotonic() - started) * 1000)}}


def _pieces(text: str) -> list[str]:
    """A text in at most 24 pieces, of 12 characters at least."""
    size = max(12, -(-len(text) // 24))
    return [text[i : i + size] for i in range(0, len(text), size)] or [""]


def _tokens(text: str) -> int:
    return -(-len(text) // 4)


def _text(blocks: Sequence[Json]) -> str:
    return "\n".join(block["text"] for block in blocks if "text" in block)


def _blank(blocks: Sequence[Json]) -> list[int]:
    return [j for j, block in enumerate(blocks) if "text" in block and not block["text"].strip()]


def _blocks(message: Json, kind: str) -> list[Json]:
    return [block[kind] for block in message["content"] if kind in block]


class _ConverseStream:
    """The operation as botocore's service model describes it. All that is untyped in botocore stays here."""

    def __init__(self) -> None:
        session: Any = botocore.session.get_session()  # pyright: ignore[reportUnknownMemberType]  # untyped
        operation: Any = session.get_service_model("bedrock-runtime").operation_model("ConverseStream")
        self._input: Any = operation.input_shape
        self._stream: Any = operation.output_shape.members["stream"]
        self._validator: Any = botocore.validate.ParamValidator()
        uri: str = operation.http["requestUri"]
        self._path = re.compile(re.escape(uri).replace(r"\{modelId\}", "(.+)"))
        errors: list[Any] = operation.error_shapes
        self.fault_statuses: dict[str, int] = {e.name: e.metadata["error"]["httpStatusCode"] for e in errors}
        members: dict[str, Any] = self._stream.members
        self.stream_faults = {name for name, shape in members.items() if shape.metadata.get("exception")}

    def find_model_id(self, path: str) -> str | None:
        """The model's id in a request's path, None for the path of another operation."""
        match = self._path.fullmatch(urllib.parse.urlsplit(path).path)
        return match and urllib.parse.unquote(match[1])

    def check_request(self, model_id: str, body: Json) -> list[str]:
        """What is wrong with a request's shape."""
        return self._check({**body, "modelId": model_id}, self._input, "request")

    def check_answer(self, reply: Reply, received: Received) -> list[str]:
        """What is wrong with the shape of the events of an answer."""
        steps = _play(reply, received) if isinstance(reply, Answer) else ()
        events = [step for step in steps if isinstance(step, tuple)]
        return [error for name, payload in events for error in self._check({name: payload}, self._stream, "answer")]

    def _check(self, value: Json, shape: Any, where: str) -> list[str]:
        report = self._validator.validate(value, shape)
        if report.has_errors():
            return [f"{where}: {report.generate_report()}"]
        return list(limits(value, shape, where))


def limits(value: Any, shape: Any, where: str) -> Iterator[str]:
    """What the service checks and botocore's own validator leaves to it: enum, pattern and maximum."""
    kind, rules = shape.type_name, shape.metadata
    if kind == "structure" and not shape.is_document_type:
        for name, item in value.items():
            yield from limits(item, shape.members[name], f"{where}.{name}")
    elif kind == "list":
        for i, item in enumerate(value):
            yield from limits(item, shape.member, f"{where}.{i}")
    elif kind == "map":
        for key, item in value.items():
            yield from limits(key, shape.key, where)
            yield from limits(item, shape.value, f"{where}.{key}")
    if kind == "string" and "enum" in rules and value not in rules["enum"]:
        yield f"{where}: {value!r} is not one of {rules['enum']}"
    if kind == "string" and "pattern" in rules and not re.fullmatch(rules["pattern"], value):
        yield f"{where}: {value!r} does not match {rules['pattern']}"
    if "max" in rules and (len(value) if kind in ("string", "list", "map") else value) > rules["max"]:
        yield f"{where}: more than {rules['max']}"


@cache
def _converse_stream() -> _ConverseStream:
    return _ConverseStream()


class _Disconnected(Exception):
    """The client went away in the middle of its answer."""


class _Abandoned(Exception):
    """The answer ends here: the server closes, or the script holds it for too long."""


class _HTTPServer(ThreadingHTTPServer):
    request_queue_size = 128  # the default of 5 would make a burst of clients wait

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away, which is part of many tests."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # each event must leave at once

    def __init__(self, bedrock: BedrockServer, *args: Any) -> None:
        self._bedrock = bedrock
        super().__init__(*args)

    def setup(self) -> None:
        super().setup()
        self._bedrock.track(self.connection, is_open=True)

    def finish(self) -> None:
        self._bedrock.track(self.connection, is_open=False)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Keep requests out of the test's output."""

    def do_POST(self) -> None:
        """Answer one call."""
        length = int(self.headers.get("Content-Length", 0))
        raw = self.rfile.read(length)
        if len(raw) < length:  # the client went away before it had asked
            self._hang_up()
            return
        try:
            self._respond(raw)
        except _Abandoned:
            self._hang_up()
        except (_Disconnected, ConnectionError):
            self._hang_up()
            if not self._bedrock.closing.is_set():
                self._bedrock.record(disconnect=True)

    def _respond(self, raw: bytes) -> None:
        operation = _converse_stream()
        model_id = operation.find_model_id(self.path)
        if model_id is None:
            self._refuse(404, "UnknownOperationException", [f"{self.path} is not served here"])
            return
        try:
            body: Any = json.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            self._refuse(400, "SerializationException", ["the body is no JSON object"])
            return
        received = Received(model_id=model_id, body=cast(Json, body))
        self._bedrock.record(request=received)
        if found := operation.check_request(model_id, received.body) or check_history(received.body):
            self._refuse(400, "ValidationException", found)
            return
        try:
            reply = self._bedrock.script(received)
            found = operation.check_answer(reply, received)
        except Exception:  # whatever a test's script raises must reach the test
            self._refuse(400, "ValidationException", [f"script: {traceback.format_exc()}"])
            return
        if found:
            self._refuse(400, "ValidationException", found)
            return
        for hold in reply.before:
            self._hold(hold)
        if isinstance(reply, Fault):
            self._send_fault(reply)
        else:
            self._stream(reply, received)

    def _refuse(self, status: int, code: str, found: list[str]) -> None:
        self._bedrock.record(*found)
        self._send_fault(Fault(status, code, "; ".join(found)))

    def _send_fault(self, fault: Fault) -> None:
        payload = json.dumps({"message": fault.message}).encode()
        self._send_head(
            fault.status,
            {
                "Content-Type": "application/json",
                "Content-Length": str(len(payload)),
                "x-amzn-ErrorType": fault.code,
            },
        )
        self.wfile.write(payload)

    def _send_head(self, status: int, headers: Mapping[str, str]) -> None:
        self._require_client()
        self.send_response(status)
        for name, value in {**headers, "x-amzn-RequestId": str(uuid.uuid4())}.items():
            self.send_header(name, value)
        self.end_headers()

    def _stream(self, answer: Answer, received: Received) -> None:
        content_type = "application/vnd.amazon.eventstream"
        self._send_head(200, {"Content-Type": content_type, "Transfer-Encoding": "chunked"})
        for step in _play(answer, received):
            match step:
                case Gate() | Pause():
                    self._hold(step)
                case StreamFault():
                    self._send_message("exception", step.code, {"message": step.message})
                    break
                case CutOff(orderly=True):
                    break
                case CutOff():
                    self._hang_up()
                    return
                case (name, payload):
                    self._send_message("event", name, payload)
        self._send_chunk(b"")  # an empty chunk ends the response

    def _send_message(self, kind: str, name: str, payload: Json) -> None:
        headers = {f":{kind}-type": name, ":content-type": "application/json", ":message-type": kind}
        self._send_chunk(encode_frame(headers, json.dumps(payload).encode()))

    def _send_chunk(self, data: bytes) -> None:
        self._require_client()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _hold(self, hold: Gate | Pause) -> None:
        """Wait as the script says, unless the client or the server goes away first."""
        if isinstance(hold, Gate):
            hold.reached.set()
            event, seconds = hold.released, GATE_LIMIT
        else:
            event, seconds = self._bedrock.closing, hold.seconds
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not event.wait(min(left, POLL)):
            self._require_client()
        if self._bedrock.closing.is_set():
            raise _Abandoned
        if isinstance(hold, Gate) and not hold.released.is_set():
            self._bedrock.record(f"script: a gate was not released within {GATE_LIMIT} s")
            raise _Abandoned

    def _require_client(self) -> None:
        """Raise when the client has closed its side; the first write after that would still succeed."""
        if self._bedrock.closing.is_set():
            raise _Abandoned
        self.connection.setblocking(False)
        try:
            if not self.connection.recv(1, socket.MSG_PEEK):
                raise _Disconnected
        except BlockingIOError:
            pass  # nothing to read: the client is there, waiting
        finally:
            self.connection.setblocking(True)

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
