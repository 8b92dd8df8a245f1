"""The service in the test's own process, for tests that look at or into its directory between two asks."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent_mcp.compose import build_service
from agent_mcp.config import Settings
from agent_mcp.domain import LOCAL_SUBJECT, AgentId, Caller, Reply, SessionId
from agent_mcp.service import Prompt, Service
from agent_mcp.toolbox.internet import Internet

CALLER = Caller(subject=LOCAL_SUBJECT)


@asynccontextmanager
async def running(
    data_dir: Path,
    *,
    model: str = "offline",
    environ: Mapping[str, str] | None = None,
    internet: Internet | None = None,
    **settings: Any,
) -> AsyncGenerator[Service]:
    """A service over `data_dir` until the end of the block."""
    chosen: dict[str, Any] = {"data_dir": data_dir, "model": model, "fsync": False, **settings}
    service = build_service(Settings.model_validate(chosen), dict(environ or {}), internet=internet)
    try:
        yield service
    finally:
        await service.close(grace=0)


async def ask(service: Service, text: str, session: str | None = None, *, agent: str | None = None) -> Reply:
    """One turn, to its end; raises what it failed with."""
    following = (
        await service.turns.ask(
            CALLER,
            Prompt(
                text=text,
                agent_id=AgentId(agent) if agent else None,
                session_id=SessionId(session) if session else None,
            ),
        )
    ).followed
    async for _ in following.events(wait=60, pace=0.01):
        pass
    reply = following.reply()
    assert reply.status == "completed", reply
    return reply
