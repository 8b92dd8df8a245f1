"""Every door of the HTTP server, as the server itself lists them, and how each is walked with somebody's token.

The lists are the methods that the MCP server handles, `tools/list`, the resource templates, the prompts, the arguments
that are completed, the routes of the application and its OpenAPI document. A door that has no row here fails the
isolation test by its name: add a row to its table, with arguments that point at what `Owned` holds, so that whoever
walks it with another's token tries to get at just that. The rows of a table are walked in their order: what ends or
deletes something comes last.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import httpx
from fastapi import FastAPI
from mcp.server import Server
from starlette.routing import Route

from wire import MODERN, Refused, Wire

OLDER = "2025-11-25"


@dataclass(frozen=True)
class Owned:
    """What one subject has, by its ids, and the words that nobody else may ever see."""

    session_id: str
    turn_id: str
    asking_id: str
    """A turn that waits for an answer, and the name of what it asks."""
    question_key: str
    agent_id: str
    memory_id: str
    words: tuple[str, ...]
    """What nobody else may be shown who did not name it: ids, and what was said."""

    def filled(self, value: Any) -> Any:
        """`value` with the ids in their places, in all its texts."""
        if isinstance(value, str):
            return re.sub(r"{(\w+)}", lambda found: getattr(self, found[1], found[0]), value)
        if isinstance(value, Mapping):
            items = cast("Mapping[str, Any]", value).items()
            return {self.filled(key): self.filled(item) for key, item in items}
        if isinstance(value, list | tuple):
            return [self.filled(item) for item in cast("Iterable[Any]", value)]
        return value

    def seen_in(self, answer: str, asked: str) -> list[str]:
        """The words that an answer shows and that the request did not bring along."""
        return [word for word in self.words if word in answer and word not in asked]


Rows = tuple[dict[str, Any], ...]

TOOLS: dict[str, Rows] = {
    "list_agents": ({}, {"query": "helper"}),
    "list_sessions": ({}, {"query": "name"}, {"agent_id": "{agent_id}"}),
    "recall": ({"query": "name"},),
    "read_transcript": ({"session_id": "{session_id}"},),
    "get_reply": (
        {"turn_id": "{turn_id}", "wait_seconds": 0},
        {"session_id": "{session_id}", "wait_seconds": 0},
        {"turn_id": "{asking_id}", "wait_seconds": 0},
        {"turn_id": "{asking_id}", "answer": "Blue"},
    ),
    "ask_agent": (
        {"prompt": "What's my name?", "session_id": "{session_id}"},
        {"prompt": "What's my name?", "agent_id": "{agent_id}"},
    ),
    "start_session": ({"continue_from": "{session_id}"}, {"agent_id": "{agent_id}"}),
    "create_agent": ({"name": "Another"}, {"name": "Spy", "tools": ["agent:{agent_id}"]}),
    "update_agent": ({"agent_id": "{agent_id}", "description": "taken"},),
    "update_session": ({"session_id": "{session_id}", "title": "taken"},),
    "remember": ({"memory_id": "{memory_id}"}, {"text": "Likes tea."}),
    "cancel_turn": ({"turn_id": "{asking_id}"}, {"session_id": "{session_id}"}),
    "forget": ({"memory_id": "{memory_id}"},),
    "delete_session": ({"session_id": "{session_id}"},),
    "delete_agent": ({"agent_id": "{agent_id}"},),
}
"""Arguments by tool."""

RESOURCES: dict[str, dict[str, str]] = {
    "session://{session_id}/transcript": {},
    "session://{session_id}/transcript/{page}": {"page": "2"},
    "session://{session_id}/messages": {},
    "agent://{agent_id}": {},
}
"""What fills a resource template beside the ids, by template."""

PROMPTS: dict[str, dict[str, str]] = {
    "delegate": {"task": "Say hello", "agent_id": "{agent_id}"},
    "continue_session": {"session_id": "{session_id}"},
    "hand_over": {"session_id": "{session_id}", "agent_id": "{agent_id}"},
}
"""Arguments by prompt."""

_NOTHING: Rows = ({},)
_SUBSCRIBED: Rows = (
    {"uri": "session://{session_id}/transcript"},
    {"uri": "session://{session_id}/messages"},
    {"uri": "agent://{agent_id}"},
)

METHODS: dict[str, tuple[tuple[str, ...], Rows]] = {
    "ping": ((OLDER,), _NOTHING),
    "server/discover": ((MODERN,), _NOTHING),
    "tools/list": ((OLDER, MODERN), _NOTHING),
    "prompts/list": ((OLDER, MODERN), _NOTHING),
    "resources/list": ((OLDER, MODERN), _NOTHING),
    "resources/templates/list": ((OLDER, MODERN), _NOTHING),
    "completion/complete": ((OLDER, MODERN), ()),  # by what is completed
    "resources/read": ((OLDER, MODERN), ()),  # by RESOURCES
    "prompts/get": ((OLDER, MODERN), ()),  # by PROMPTS
    "resources/subscribe": ((OLDER,), _SUBSCRIBED),
    "resources/unsubscribe": ((OLDER,), _SUBSCRIBED),
    "subscriptions/listen": ((MODERN,), ()),  # a stream: by the test of notices
    "tasks/get": ((MODERN,), ({"taskId": "{turn_id}"}, {"taskId": "{asking_id}"})),
    "tasks/update": (
        (MODERN,),
        (
            {
                "taskId": "{asking_id}",
                "inputResponses": {"{question_key}": {"action": "accept", "content": {"answer": "Blue"}}},
            },
        ),
    ),
    "tools/call": ((OLDER, MODERN), ()),  # by TOOLS
    "tasks/cancel": ((MODERN,), ({"taskId": "{asking_id}"},)),
}
"""The revisions that have a method, and its parameters."""

CAPABILITIES = {"tools", "resources", "prompts", "completions", "extensions", "experimental"}
"""Kinds of doors: each has methods. `experimental` is empty, as the SDK sends it."""

CALLS: dict[tuple[str, str], Rows] = {
    ("get", "/healthz"): _NOTHING,
    ("get", "/openapi.json"): _NOTHING,
    ("get", "/metrics"): _NOTHING,
    ("*", "/mcp"): (),  # by METHODS
    ("get", "/api/v1/agents"): ({}, {"params": {"query": "helper"}}),
    ("get", "/api/v1/sessions"): ({}, {"params": {"query": "name"}}, {"params": {"agent_id": "{agent_id}"}}),
    ("get", "/api/v1/memories"): ({"params": {"query": "name"}},),
    ("get", "/api/v1/agents/{agent_id}"): _NOTHING,
    ("get", "/api/v1/sessions/{session_id}"): _NOTHING,
    ("get", "/api/v1/sessions/{session_id}/messages"): _NOTHING,
    ("get", "/api/v1/turns/{turn_id}"): _NOTHING,
    ("post", "/api/v1/agents/{agent_id}/invoke"): (
        {"json": {"prompt": "What's my name?", "session_id": "{session_id}"}},
        {"json": {"prompt": "What's my name?"}, "headers": {"Accept": "text/event-stream"}},
    ),
    ("post", "/api/v1/sessions"): (
        {"json": {"continue_from": "{session_id}"}},
        {"params": {"agent_id": "{agent_id}"}},
    ),
    ("post", "/api/v1/agents"): ({"json": {"name": "Another"}},),
    ("post", "/api/v1/agents/examples/{example}"): _NOTHING,
    ("patch", "/api/v1/agents/{agent_id}"): ({"json": {"description": "taken"}},),
    ("patch", "/api/v1/sessions/{session_id}"): ({"json": {"title": "taken"}},),
    ("post", "/api/v1/memories"): ({"json": {"memory_id": "{memory_id}"}}, {"json": {"text": "Likes tea."}}),
    ("post", "/api/v1/turns/{turn_id}/answer"): ({"json": {"answer": "Blue"}},),
    ("post", "/api/v1/turns/{turn_id}/cancel"): _NOTHING,
    ("delete", "/api/v1/memories/{memory_id}"): _NOTHING,
    ("delete", "/api/v1/sessions/{session_id}"): _NOTHING,
    ("delete", "/api/v1/agents/{agent_id}"): _NOTHING,
}
"""Options of a request, by method and path of the OpenAPI document or of a route."""


@dataclass(frozen=True)
class Walk:
    """One request through a door: of MCP with `method` and `params`, of REST with the options of an HTTP request."""

    door: str
    method: str
    params: dict[str, Any]

    @property
    def asked(self) -> str:
        return f"{self.door} {json.dumps(self.params)}"


def unknown(listed: Iterable[Any], table: Iterable[Any], where: str) -> list[str]:
    """Doors that are listed and not in a table."""
    return [f"{door}: give it a row in doors.{where}" for door in sorted(set(listed) - set(table), key=str)]


def handled(server: Server[Any]) -> set[str]:
    """The methods and notifications that an MCP server has handlers for."""
    # There is no public list of them, only a question for each that one knows.
    return {*server._request_handlers, *server._notification_handlers}  # pyright: ignore[reportPrivateUsage]


async def through_mcp(client: Wire, owned: Owned) -> list[Walk]:
    """The walks through all doors of MCP, as the server lists them to this client; raises on one without a row."""
    tools = [tool["name"] for tool in (await client.request("tools/list"))["tools"]]
    templates = [one["uriTemplate"] for one in (await client.request("resources/templates/list"))["resourceTemplates"]]
    prompts = (await client.request("prompts/list"))["prompts"]
    missing = [
        *unknown(tools, TOOLS, "TOOLS"),
        *unknown(templates, RESOURCES, "RESOURCES"),
        *unknown([prompt["name"] for prompt in prompts], PROMPTS, "PROMPTS"),
    ]
    assert not missing, missing
    rows: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "tools/call": [
            (tool, {"name": tool, "arguments": owned.filled(row)})
            for tool, given in TOOLS.items()
            for row in given
            if tool in tools
        ],
        "resources/read": [(one, {"uri": owned.filled(_paged(one))}) for one in templates],
        "prompts/get": [(name, {"name": name, "arguments": owned.filled(given)}) for name, given in PROMPTS.items()],
        "completion/complete": [*_completions(templates, prompts, owned)],
    }
    return [
        Walk(f"{method} {name}".strip(), method, params)
        for method, (revisions, given) in METHODS.items()
        if client.revision in revisions
        for name, params in [*(("", owned.filled(row)) for row in given), *rows.get(method, [])]
    ]


def _paged(template: str) -> str:
    for name, value in RESOURCES[template].items():
        template = template.replace(f"{{{name}}}", value)
    return template


def _completions(
    templates: list[str], prompts: list[dict[str, Any]], owned: Owned
) -> Iterable[tuple[str, dict[str, Any]]]:
    """Each argument of a template or a prompt: what is suggested for nothing, and for what others' ids begin with."""
    arguments = [({"type": "ref/resource", "uri": one}, re.findall(r"{(\w+)}", one)) for one in templates] + [
        ({"type": "ref/prompt", "name": one["name"]}, [given["name"] for given in one["arguments"]]) for one in prompts
    ]
    for reference, names in arguments:
        for name in names:
            for value in ("", "notes", "helper", "name"):
                given: dict[str, Any] = {"ref": reference, "argument": {"name": name, "value": value}}
                if name == "page":
                    given["context"] = {"arguments": {"session_id": owned.session_id}}
                yield f"{name} of {reference}", given


async def knock(client: Wire, walk: Walk) -> tuple[str, str | None]:
    """The whole answer to a walk as text, and the code that it is refused with."""
    try:
        result = await client.request(walk.method, walk.params)
    except Refused as refusal:
        data: Any = refusal.data
        code = data.get("code") if isinstance(data, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return json.dumps([refusal.message, data], ensure_ascii=False), str(code or refusal.code)  # pyright: ignore[reportUnknownArgumentType]
    text = json.dumps(result, ensure_ascii=False)
    if not result.get("isError"):
        return text, None
    found = re.search(r"\[([a-z_]+)\]$", result["content"][0]["text"])
    return text, found[1] if found else text


def served(app: FastAPI) -> set[tuple[str, str]]:
    """The calls of the application's OpenAPI document, and its routes, whether or not they are in there."""
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    documented = {(method, path) for path, item in paths.items() for method in item}
    routes = [route for route in app.routes if isinstance(route, Route)]
    assert len(routes) >= len(app.routes) - len(paths), "a route of a kind that is not known"
    return documented | {
        (method.lower(), route.path) for route in routes for method in (route.methods or {"*"}) - {"HEAD", "OPTIONS"}
    }


def through_rest(app: FastAPI, owned: Owned) -> list[Walk]:
    """The walks through all that is served beside MCP; raises on a call without a row."""
    calls = served(app)
    assert not (missing := unknown(calls, CALLS, "CALLS")), missing
    walks: list[Walk] = []
    for (method, path), rows in CALLS.items():
        if (method, path) not in calls:
            continue
        # A turn is looked at, answered and given up where it waits for an answer.
        where = path.replace("{turn_id}", "{asking_id}").replace("{example}", "customer_support")
        walks += [Walk(owned.filled(where), method, owned.filled(row)) for row in rows]
    return walks


def call(rest: httpx.Client, walk: Walk) -> tuple[str, str | None]:
    """As `knock`, for a walk through REST."""
    answer = rest.request(walk.method, walk.door, **walk.params)
    text = f"{answer.headers} {answer.text}"
    return text, None if answer.is_success else str(answer.json().get("code"))
