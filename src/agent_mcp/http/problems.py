"""Every refusal as `application/problem+json`: one map from errors to answers."""

from __future__ import annotations

import http
import logging
import re
from collections.abc import Mapping
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from agent_mcp.arguments import explain
from agent_mcp.errors import BY_CODE, AgentMcpError, RateLimited, Unauthorized
from agent_mcp.next_calls import in_rest

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
TOO_LONG = "The request is longer than the server takes: shorten it, or ask in parts. Nothing was changed."
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
"""Codes of what is refused before it comes to a use case."""
_ALWAYS = ("invalid_argument", "unauthorized", "forbidden", "too_large", "rate_limited", "storage_error")


class Problem(BaseModel):
    """What went wrong, what is untouched and what to do next (RFC 9457)."""

    type: str = "about:blank"
    title: str = Field(description="The status in words")
    status: int
    code: str = Field(description="The error's name for programs, such as session_not_found")
    detail: str = Field(description="What happened, and the next call to make")


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for the OpenAPI document: those with these codes, and what every route can meet."""
    found: dict[int, list[str]] = {}
    for code in (*codes, *_ALWAYS):
        found.setdefault(BY_CODE[code].http_status, []).append(code)
    return {status: {"model": Problem, "description": ", ".join(names)} for status, names in sorted(found.items())}


def problem_of(error: AgentMcpError) -> Problem:
    """An error as a problem."""
    return _problem(error.http_status, error.code, in_rest(error.message))


def problem_response(error: AgentMcpError) -> Response:
    """The answer that an error gives."""
    return _response(problem_of(error), headers_of(error))


def headers_of(error: AgentMcpError) -> dict[str, str] | None:
    """What an error says in headers."""
    match error:
        case Unauthorized():
            return {"WWW-Authenticate": error.challenge}
        case RateLimited():
            return {"Retry-After": str(error.retry_after)}
        case _:
            return None


def _problem(status: int, code: str, detail: str) -> Problem:
    return Problem(title=http.HTTPStatus(status).phrase, status=status, code=code, detail=detail)


def _response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(problem.model_dump(), status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def install(app: FastAPI) -> None:
    """Makes every refusal of the application a problem, also those of the framework."""

    async def foreseen(request: Request, error: Exception) -> Response:
        return problem_response(cast("AgentMcpError", error))

    async def framework(request: Request, error: Exception) -> Response:
        refusal = cast("HTTPException", error)
        # A body that can't be read is an argument that can't be used.
        status = 422 if refusal.status_code == 400 else refusal.status_code
        headers = refusal.headers
        if status == 405:
            headers = {"Allow": ", ".join(_methods(app, request.url.path)) or (headers or {}).get("allow", "")}
        detail = _DETAILS.get(status, refusal.detail).format(method=request.method, path=request.url.path)
        return _response(_problem(status, _CODES.get(status, "invalid_argument"), detail), headers)

    async def invalid(request: Request, error: Exception) -> Response:
        errors = cast("RequestValidationError", error).errors()
        detail = " ".join(_explained(app, request, dict(one)) for one in errors[:3])
        return _response(_problem(422, "invalid_argument", detail))

    async def unforeseen(request: Request, error: Exception) -> Response:
        text = "The server failed; its log has the reason. Nothing is known to be lost."
        return _response(_problem(500, "internal", text))

    app.add_exception_handler(AgentMcpError, foreseen)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unforeseen)


_DETAILS = {
    422: "The body can't be read: send one JSON object in UTF-8. Nothing was changed.",
    404: "There is nothing at {path}: /openapi.json lists all calls.",
    405: "{method} is not possible at {path}: the header Allow says what is, and /openapi.json what it does.",
    413: TOO_LONG,
}


def _methods(app: FastAPI, path: str) -> list[str]:
    """What can be done at a path: the framework names the methods of the first route only."""
    found = [
        method.upper()
        for template, item in app.openapi()["paths"].items()
        if re.fullmatch(re.sub(r"\\?\{[^}]+\}", "[^/]+", re.escape(template)), path)
        for method in item
    ]
    return sorted(found)


def _explained(app: FastAPI, request: Request, error: dict[str, Any]) -> str:
    where, *rest = error["loc"]
    field = ".".join(str(part) for part in rest)
    if error["type"] == "json_invalid":
        return "The body is no JSON: send one JSON object in UTF-8."
    if where == "body" and not rest:
        return "The body must be a JSON object: send one, with the header `Content-Type: application/json`."
    return explain("This call", arguments(app, request, in_body=where == "body"), error, field=field)


def arguments(app: FastAPI, request: Request, *, in_body: bool) -> list[str]:
    """The names of a route's arguments in the query or in the body, as the OpenAPI document has them."""
    route = request.scope.get("route")
    document = app.openapi()
    operation: dict[str, Any] = (
        document["paths"].get(getattr(route, "path_format", ""), {}).get(request.method.lower(), {})
    )
    if not in_body:
        return [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = content.get("schema", {})
    for option in (schema, *schema.get("anyOf", [])):
        if "$ref" in option:
            name = option["$ref"].rpartition("/")[2]
            return list(document["components"]["schemas"][name]["properties"])
    return []
