"""Every failure that a caller can meet: one tree, each error with its code, its HTTP status and the way out.

The codes and statuses are fixed by the contract with the outside. A message says what happened, what is untouched
and which call to make next, by the names of MCP's tools; `next_calls` has those of REST and of the shell for them.
"""

from typing import ClassVar


class AgentMcpError(Exception):
    """A failure that was foreseen. `str(error)` is the sentence for the caller."""

    code: ClassVar[str]
    http_status: ClassVar[int]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidArgument(AgentMcpError, ValueError):
    """An argument that no retry can make right. A ValueError too, so that pydantic reports it as one."""

    code = "invalid_argument"
    http_status = 422


class ToolNotAllowed(AgentMcpError):
    code = "tool_not_allowed"
    http_status = 422


class ModelNotAllowed(AgentMcpError):
    code = "model_not_allowed"
    http_status = 422


class TurnConflict(AgentMcpError):
    code = "turn_conflict"
    http_status = 422


class Unauthorized(AgentMcpError):
    """`challenge` is the value of the header `WWW-Authenticate`."""

    code = "unauthorized"
    http_status = 401

    def __init__(self, message: str, *, challenge: str = "Bearer") -> None:
        super().__init__(message)
        self.challenge = challenge


class RateLimited(AgentMcpError):
    """`retry_after` are the seconds until another attempt is worth it."""

    code = "rate_limited"
    http_status = 429

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Forbidden(AgentMcpError):
    code = "forbidden"
    http_status = 403


class TooLarge(AgentMcpError):
    code = "too_large"
    http_status = 413


class AgentNotFound(AgentMcpError):
    code = "agent_not_found"
    http_status = 404


class SessionNotFound(AgentMcpError):
    code = "session_not_found"
    http_status = 404


class TurnNotFound(AgentMcpError):
    code = "turn_not_found"
    http_status = 404


class MemoryNotFound(AgentMcpError):
    code = "memory_not_found"
    http_status = 404


class AgentExists(AgentMcpError):
    code = "agent_exists"
    http_status = 409


class SessionExists(AgentMcpError):
    code = "session_exists"
    http_status = 409


class AgentMismatch(AgentMcpError):
    code = "agent_mismatch"
    http_status = 409


class ActorMismatch(AgentMcpError):
    code = "actor_mismatch"
    http_status = 409


class SessionBusy(AgentMcpError):
    code = "session_busy"
    http_status = 409


class TurnPending(AgentMcpError):
    code = "turn_pending"
    http_status = 409


class BudgetExhausted(AgentMcpError):
    code = "budget_exhausted"
    http_status = 409


class SessionExpired(AgentMcpError):
    code = "session_expired"
    http_status = 410


class SessionDamaged(AgentMcpError):
    code = "session_damaged"
    http_status = 500


class TurnInterrupted(AgentMcpError):
    code = "turn_interrupted"
    http_status = 500


class ModelFailed(AgentMcpError):
    code = "model_error"
    http_status = 502


class NoModel(AgentMcpError):
    code = "no_model"
    http_status = 503


class TurnTimeout(AgentMcpError):
    code = "turn_timeout"
    http_status = 504


class StorageFailed(AgentMcpError):
    """`where` is the place on the server's disk, for its operator's eyes only: it is never part of the message."""

    code = "storage_error"
    http_status = 507

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(message)
        self.where = where


def _tree(root: type[AgentMcpError]) -> dict[str, type[AgentMcpError]]:
    found: dict[str, type[AgentMcpError]] = {}
    for kind in root.__subclasses__():
        found[kind.code] = kind
        found.update(_tree(kind))
    return found


BY_CODE = _tree(AgentMcpError)
"""Each code and its class: a failure kept in a turn's record is raised again from it."""
