"""What every REST call is given: the service, and who calls."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, FastAPI, Request

from agent_mcp.arguments import suggest
from agent_mcp.domain import Caller
from agent_mcp.errors import InvalidArgument
from agent_mcp.http.callers import caller_of
from agent_mcp.http.problems import arguments
from agent_mcp.service import Service

API = "/api/v1"


async def service_of(request: Request) -> Service:
    """The service of the application that got the request."""
    return cast("Service", cast("FastAPI", request.app).state.service)


async def known_query(request: Request) -> None:
    """Raises InvalidArgument where the query names an argument that the call does not have."""
    if not request.query_params:
        return
    known = arguments(cast("FastAPI", request.app), request, in_body=False)
    for name in request.query_params:
        if name not in known:
            raise InvalidArgument(f"This call has no argument {name[:60]!r} in its query. {suggest(name, known)}")


TheService = Annotated[Service, Depends(service_of)]
TheCaller = Annotated[Caller, Depends(caller_of)]
