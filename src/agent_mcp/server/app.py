"""The MCP server over a service, apart from the transport that carries it."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

from mcp.server import NotificationOptions, Server, ServerRequestContext
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.context import CallNext, HandlerResult
from mcp.server.models import InitializationOptions
from mcp.server.request_state import AESGCMRequestStateCodec, RequestStateBoundary, RequestStateSecurity
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    CompleteRequestParams,
    CompleteResult,
    ElicitResult,
    EmptyResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)

from agent_mcp.domain import DECISION_TIME, LOCAL_SUBJECT, Caller, TurnId
from agent_mcp.server import icons
from agent_mcp.server.cancels import Cancels
from agent_mcp.server.completions import Completions
from agent_mcp.server.notices import Notices
from agent_mcp.server.progress import is_yes
from agent_mcp.server.prompts import Prompts
from agent_mcp.server.resources import TEMPLATES, Resources
from agent_mcp.server.tasks import TASK_AFTER_SECONDS, Tasks, declares_tasks
from agent_mcp.server.tool_table import APPROVAL_KEY, Call, Decision
from agent_mcp.server.tools import ask_agent, tool_table
from agent_mcp.service import Service

Context = ServerRequestContext[Any, Any]

INSTRUCTIONS = """Agents that remember. ask_agent(prompt) answers and gives a session_id; ask again with it, now or days
later, and the agent knows what was said. Without it a new conversation begins. A reply with status "working" is fetched
with get_reply. list_sessions(query=...) finds an old conversation, read_transcript shows it. create_agent makes an
agent with instructions of its own."""

_STATE_SECONDS = DECISION_TIME.total_seconds()
_HANDSHAKE = {"initialize", "server/discover", "ping"}
_ALIKE = CacheHint(ttl_ms=3_600_000, scope="public")
"""For what is the same for everybody, as long as the server is not replaced by another version."""
_CACHE_HINTS: dict[CacheableMethod, CacheHint] = {
    "server/discover": _ALIKE,
    "tools/list": _ALIKE,
    "prompts/list": _ALIKE,
    "resources/templates/list": _ALIKE,
    "resources/list": CacheHint(ttl_ms=0, scope="private"),
}


CallerOf = Callable[[Context], Awaitable[Caller]]
"""Who makes a request, by its context."""


async def local_caller(ctx: Context) -> Caller:
    """Whoever has started the server: on stdio there is nobody else."""
    return Caller(subject=LOCAL_SUBJECT)


class _Server(Server[Any]):
    """Tells clients of the older revisions that lists change, whatever the transport; of tasks they know nothing."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        options = notification_options or NotificationOptions(resources_changed=True)
        return super().create_initialization_options(options, experimental_capabilities, extensions or {})


def build_server(
    service: Service, *, caller_of: CallerOf = local_caller, warm_up: Callable[[], None] | None = None
) -> Server[Any]:
    """A server that speaks both generations of the protocol, to whomever `caller_of` finds in a request.

    `warm_up` is run in a thread after the handshake.
    """
    service.keep_up()
    tools = tool_table()
    resources = Resources(service)
    cancels = Cancels(service, caller_of)
    prompts = Prompts(service)
    completions = Completions(service, prompts)
    notices = Notices(service, caller_of)
    tasks = Tasks(service, tools, cancels)

    async def list_tools(ctx: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=tools.list_tools())

    async def call_tool(ctx: Context, params: CallToolRequestParams) -> HandlerResult:
        caller = await caller_of(ctx)
        call = Call(service=service, caller=caller, context=ctx, cancels=cancels, decision=_decision(params))
        if params.name == ask_agent.__name__ and declares_tasks(ctx):
            call.task_after = TASK_AFTER_SECONDS
        result = await tools.run(params.name, params.arguments or {}, call)
        return await tasks.created(call, result) if call.is_task and isinstance(result, CallToolResult) else result

    async def list_resources(ctx: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        return await resources.list_resources(await caller_of(ctx), params.cursor if params else None)

    async def list_templates(ctx: Context, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        return ListResourceTemplatesResult(resource_templates=TEMPLATES)

    async def read_resource(ctx: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        return await resources.read(await caller_of(ctx), str(params.uri))

    async def list_prompts(ctx: Context, params: PaginatedRequestParams | None) -> ListPromptsResult:
        return ListPromptsResult(prompts=prompts.list_prompts())

    async def get_prompt(ctx: Context, params: GetPromptRequestParams) -> GetPromptResult:
        return await prompts.get(await caller_of(ctx), params.name, params.arguments or {})

    async def complete(ctx: Context, params: CompleteRequestParams) -> CompleteResult:
        return CompleteResult(completion=await completions.complete(await caller_of(ctx), params))

    async def subscribe(ctx: Context, params: SubscribeRequestParams) -> EmptyResult:
        return await notices.subscribe(ctx, str(params.uri))

    async def unsubscribe(ctx: Context, params: UnsubscribeRequestParams) -> EmptyResult:
        return await notices.unsubscribe(ctx, str(params.uri))

    server = _Server(
        "agent-mcp",
        version=version("agent-mcp"),
        title="Agents that remember",
        instructions=" ".join(INSTRUCTIONS.split()),
        icons=icons.SERVER,
        cache_hints=_CACHE_HINTS,
        on_list_tools=list_tools,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
        on_subscribe_resource=subscribe,
        on_unsubscribe_resource=unsubscribe,
        on_subscriptions_listen=notices.listen,
    )
    server.add_request_handler("tools/call", CallToolRequestParams, call_tool)
    tasks.serve(server, caller_of)
    # Sealed with a key of the data directory: a person's answer is good at any server on it, also after a restart.
    security = RequestStateSecurity(codec=_StateCodec(service), ttl=_STATE_SECONDS)
    server.middleware.append(RequestStateBoundary(security, default_audience=server.name))
    server.middleware.append(notices)
    server.middleware.append(cancels)
    if warm_up is not None:
        server.middleware.append(_WarmUp(warm_up))
    return server


def _decision(params: CallToolRequestParams) -> Decision | None:
    """What a repeated request brings; its state was sealed by a server on this data directory."""
    if params.request_state is None:
        return None
    turn_id, digest, round_number = json.loads(params.request_state)
    answer = (params.input_responses or {}).get(APPROVAL_KEY)
    approve = None if not isinstance(answer, ElicitResult) or answer.action == "cancel" else is_yes(answer)
    return Decision(turn_id=TurnId(turn_id), digest=digest, round_number=round_number, approve=approve)


class _StateCodec:
    """The SDK's codec, with the key of the data directory; that is read when the first state is sealed.

    One key for all subjects: whose turn a state names is looked up among the caller's own, as with any other id.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    @functools.cached_property
    def _codec(self) -> AESGCMRequestStateCodec:
        return AESGCMRequestStateCodec([self._service.store(Caller(subject=LOCAL_SUBJECT)).secret_key()])

    def seal(self, payload: bytes) -> str:
        return self._codec.seal(payload)

    def unseal(self, token: str) -> bytes:
        return self._codec.unseal(token)


class _WarmUp:
    """Starts `function` in a thread at the first message behind the handshake, once."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function: Callable[[], None] | None = function

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        if self._function is not None and ctx.method not in _HANDSHAKE:
            threading.Thread(target=self._function, name="warm-up", daemon=True).start()
            self._function = None
        return await call_next(ctx)
