"""What becomes of each exception that Strands and the SDK define. One that is new to them fails here until it is known.

The sources are read rather than imported: parts of both packages need extras that are not installed.
"""

import ast
import builtins
import importlib.util
from pathlib import Path

import pytest
from strands.types import exceptions as strands_exceptions

from agent_mcp.domain import Failure
from agent_mcp.errors import BY_CODE, AgentMcpError, ModelFailed, SessionDamaged
from agent_mcp.outcomes import failed

MODEL = ("failed", "model_error")
STORAGE = ("failed", "storage_error")

IN_A_TURN: dict[str, tuple[Exception, tuple[str, str | None]]] = {
    "EventLoopException": (
        strands_exceptions.EventLoopException(strands_exceptions.ModelThrottledException("slow down")),
        MODEL,
    ),
    "MaxTokensReachedException": (strands_exceptions.MaxTokensReachedException("cut"), ("completed", None)),
    "ContextWindowOverflowException": (strands_exceptions.ContextWindowOverflowException("too long"), MODEL),
    "MCPClientInitializationError": (strands_exceptions.MCPClientInitializationError("no server"), MODEL),
    "ModelThrottledException": (strands_exceptions.ModelThrottledException("slow down"), MODEL),
    "SessionException": (strands_exceptions.SessionException("no file"), STORAGE),
    "ProviderTokenCountError": (strands_exceptions.ProviderTokenCountError("no count"), MODEL),
    "ToolProviderException": (strands_exceptions.ToolProviderException("no tools"), MODEL),
    "ConcurrencyException": (strands_exceptions.ConcurrencyException("twice"), MODEL),
}
"""Exceptions of Strands that can end a run: one of each, and what the turn comes to."""

A_TOOLS_ERROR = {
    "A2AClientError",
    "HttpRequestError",
    "InvalidToolUseNameException",
    "MCPRouterToolError",
    "PythonReplError",
    "SandboxPathNotFoundError",
    "SandboxTimeoutError",
    "ShellExecutionError",
    "WebFetchError",
}
"""Raised in tools: Strands gives the model the error, and the turn goes on."""

NOT_MET = {
    "AggregateMemoryError": "memory managers of Strands are not used yet",
    "BackgroundTaskNotFoundError": "background tasks of Strands are not used",
    "BackgroundTaskTimeoutError": "background tasks of Strands are not used",
    "CheckpointException": "checkpoints of Strands are not used: a session's files are what is kept",
    "ConnectionTimeoutError": "bidirectional streaming is not used",
    "IdempotencyAbortedError": "Strands' idempotency is not used: keys are ours",
    "InterruptException": "Strands catches it and ends the run with the stop reason interrupt",
    "SnapshotException": "snapshots of Strands are not used",
    "StorageError": "storages of Strands' plugins are not used",
    "StructuredOutputException": "structured output is not asked for",
}
"""Exceptions of Strands that no turn meets. Where one did all the same it would be a model_error."""

SDK = {
    "MCPError": "raised by resources and by the SDK itself: JSON-RPC's error, its data with the code",
    "NoBackChannelError": "an MCPError, from asking a person without a way back: the reply names the command instead",
    "UrlElicitationRequiredError": "we never raise it",
    "InvalidRequestState": "the boundary refuses the request: invalid params",
    "InvalidUriTemplate": "templates are constants, parsed when the server is built",
    "InvalidSignature": "tools are constants, read when the server is built",
    "PathEscapeError": "no paths are made from what a client sends",
    "ResourceSecurityError": "MCPServer is not used, resources are read by our own templates",
    "MCPServerError": "MCPServer is not used",
    "ResourceError": "MCPServer is not used",
    "ResourceNotFoundError": "MCPServer is not used",
    "UnexpectedResourceError": "MCPServer is not used",
    "ToolError": "MCPServer is not used: the tool table makes results of errors",
    "UnexpectedToolError": "MCPServer is not used",
    "AuthenticationError": "there is no authentication on stdio",
    "AuthorizeError": "there is no authentication on stdio",
    "InvalidRedirectUriError": "there is no authentication on stdio",
    "InvalidScopeError": "there is no authentication on stdio",
    "RegistrationError": "there is no authentication on stdio",
    "TokenError": "there is no authentication on stdio",
}
"""Exceptions of the SDK's server side."""


def exceptions_of(package: str, *folders: str) -> set[str]:
    """The public exception classes that the sources of a package define."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    files = [file for folder in folders or ("",) for file in (root / folder).rglob("*.py")]
    classes = [
        node
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    errors = {name: value for name, value in vars(builtins).items() if isinstance(value, type)}
    known = {n for n, e in errors.items() if issubclass(e, Exception) and not issubclass(e, Warning)}
    found: set[str] = set()
    while True:
        new = {node.name for node in classes if any(name_of(base) in known for base in node.bases)} - found
        if not new:
            return {name for name in found if not name.startswith("_")}
        found |= new
        known |= new


def name_of(base: ast.expr) -> str:
    return ast.unparse(base).rpartition(".")[2]


def test_it_is_known_what_becomes_of_every_exception_of_strands() -> None:
    assert exceptions_of("strands") == {*IN_A_TURN, *A_TOOLS_ERROR, *NOT_MET}
    assert not (IN_A_TURN.keys() & A_TOOLS_ERROR | IN_A_TURN.keys() & NOT_MET | NOT_MET.keys() & A_TOOLS_ERROR)


def test_every_exception_that_strands_puts_together_for_callers_is_among_them() -> None:
    public = {name for name, value in vars(strands_exceptions).items() if isinstance(value, type) and name[0].isupper()}
    raised = {name for name in public if issubclass(getattr(strands_exceptions, name), Exception)}
    assert raised <= {*IN_A_TURN, *NOT_MET}


def test_it_is_known_what_becomes_of_every_exception_of_the_sdks_server_side() -> None:
    assert exceptions_of("mcp", "server", "shared") == SDK.keys()


@pytest.mark.parametrize("name", IN_A_TURN)
def test_an_exception_that_ends_a_run_becomes_the_turns_outcome(name: str) -> None:
    error, (status, code) = IN_A_TURN[name]
    assert type(error).__name__ == name
    outcome = failed(error)
    assert (outcome.status, outcome.failure.code if outcome.failure else None) == (status, code)
    if outcome.failure is not None:
        assert "\n" not in outcome.failure.message
        assert "ask" in outcome.failure.message.lower()


@pytest.mark.parametrize("error", [ValueError("a\nb"), RuntimeError(), KeyError("x"), OSError(28, "No space left")])
def test_any_other_exception_of_a_run_is_one_line_that_names_it(error: Exception) -> None:
    outcome = failed(error)
    assert isinstance(outcome.failure, ModelFailed)
    assert type(error).__name__ in outcome.failure.message
    assert "\n" not in outcome.failure.message


def test_an_error_of_ours_passes_through_strands_as_it_is() -> None:
    ours = SessionDamaged("The session 'x' can't be read.")
    wrapped = strands_exceptions.EventLoopException(strands_exceptions.EventLoopException(ours))
    assert failed(wrapped).failure is ours


STATUSES = {
    "too_large": 413,
    "invalid_argument": 422,
    "model_not_allowed": 422,
    "tool_not_allowed": 422,
    "turn_conflict": 422,
    "forbidden": 403,
    "rate_limited": 429,
    "unauthorized": 401,
    "agent_not_found": 404,
    "session_not_found": 404,
    "turn_not_found": 404,
    "memory_not_found": 404,
    "agent_exists": 409,
    "session_exists": 409,
    "agent_mismatch": 409,
    "actor_mismatch": 409,
    "session_busy": 409,
    "turn_pending": 409,
    "budget_exhausted": 409,
    "session_expired": 410,
    "session_damaged": 500,
    "turn_interrupted": 500,
    "model_error": 502,
    "no_model": 503,
    "turn_timeout": 504,
    "storage_error": 507,
}
"""The codes that can occur so far, as the contract gives them."""


def test_the_codes_and_their_statuses_are_the_contracts() -> None:
    assert {code: kind.http_status for code, kind in BY_CODE.items()} == STATUSES


def test_every_error_of_ours_has_a_code_of_its_own_and_comes_back_from_a_record_as_it_was() -> None:
    assert len({kind.code for kind in BY_CODE.values()}) == len(BY_CODE)
    for code, kind in BY_CODE.items():
        kept = Failure.model_validate_json(Failure(code=code, message="Why.").model_dump_json())
        again = BY_CODE[kept.code](kept.message)
        assert isinstance(again, AgentMcpError)
        assert (type(again), again.code, again.message) == (kind, code, "Why.")
