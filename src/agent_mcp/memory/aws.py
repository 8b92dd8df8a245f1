"""AgentCore's memory on the wire: boto3's calls, in the few shapes that facts need."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from agent_mcp.domain import MemoryId, SessionId, TurnId, TurnRecord, now
from agent_mcp.memory.facts import Memory
from agent_mcp.memory.queue import Job

if TYPE_CHECKING:
    from mypy_boto3_bedrock_agentcore import BedrockAgentCoreClient
    from mypy_boto3_bedrock_agentcore.type_defs import MemoryRecordCreateInputTypeDef, PayloadTypeTypeDef
    from mypy_boto3_bedrock_agentcore_control import BedrockAgentCoreControlClient

T = TypeVar("T")

_CONNECT_SECONDS, _READ_SECONDS = 2, 5
_PAGE = 100
_LEAST_ID = 40
"""A record's id has at least so many characters: anything shorter is none, and is not asked for."""
_UNCONFIRMED = "-unconfirmed"

STRATEGIES = ("semantic", "preferences")
NAMESPACE = "/actors/{actorId}/"
"""Where AgentCore puts what it learns, and we what is remembered on purpose. It ends with a slash: no actor's name is
another's beginning."""


class Absent(Exception):
    """The service can't be reached, does not answer or refuses for now; the text says which."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One memory record: the fact, and the name of the actor under which it stands."""

    owner: str
    memory: Memory


class Wire:
    """One AgentCore memory. Blocking; raises Absent, whatever goes wrong there."""

    def __init__(self, memory_id: str) -> None:
        self.memory_id = memory_id
        self._client: BedrockAgentCoreClient | None = None
        self._making = threading.Lock()

    def create(self, name: str, job: Job) -> MemoryId:
        """Writes one fact and returns its id. Sent twice with the same key it is written once."""
        record: MemoryRecordCreateInputTypeDef = {
            "requestIdentifier": job.key,
            "namespaces": [namespace(name)],
            "content": {"text": job.text or ""},
            "timestamp": now(),
        }
        about = (("session", job.origin.session_id), ("turn", job.origin.turn_id))
        if metadata := {key: {"stringValue": str(value)} for key, value in about if value}:  # an empty one is refused
            record["metadata"] = cast("dict[str, Any]", metadata)
        token = f"{job.key}-{'c' if job.origin.confirmed else 'u'}"
        result = self._call(
            lambda client: client.batch_create_memory_records(
                memoryId=self.memory_id, clientToken=token, records=[record]
            )
        )
        for failed in result["failedRecords"]:
            raise Absent(f"a record was not taken: {failed.get('errorMessage', 'no reason given')}")
        return MemoryId(result["successfulRecords"][0]["memoryRecordId"])

    def search(self, name: str, query: str, *, limit: int) -> list[Memory]:
        """The records of an actor that fit a query, the best first."""
        result = self._call(
            lambda client: client.retrieve_memory_records(
                memoryId=self.memory_id,
                namespace=namespace(name),
                searchCriteria={"searchQuery": query, "topK": min(limit, _PAGE)},
            )
        )
        return [_record(item).memory for item in result["memoryRecordSummaries"]]

    def newest(self, name: str, *, limit: int) -> list[Memory]:
        """The records of an actor, the newest first, as the service lists them."""
        result = self._call(
            lambda client: client.list_memory_records(
                memoryId=self.memory_id, namespace=namespace(name), maxResults=min(limit, _PAGE)
            )
        )
        return [_record(item).memory for item in result["memoryRecordSummaries"]]

    def get(self, memory_id: MemoryId) -> Record | None:
        if len(memory_id) < _LEAST_ID or not memory_id.startswith("mem-"):
            return None
        try:
            result = self._call(
                lambda client: client.get_memory_record(memoryId=self.memory_id, memoryRecordId=memory_id)
            )
        except _NotFound:
            return None
        return _record(result["memoryRecord"])

    def move(self, memory_id: MemoryId, source: str, target: str) -> None:
        """Puts a record under another name."""
        result = self._call(
            lambda client: client.batch_update_memory_records(
                memoryId=self.memory_id,
                records=[
                    {
                        "memoryRecordId": memory_id,
                        "timestamp": now(),
                        "namespaces": [namespace(target)],
                        "sourceNamespaces": [namespace(source)],
                    }
                ],
            )
        )
        for failed in result["failedRecords"]:
            raise Absent(f"a record was not changed: {failed.get('errorMessage', 'no reason given')}")

    def delete(self, memory_id: MemoryId) -> None:
        try:
            self._call(lambda client: client.delete_memory_record(memoryId=self.memory_id, memoryRecordId=memory_id))
        except _NotFound:
            return

    def erase(self, name: str) -> int:
        """Deletes all records of an actor, and all events from which more would be learnt; returns how many records."""
        count = 0
        for session_id in self._pages("list_sessions", "sessionSummaries", "sessionId", actorId=name):
            events = self._pages(
                "list_events", "events", "eventId", actorId=name, sessionId=session_id, includePayloads=False
            )
            for event_id in events:
                self._call(
                    lambda client, session_id=session_id, event_id=event_id: client.delete_event(
                        memoryId=self.memory_id, actorId=name, sessionId=session_id, eventId=event_id
                    )
                )
        ids = list(
            self._pages("list_memory_records", "memoryRecordSummaries", "memoryRecordId", namespace=namespace(name))
        )
        for at in range(0, len(ids), _PAGE):
            result = self._call(
                lambda client, at=at: client.batch_delete_memory_records(
                    memoryId=self.memory_id, records=[{"memoryRecordId": one} for one in ids[at : at + _PAGE]]
                )
            )
            for failed in result["failedRecords"]:
                raise Absent(f"a record was not deleted: {failed.get('errorMessage', 'no reason given')}")
            count += len(result["successfulRecords"])
        return count

    def tell(self, name: str, record: TurnRecord, *, longest: int) -> None:
        """Hands over what was said in a turn, once: the service learns from it in its own time."""
        said: list[tuple[Literal["USER", "ASSISTANT"], str]] = [
            ("USER", record.prompt),
            ("ASSISTANT", record.response),
        ]
        payload: list[PayloadTypeTypeDef] = [
            {"conversational": {"role": role, "content": {"text": text[:longest]}}}
            for role, text in said
            if text.strip()
        ]
        self._call(
            lambda client: client.create_event(
                memoryId=self.memory_id,
                actorId=name,
                sessionId=record.session_id,
                eventTimestamp=record.ended_at or now(),
                payload=payload,
                clientToken=record.turn_id,
            )
        )

    def _pages(self, operation: str, items: str, key: str, **arguments: Any) -> list[str]:
        found: list[str] = []
        token: dict[str, str] = {}
        while True:
            page = self._call(
                lambda client, token=token: getattr(client, operation)(
                    memoryId=self.memory_id, maxResults=_PAGE, **arguments, **token
                )
            )
            found += [str(item[key]) for item in page[items]]
            if not page.get("nextToken"):
                return found
            token = {"nextToken": page["nextToken"]}

    def _call(self, use: Callable[[BedrockAgentCoreClient], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return use(self._connected())
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            kind = _NotFound if code == "ResourceNotFoundException" else Absent
            raise kind(f"{code}: {error.response.get('Error', {}).get('Message', '')}"[:300]) from error
        except BotoCoreError as error:
            raise Absent(f"{type(error).__name__}: {error}"[:300]) from error

    def _connected(self) -> BedrockAgentCoreClient:
        """One client for all threads: each new one reads the service's description anew, for 0.1 s."""
        import boto3
        from botocore.config import Config

        with self._making:
            if self._client is None:
                # No second try here: what fails is queued, and nobody waits for it.
                once = Config(
                    connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, retries={"total_max_attempts": 1}
                )
                session: Any = boto3.Session()  # its stubs know some services only
                self._client = cast("BedrockAgentCoreClient", session.client("bedrock-agentcore", config=once))
            return self._client


class _NotFound(Absent):
    """There is no such record, or no such memory."""


def namespace(name: str) -> str:
    return NAMESPACE.replace("{actorId}", name)


def create_memory(name: str, *, event_days: int) -> str:
    """Makes a memory with what `auto` needs, and returns its id. Raises Absent."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        session: Any = boto3.Session()  # its stubs know some services only
        client: BedrockAgentCoreControlClient = session.client("bedrock-agentcore-control")
        made = client.create_memory(
            name=name,
            description="Facts about the people that agents of agent-mcp talk to.",
            eventExpiryDuration=event_days,
            memoryStrategies=[
                {"semanticMemoryStrategy": {"name": STRATEGIES[0], "namespaces": [NAMESPACE]}},
                {"userPreferenceMemoryStrategy": {"name": STRATEGIES[1], "namespaces": [NAMESPACE]}},
            ],
        )
    except (BotoCoreError, ClientError) as error:
        raise Absent(" ".join(str(error).split())[:300]) from error
    return made["memory"]["id"]


def _record(item: Mapping[str, Any]) -> Record:
    owner = next(iter(item["namespaces"]), "").strip("/").rpartition("/")[2]
    metadata: Mapping[str, Mapping[str, str]] = item.get("metadata") or {}
    about: dict[str, str] = {key: value.get("stringValue", "") for key, value in metadata.items()}
    memory = Memory(
        memory_id=MemoryId(item["memoryRecordId"]),
        text=item["content"].get("text", ""),
        created_at=item["createdAt"].astimezone(UTC),
        score=item.get("score"),
        session_id=SessionId(about["session"]) if about.get("session") else None,
        turn_id=TurnId(about["turn"]) if about.get("turn") else None,
        confirmed=not owner.endswith(_UNCONFIRMED),
    )
    return Record(owner=owner, memory=memory)
