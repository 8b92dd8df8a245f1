"""Every door of the HTTP server, as the server itself lists them, and how each is walked with somebody's token.

The lists are `tools/list`, the resource templates, and the OpenAPI document. A door that has no row here fails the
isolation test by its name: add a row to its table, with arguments that point at what `Owned` holds, so that whoever
walks it with another's token tries to get at just that.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Owned:
    """What one subject has, by its ids, and the words that nobody else may ever see."""

    session_id: str
    turn_id: str
    agent_id: str
    memory_id: str
    secret: str

    def filled(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.format_map(vars(self))
        if isinstance(value, dict):
            return {key: self.filled(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
        return value

    def seen_in(self, text: str, *, ids: bool = False) -> bool:
        """Whether an answer to somebody else holds the words, or also ids that nobody has named in it."""
        words = (self.secret, self.session_id, self.turn_id, self.agent_id) if ids else (self.secret,)
        return any(word in text for word in words)


TOOLS: dict[str, dict[str, Any]] = {
    "ask_agent": {"prompt": "What's my name?", "session_id": "{session_id}"},
    "get_reply": {"turn_id": "{turn_id}", "wait_seconds": 0},
    "cancel_turn": {"turn_id": "{turn_id}"},
    "list_sessions": {"query": "name"},
    "read_transcript": {"session_id": "{session_id}"},
    "start_session": {"continue_from": "{session_id}"},
    "list_agents": {},
    "create_agent": {"name": "Another"},
    "update_agent": {"agent_id": "{agent_id}", "description": "taken"},
    "delete_agent": {"agent_id": "{agent_id}"},
    "update_session": {"session_id": "{session_id}", "title": "taken"},
    "delete_session": {"session_id": "{session_id}"},
    "remember": {"memory_id": "{memory_id}"},
    "recall": {"query": "name"},
    "forget": {"memory_id": "{memory_id}"},
}
"""Arguments by tool."""

RESOURCES: dict[str, dict[str, str]] = {
    "session://{session_id}/transcript": {},
    "session://{session_id}/transcript/{page}": {"page": "2"},
    "session://{session_id}/messages": {},
    "agent://{agent_id}": {},
}
"""What fills a resource template beside the ids, by template."""

CALLS: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/api/v1/agents"): {"json": {"name": "Another"}},
    ("get", "/api/v1/agents"): {},
    ("get", "/api/v1/agents/{agent_id}"): {},
    ("patch", "/api/v1/agents/{agent_id}"): {"json": {"description": "taken"}},
    ("delete", "/api/v1/agents/{agent_id}"): {},
    ("post", "/api/v1/agents/examples/{example}"): {},
    ("post", "/api/v1/agents/{agent_id}/invoke"): {"json": {"prompt": "What's my name?", "session_id": "{session_id}"}},
    ("post", "/api/v1/sessions"): {"json": {"continue_from": "{session_id}"}},
    ("get", "/api/v1/sessions"): {"params": {"query": "name"}},
    ("get", "/api/v1/sessions/{session_id}"): {},
    ("patch", "/api/v1/sessions/{session_id}"): {"json": {"title": "taken"}},
    ("delete", "/api/v1/sessions/{session_id}"): {},
    ("get", "/api/v1/sessions/{session_id}/messages"): {},
    ("get", "/api/v1/turns/{turn_id}"): {},
    ("post", "/api/v1/turns/{turn_id}/answer"): {"json": {"answer": "yes"}},
    ("post", "/api/v1/turns/{turn_id}/cancel"): {},
    ("post", "/api/v1/memories"): {"json": {"memory_id": "{memory_id}"}},
    ("get", "/api/v1/memories"): {"params": {"query": "name"}},
    ("get", "/api/v1/memories/{memory_id}"): {},
    ("delete", "/api/v1/memories/{memory_id}"): {},
    ("get", "/healthz"): {},
    ("get", "/metrics"): {},
}
"""Options of a request, by method and path of the OpenAPI document."""

CAPABILITIES = {"tools", "resources", "prompts", "logging", "completions", "experimental", "extensions", "tasks"}
"""Kinds of doors that the test knows. Prompts hold no data of anybody."""


def unknown(listed: Iterable[Any], table: Iterable[Any], where: str) -> list[str]:
    """Doors that are listed and not in a table."""
    return [f"{door}: give it a row in doors.{where}" for door in sorted(set(listed) - set(table), key=str)]


def documented(document: dict[str, Any]) -> list[tuple[str, str]]:
    """The calls of an OpenAPI document."""
    return [(method, path) for path, item in document["paths"].items() for method in item]


def walk(rest: httpx.Client, method: str, path: str, owned: Owned) -> httpx.Response:
    """One REST call, pointed at what somebody owns."""
    values = {**vars(owned), "example": "customer_support"}
    return rest.request(method, path.format_map(values), **owned.filled(CALLS[method, path]))
