"""Amazon Bedrock AgentCore's memory on loopback, for tests with the real boto3 client.

Requests are parsed and checked, and answers shaped and checked, by the service models that botocore ships, for the
data plane and for the control plane. What a client token was used for is done once; records are listed the newest
first and in pages; they may be kept from appearing for a while; any operation can be made to fail or to hang.
"""

import json
import re
import threading
import urllib.parse
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, cast

import botocore.session  # pyright: ignore[reportMissingTypeStubs]  # botocore ships no types
import botocore.validate  # pyright: ignore[reportMissingTypeStubs]  # botocore ships no types

from agent_mcp.offline import read_facts
from bedrock_server import limits

Json = dict[str, Any]
MEMORY_ID = "agents-0123456789"
_HOLD_SECONDS = 60.0


class Refusal(Exception):
    """An answer that is an error of the service."""

    def __init__(self, status: int, code: str, message: str = "Injected by the test.") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(kw_only=True)
class Record:
    """A memory record. One that has not appeared yet is found by nothing but its id."""

    record_id: str
    namespace: str
    text: str
    created: datetime
    metadata: Json = field(default_factory=dict[str, Any])
    appeared: bool = True

    def summary(self) -> Json:
        metadata = {"metadata": self.metadata} if self.metadata else {}
        return {
            "memoryRecordId": self.record_id,
            "content": {"text": self.text},
            "memoryStrategyId": "semantic-0123456789",
            "namespaces": [self.namespace],
            "createdAt": self.created,
            **metadata,
        }


class AgentCoreServer:
    """A running server with one memory, `MEMORY_ID`; `env` points a process's boto3 to it."""

    def __init__(self, *, extracts: bool = True) -> None:
        self.extracts = extracts
        """Whether what is said in events becomes records, in the namespace of the strategies."""
        self.appears_at_once = True
        """False: new records don't show in searches and lists before `appear()`."""
        self.records: dict[str, Record] = {}
        self.events: list[Json] = []
        self.memories: list[Json] = []
        self.calls: Counter[str] = Counter()
        self.violations: list[str] = []
        self._tokens: dict[tuple[str, str], tuple[Json, Json]] = {}
        self._faults: dict[str, Refusal] = {}
        self._held: dict[str, threading.Event] = {}
        self._news = threading.Condition()
        self._server = _HTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def env(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return {
            "AWS_ENDPOINT_URL_BEDROCK_AGENTCORE": url,
            "AWS_ENDPOINT_URL_BEDROCK_AGENTCORE_CONTROL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AGENT_MCP_AGENTCORE_MEMORY_ID": MEMORY_ID,
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        if error is None:
            assert not self.violations, self.violations

    def fail(self, *operations: str, code: str = "ThrottledException", status: int = 429) -> None:
        """Has these operations fail from now on; "*" is all of them."""
        for operation in operations:
            self._faults[operation] = Refusal(status, code)

    def hold(self, *operations: str) -> None:
        """Has these operations hang until `release`."""
        for operation in operations:
            self._held[operation] = threading.Event()

    def release(self) -> None:
        """Lets everything work again."""
        self._faults.clear()
        for held in self._held.values():
            held.set()
        self._held.clear()

    def appear(self) -> None:
        """Lets all records be found."""
        self.appears_at_once = True
        for record in self.records.values():
            record.appeared = True

    def texts(self) -> list[str]:
        return sorted(record.text for record in list(self.records.values()))

    def wait_until(self, holds: Callable[[], bool], seconds: float = 60.0) -> None:
        """Waits for requests until something holds; raises TimeoutError."""
        with self._news:
            if not self._news.wait_for(holds, timeout=seconds):
                raise TimeoutError(f"it did not come true within {seconds} s; calls: {self.calls}")

    def handle(self, operation: str, given: Json) -> Json:
        """Does one operation."""
        held = self._held.get(operation) or self._held.get("*")
        if held is not None:
            held.wait(_HOLD_SECONDS)
        fault = self._faults.get(operation) or self._faults.get("*")
        if fault is not None:
            raise fault
        with self._news:
            self.calls[operation] += 1
            try:
                return self._once(operation, given)
            finally:
                self._news.notify_all()

    def _once(self, operation: str, given: Json) -> Json:
        if operation != "CreateMemory" and given["memoryId"] != MEMORY_ID:
            raise Refusal(404, "ResourceNotFoundException", f"There is no memory {given['memoryId']}")
        do = cast("Callable[[Json], Json]", getattr(self, "_" + re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()))
        token = given.get("clientToken")
        if token is None:
            return do(given)
        if (operation, token) not in self._tokens:
            self._tokens[operation, token] = (given, do(given))
        first, answer = self._tokens[operation, token]
        if operation == "CreateEvent" and first["payload"] != given["payload"]:
            raise Refusal(400, "ValidationException", "The client token was used for another request")
        return answer

    def _batch_create_memory_records(self, given: Json) -> Json:
        done: list[Json] = []
        for item in given["records"]:
            record = self.add(item["namespaces"][0], item["content"]["text"], item.get("metadata", {}))
            done.append(
                {
                    "memoryRecordId": record.record_id,
                    "status": "SUCCEEDED",
                    "requestIdentifier": item["requestIdentifier"],
                }
            )
        return {"successfulRecords": done, "failedRecords": []}

    def _batch_update_memory_records(self, given: Json) -> Json:
        done: list[Json] = []
        for item in given["records"]:
            record = self._found(item["memoryRecordId"])
            record.namespace = item["namespaces"][0]
            done.append({"memoryRecordId": record.record_id, "status": "SUCCEEDED"})
        return {"successfulRecords": done, "failedRecords": []}

    def _batch_delete_memory_records(self, given: Json) -> Json:
        done = [self.records.pop(item["memoryRecordId"]).record_id for item in given["records"]]
        return {
            "successfulRecords": [{"memoryRecordId": one, "status": "SUCCEEDED"} for one in done],
            "failedRecords": [],
        }

    def _delete_memory_record(self, given: Json) -> Json:
        return {"memoryRecordId": self.records.pop(self._found(given["memoryRecordId"]).record_id).record_id}

    def _get_memory_record(self, given: Json) -> Json:
        return {"memoryRecord": self._found(given["memoryRecordId"]).summary()}

    def _list_memory_records(self, given: Json) -> Json:
        shown = self._shown(given)
        return _page([record.summary() for record in shown], given, "memoryRecordSummaries")

    def _retrieve_memory_records(self, given: Json) -> Json:
        """What shares words with the query; where nothing does, the service still gives what is nearest."""
        wanted = _words(given["searchCriteria"]["searchQuery"])
        ranked = sorted(self._shown(given), key=lambda record: len(wanted & _words(record.text)), reverse=True)
        top = ranked[: given["searchCriteria"].get("topK", 10)]
        scored = [
            record.summary() | {"score": round(len(wanted & _words(record.text)) / (len(wanted) or 1), 4)}
            for record in top
        ]
        return {"memoryRecordSummaries": scored}

    def _create_event(self, given: Json) -> Json:
        event = {
            "memoryId": MEMORY_ID,
            "actorId": given["actorId"],
            "sessionId": given["sessionId"],
            "eventId": f"{len(self.events):010d}#{uuid.uuid4().hex[:8]}",
            "eventTimestamp": given["eventTimestamp"],
            "payload": given["payload"],
        }
        self.events.append(event)
        said = [part["conversational"] for part in given["payload"]]
        for message in said if self.extracts else ():
            if message["role"] == "USER":
                for fact in read_facts(message["content"]["text"]):
                    self.add(f"/actors/{given['actorId']}/", fact.said, {})
        return {"event": event}

    def _list_sessions(self, given: Json) -> Json:
        ids = dict.fromkeys(event["sessionId"] for event in self.events if event["actorId"] == given["actorId"])
        found = [
            {"sessionId": one, "actorId": given["actorId"], "createdAt": datetime.now(UTC)} for one in reversed(ids)
        ]
        return _page(found, given, "sessionSummaries")

    def _list_events(self, given: Json) -> Json:
        found = [e for e in self.events if (e["actorId"], e["sessionId"]) == (given["actorId"], given["sessionId"])]
        return _page(found[::-1], given, "events")

    def _delete_event(self, given: Json) -> Json:
        self.events = [event for event in self.events if event["eventId"] != given["eventId"]]
        return {"eventId": given["eventId"]}

    def _create_memory(self, given: Json) -> Json:
        self.memories.append(given)
        at = datetime.now(UTC)
        memory = {
            "arn": f"arn:aws:bedrock-agentcore:us-east-1:123456789012:memory/{MEMORY_ID}",
            "id": MEMORY_ID,
            "name": given["name"],
            "eventExpiryDuration": given["eventExpiryDuration"],
            "status": "CREATING",
            "createdAt": at,
            "updatedAt": at,
        }
        return {"memory": memory}

    def add(self, namespace: str, text: str, metadata: Json | None = None) -> Record:
        record = Record(
            record_id=f"mem-{uuid.uuid4()}",
            namespace=namespace,
            text=text,
            created=datetime.now(UTC),
            metadata=metadata or {},
            appeared=self.appears_at_once,
        )
        self.records[record.record_id] = record
        return record

    def _found(self, record_id: str) -> Record:
        if record_id not in self.records:
            raise Refusal(404, "ResourceNotFoundException", f"There is no record {record_id}")
        return self.records[record_id]

    def _shown(self, given: Json) -> list[Record]:
        newest_first = list(self.records.values())[::-1]
        return [record for record in newest_first if record.appeared and record.namespace == given["namespace"]]


def _page(found: list[Json], given: Json, name: str) -> Json:
    start = int(given.get("nextToken", "0"))
    end = start + given.get("maxResults", 20)
    return {name: found[start:end], **({"nextToken": str(end)} if end < len(found) else {})}


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


class _Operations:
    """The operations of both services, by method and path. All that is untyped in botocore stays here."""

    def __init__(self) -> None:
        session: Any = botocore.session.get_session()  # pyright: ignore[reportUnknownMemberType]  # untyped
        self._validator: Any = botocore.validate.ParamValidator()
        self._operations: list[tuple[str, re.Pattern[str], Any]] = []
        for service in ("bedrock-agentcore", "bedrock-agentcore-control"):
            model: Any = session.get_service_model(service)
            for name in model.operation_names:
                if "emor" in name or name in ("CreateEvent", "ListEvents", "DeleteEvent", "ListSessions"):
                    operation: Any = model.operation_model(name)
                    path = operation.http["requestUri"].partition("?")[0]
                    pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(path))
                    self._operations.append((operation.http["method"], re.compile(pattern + "/?"), operation))

    def parse(self, method: str, path: str, body: bytes) -> tuple[str, Json, Any]:
        """The operation that a request means, and its arguments."""
        split = urllib.parse.urlsplit(path)
        for wanted, pattern, operation in self._operations:
            match = pattern.fullmatch(split.path)
            if match is None or wanted != method:
                continue
            given: Json = {key: urllib.parse.unquote(value) for key, value in match.groupdict().items()}
            given |= dict(urllib.parse.parse_qsl(split.query))
            if body:
                given |= json.loads(body)
            return operation.name, given, operation
        raise Refusal(404, "UnknownOperationException", f"{method} {path} is not served here")

    def check(self, value: Json, shape: Any, where: str) -> list[str]:
        report = self._validator.validate(value, shape)
        if report.has_errors():
            return [f"{where}: {report.generate_report()}"]
        return list(limits(value, shape, where))


@cache
def _operations() -> _Operations:
    return _Operations()


def _wire(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp()
    raise TypeError(str(value))


class _HTTPServer(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of many tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, server: AgentCoreServer, *args: Any) -> None:
        self._agentcore = server
        super().__init__(*args)

    def log_message(self, format: str, *args: object) -> None:
        """Keep requests out of the test's output."""

    def do_POST(self) -> None:
        self._answer("POST")

    def do_GET(self) -> None:
        self._answer("GET")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            name, given, operation = _operations().parse(method, self.path, body)
            wrong = _operations().check(given, operation.input_shape, f"request {name}")
            if wrong:
                self._agentcore.violations += wrong
                raise Refusal(400, "ValidationException", "; ".join(wrong))
            result = self._agentcore.handle(name, given)
            wrong = _operations().check(result, operation.output_shape, f"answer {name}")
            self._agentcore.violations += wrong
            self._send(operation.http.get("responseCode", 200), result)
        except Refusal as refusal:
            self._send(refusal.status, {"message": refusal.message}, code=refusal.code)

    def _send(self, status: int, result: Mapping[str, Any], *, code: str | None = None) -> None:
        payload = json.dumps(result, default=_wire).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        if code:
            self.send_header("x-amzn-ErrorType", code)
        self.end_headers()
        self.wfile.write(payload)
