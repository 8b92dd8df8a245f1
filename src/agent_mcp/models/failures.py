"""One tree out of the exceptions of all providers' packages: what went wrong, in one word, by the class's name.

The names are looked up along a class's ancestors, so that nothing needs to be imported to know an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum


class Kind(Enum):
    """What went wrong. The value is a sentence about the model, and what to do about it."""

    THROTTLED = "turned the request down as one too many, also when tried again: ask later"
    UNREACHABLE = (
        "can't be reached: the operator looks at its address and the network (agent-mcp doctor). Ask again then"
    )
    DROPPED = "broke off the connection before it answered, also when tried again. The session is usable: ask again"
    BROKEN = "broke off in the middle of its answer. The session is usable: ask again"
    REFUSED = "refused the server's credentials: the operator mends them (agent-mcp doctor), then ask again"
    NO_CREDIT = "has no credit left for this account: the operator tops it up, then ask again"
    NOT_FOUND = "is not known to its service: name another one with update_agent, then ask again"
    REJECTED = "rejected the request: change the agent's model, model_params or prompt, then ask again"
    FAILED = "could not answer. The session is usable: ask again"


AGAIN: Mapping[Kind, int] = {Kind.THROTTLED: 5, Kind.DROPPED: 5, Kind.UNREACHABLE: 2}
"""How often a call is made again, for the kinds that may pass by themselves."""

_BY_STATUS = None
"""In the table: the HTTP status says which kind it is."""

KINDS: Mapping[str, Kind | None] = {
    # OpenAI, and Anthropic whose package is of the same making
    **{
        f"{package}.{name}": kind
        for package in ("openai", "anthropic")
        for name, kind in {
            "APIStatusError": _BY_STATUS,
            "BadRequestError": _BY_STATUS,
            "AuthenticationError": Kind.REFUSED,
            "PermissionDeniedError": Kind.REFUSED,
            "NotFoundError": Kind.NOT_FOUND,
            "ConflictError": _BY_STATUS,
            "UnprocessableEntityError": Kind.REJECTED,
            "RateLimitError": _BY_STATUS,
            "InternalServerError": _BY_STATUS,
            "APIConnectionError": Kind.DROPPED,
            "APITimeoutError": Kind.DROPPED,
            "APIResponseValidationError": Kind.FAILED,
            "APIError": _BY_STATUS,
        }.items()
    },
    # Ollama
    "ollama._types.ResponseError": _BY_STATUS,
    "ollama._types.RequestError": Kind.REJECTED,
    "builtins.ConnectionError": Kind.UNREACHABLE,  # what its package raises where nothing listens
    # Gemini
    "google.genai.errors.APIError": _BY_STATUS,
    "google.genai.errors.ClientError": _BY_STATUS,
    "google.genai.errors.ServerError": _BY_STATUS,
    # LiteLLM: its exceptions are children of OpenAI's, each with a status
    "litellm.exceptions.APIConnectionError": Kind.DROPPED,
    "litellm.exceptions.Timeout": Kind.DROPPED,
    "litellm.exceptions.AuthenticationError": Kind.REFUSED,
    "litellm.exceptions.NotFoundError": Kind.NOT_FOUND,
    "litellm.exceptions.MidStreamFallbackError": Kind.BROKEN,
    # HTTP, where a package lets it through
    "httpx.HTTPStatusError": _BY_STATUS,
    "httpx.ConnectError": Kind.UNREACHABLE,
    "httpx.ConnectTimeout": Kind.UNREACHABLE,
    "httpx.TransportError": Kind.DROPPED,
    "httpx.StreamError": Kind.FAILED,
    "httpx.HTTPError": Kind.FAILED,
    # AWS
    "botocore.exceptions.EndpointConnectionError": Kind.UNREACHABLE,
    "botocore.exceptions.ConnectTimeoutError": Kind.UNREACHABLE,
    "botocore.exceptions.HTTPClientError": Kind.DROPPED,
    "botocore.exceptions.ConnectionError": Kind.DROPPED,
    "botocore.exceptions.NoCredentialsError": Kind.REFUSED,
    "botocore.exceptions.PartialCredentialsError": Kind.REFUSED,
    "botocore.exceptions.CredentialRetrievalError": Kind.REFUSED,
    "botocore.exceptions.ProfileNotFound": Kind.REFUSED,
    "botocore.exceptions.SSOError": Kind.REFUSED,
    "botocore.exceptions.TokenRetrievalError": Kind.REFUSED,
    "botocore.exceptions.EventStreamError": _BY_STATUS,
    "botocore.exceptions.ClientError": _BY_STATUS,
    "botocore.exceptions.BotoCoreError": Kind.FAILED,
    # Strands
    "strands.types.exceptions.ModelThrottledException": Kind.THROTTLED,
    # urllib3, below boto
    "urllib3.exceptions.HTTPError": Kind.DROPPED,
}
_STATUSES = {
    400: Kind.REJECTED,
    401: Kind.REFUSED,
    402: Kind.NO_CREDIT,
    403: Kind.REFUSED,
    404: Kind.NOT_FOUND,
    408: Kind.DROPPED,
    413: Kind.REJECTED,
    422: Kind.REJECTED,
    429: Kind.THROTTLED,
    502: Kind.DROPPED,
    503: Kind.THROTTLED,
    504: Kind.DROPPED,
    529: Kind.THROTTLED,  # Anthropic's word for overloaded
}
_AWS_CODES = {
    "accessdeniedexception": Kind.REFUSED,
    "expiredtokenexception": Kind.REFUSED,
    "invalidsignatureexception": Kind.REFUSED,
    "unrecognizedclientexception": Kind.REFUSED,
    "modelnotreadyexception": Kind.THROTTLED,
    "serviceunavailableexception": Kind.THROTTLED,
    "throttlingexception": Kind.THROTTLED,
    "servicequotaexceededexception": Kind.THROTTLED,
    "resourcenotfoundexception": Kind.NOT_FOUND,
    "validationexception": Kind.REJECTED,
}
_SECRET = re.compile(r"\b(?:sk|pk|key|gsk|xai)-[\w*.-]{6,}|\bAIza[\w-]{8,}|\b(?:AKIA|ASIA)\w{12,}|Bearer \S+")
_LONGEST_REASON = 300


def kind_of(error: BaseException) -> Kind:
    """The kind of an exception; what no table knows has simply failed."""
    seen: BaseException | None = error
    while seen is not None:  # A package may wrap that it could not connect in an error without a status of its own.
        if _named(seen) is Kind.UNREACHABLE:
            return Kind.UNREACHABLE
        seen = seen.__cause__
    return _named(error) or _by_status(error)


def _named(error: BaseException) -> Kind | None:
    for ancestor in type(error).__mro__:
        name = f"{ancestor.__module__}.{ancestor.__qualname__}"
        if name in KINDS:
            return KINDS[name]
    return Kind.FAILED


def _by_status(error: BaseException) -> Kind:
    response: object = getattr(error, "response", None)
    if isinstance(response, Mapping):  # AWS: a code in words
        details: object = response.get("Error", {})  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        code = str(details.get("Code", "")) if isinstance(details, Mapping) else ""  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        return _AWS_CODES.get(code.lower(), Kind.FAILED)
    if getattr(error, "code", None) == "insufficient_quota":
        return Kind.NO_CREDIT
    for holder, field in ((error, "status_code"), (error, "code"), (response, "status_code")):
        status: object = getattr(holder, field, None)
        if isinstance(status, int):
            return _STATUSES.get(status, Kind.FAILED if status >= 500 or status < 400 else Kind.REJECTED)
    return Kind.FAILED


def reason_of(error: BaseException, *, hidden: Iterable[str]) -> str:
    """What a provider says of its error: one short line, without keys, and without any of the `hidden` texts."""
    text = str(error)
    for one in sorted(hidden, key=len, reverse=True):
        if len(one) >= 6:
            text = text.replace(one, "...")
    return " ".join(_SECRET.sub("...", text).split())[:_LONGEST_REASON]
