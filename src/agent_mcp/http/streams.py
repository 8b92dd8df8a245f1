"""A turn as server-sent events: text as it is written, tools as they run, the reply or the error last."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.requests import Request
from starlette.responses import StreamingResponse

from agent_mcp.errors import AgentMcpError
from agent_mcp.events import Event, Retrying, StillWorking, TextWritten, ToolEnded, ToolStarted
from agent_mcp.following import Followed
from agent_mcp.http.problems import problem_of

_HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


def wants_stream(request: Request) -> bool:
    """Whether the caller asks for events, and would not take JSON."""
    accept = request.headers.get("accept", "").lower()
    return "text/event-stream" in accept and "application/json" not in accept


def streamed(followed: Followed, wait: float) -> StreamingResponse:
    """The events of a turn until it ends or the wait is over. Who goes away only stops listening."""
    return StreamingResponse(_events(followed, wait), media_type="text/event-stream", headers=_HEADERS)


async def _events(followed: Followed, wait: float) -> AsyncIterator[bytes]:
    async for event in followed.events(wait=wait, pace=0.05):
        yield _written(event)
    try:
        yield format_sse_event(event="reply", data_str=followed.reply().model_dump_json())
    except AgentMcpError as error:
        yield format_sse_event(event="error", data_str=problem_of(error).model_dump_json())


def _written(event: Event) -> bytes:
    match event:
        case TextWritten(text):
            return format_sse_event(event="text", data_str=json.dumps({"text": text}))
        case ToolStarted(name):
            return format_sse_event(event="tool", data_str=json.dumps({"name": name, "status": "started"}))
        case ToolEnded(name, status):
            return format_sse_event(event="tool", data_str=json.dumps({"name": name, "status": status}))
        case Retrying(seconds):
            return format_sse_event(event="retrying", data_str=json.dumps({"seconds": seconds}))
        case StillWorking():
            return KEEPALIVE_COMMENT
