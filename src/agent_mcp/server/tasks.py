"""The Tasks extension: for a client that declares it, a turn that takes long is a task, which it looks after itself.

The extension (`io.modelcontextprotocol/tasks`) is of revision 2026-07-28 and not in the SDK. A task is a turn: its id
is the turn_id, its state the turn's record, so it outlives the server, and any server on the directory answers for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from mcp.server import Server, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmptyResult,
    InputRequiredResult,
    InputResponses,
    RequestParams,
)

from agent_mcp.domain import RECORDS_KEPT, Caller, TurnRecord, parse_turn_id
from agent_mcp.errors import AgentMcpError, TurnConflict
from agent_mcp.following import Followed
from agent_mcp.server.cancels import Cancels
from agent_mcp.server.progress import approval_request, can_elicit, is_yes, question_digest
from agent_mcp.server.resources import protocol_error
from agent_mcp.server.tool_table import HANDSHAKE_LAST, Call, ToolTable
from agent_mcp.service import Service

EXTENSION = "io.modelcontextprotocol/tasks"
TASK_AFTER_SECONDS = 1.0
"""How long an ask waits for its reply before it becomes a task."""
_POLL_MS = 1000
_LONGEST_MESSAGE = 200

Context = ServerRequestContext[Any, Any]
CallerOf = Callable[[Context], Awaitable[Caller]]


class _TaskParams(RequestParams):
    task_id: str


class _UpdateParams(_TaskParams):
    input_responses: InputResponses


def declares_tasks(ctx: Context) -> bool:
    """Whether the client of this request takes a task for an answer; each request says so anew."""
    capabilities = ctx.session.client_capabilities
    return (
        ctx.protocol_version > HANDSHAKE_LAST
        and capabilities is not None
        and EXTENSION in (capabilities.extensions or {})
    )


class Tasks:
    """Turns as tasks, over one service."""

    def __init__(self, service: Service, tools: ToolTable, cancels: Cancels) -> None:
        self._service = service
        self._cancels = cancels
        self._tools = tools

    def serve(self, server: Server[Any], caller_of: CallerOf) -> None:
        """Adds the extension's methods to a server."""

        def method(
            name: str, params: type[_TaskParams], answer: Callable[[Call, Followed, Any], Awaitable[Any]]
        ) -> None:
            async def handle(ctx: Context, given: Any) -> Any:
                _require(ctx, name)
                caller = await caller_of(ctx)
                call = Call(service=self._service, caller=caller, context=ctx, cancels=self._cancels, may_ask=False)
                return await answer(call, await self._find(call, given.task_id), given)

            server.add_request_handler(name, params, handle)

        server.extensions[EXTENSION] = {}
        method("tasks/get", _TaskParams, self._get)
        method("tasks/update", _UpdateParams, self._update)
        method("tasks/cancel", _TaskParams, self._cancel)

    async def created(self, call: Call, result: CallToolResult) -> dict[str, Any] | CallToolResult:
        """What an ask is answered with: a task where its turn still works, else its result as it is."""
        reply: dict[str, Any] = result.structured_content or {}
        if result.is_error or reply.get("status") != "working":
            return result
        followed = await self._service.turns.follow(call.caller, turn_id=parse_turn_id(str(reply["turn_id"])))
        record = followed.record()
        message = {"statusMessage": str(reply["response"])[-_LONGEST_MESSAGE:]} if reply["response"] else {}
        return {"resultType": "task", **_task(record, "working"), **message}

    async def _find(self, call: Call, task_id: str) -> Followed:
        try:
            followed = await self._service.turns.follow(call.caller, turn_id=parse_turn_id(task_id))
            async for _ in followed.events(wait=0):  # ends a turn whose process has died
                pass
        except AgentMcpError as error:
            raise protocol_error(error) from None
        return followed

    async def _get(self, call: Call, followed: Followed, params: _TaskParams) -> dict[str, Any]:
        record = followed.record()
        if record.is_open:
            text = followed.reply().response[-_LONGEST_MESSAGE:]
            return _task(record, "working") | ({"statusMessage": text} if text else {})
        if record.status == "cancelled":
            return _task(record, "cancelled")
        question = record.question
        if question is not None and not question.dismissed and can_elicit(call.context):
            requests = {question_digest(record): _input_request(record).model_dump(by_alias=True, exclude_none=True)}
            return _task(record, "input_required") | {"inputRequests": requests}
        # Also what waits for somebody whom this client can't ask: the ask itself would have said so, and ended.
        result = await self._tools.run("get_reply", {"turn_id": record.turn_id, "wait_seconds": 0}, call)
        assert not isinstance(result, InputRequiredResult), "nobody is asked in this call"
        return _task(record, "completed") | {"result": result.model_dump(mode="json", by_alias=True, exclude_none=True)}

    async def _update(self, call: Call, followed: Followed, params: _UpdateParams) -> EmptyResult:
        record = followed.record()
        answer = params.input_responses.get(question_digest(record)) if record.question else None
        if isinstance(answer, ElicitResult):  # what is not asked (any more) is passed over
            try:
                await self._answer(call.caller, record, answer)
            except TurnConflict:
                pass  # Somebody else was faster.
            except AgentMcpError as error:
                raise protocol_error(error) from None
        return EmptyResult()

    async def _answer(self, caller: Caller, record: TurnRecord, answer: ElicitResult) -> None:
        turns, question = self._service.turns, record.question
        assert question is not None
        if question.kind == "approval" and answer.action != "cancel":
            await turns.decide(caller, record.turn_id, approve=is_yes(answer), question=question)
            return
        text = (answer.content or {}).get("answer")
        if question.kind == "question" and answer.action == "accept" and isinstance(text, str) and text.strip():
            await turns.answer(caller, text, turn_id=record.turn_id)
        else:
            await turns.dismiss(caller, record.turn_id, question)

    async def _cancel(self, call: Call, followed: Followed, params: _TaskParams) -> EmptyResult:
        self._service.turns.abandon(call.caller, followed.turn_id)
        return EmptyResult()


def _require(ctx: Context, method: str) -> None:
    """Raises MCPError for who did not declare the extension, or speaks a revision that has none."""
    if ctx.protocol_version <= HANDSHAKE_LAST:
        raise MCPError(METHOD_NOT_FOUND, "Method not found", data=method)
    if not declares_tasks(ctx):
        raise MCPError(
            MISSING_REQUIRED_CLIENT_CAPABILITY,
            f"{method} is for clients that declare the extension {EXTENSION} with each request.",
            data={"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
        )


def _task(record: TurnRecord, status: str) -> dict[str, Any]:
    # A time of the record and never the clock's: clients take what goes back in time for an answer that came late.
    updated = max(record.created_at, record.ended_at or record.pending_since or record.created_at)
    return {
        "taskId": record.turn_id,
        "status": status,
        "createdAt": _iso(record.created_at),
        "lastUpdatedAt": _iso(updated),
        "ttlMs": int((updated + RECORDS_KEPT - record.created_at) / timedelta(milliseconds=1)),
        "pollIntervalMs": _POLL_MS,
    }


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _input_request(record: TurnRecord) -> ElicitRequest:
    """What the host asks its person: leave to use a tool, or the answer to what the agent wants to know."""
    question = record.question
    assert question is not None
    if question.kind == "approval":
        return approval_request(record)
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "title": "Answer"}},
        "required": ["answer"],
    }
    message = f"The agent {record.agent_id} asks: {question.text}"
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))
