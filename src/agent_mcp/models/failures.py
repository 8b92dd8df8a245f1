"""One tree out of the exceptions of all providers' packages: what went wrong, in one word, by the class's name.

The names are looked up along a class's ancestors, so that nothing needs to be imported to know an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import cast


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
            "APIError": _BY_STATUS,
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
            "_response.StreamAlreadyConsumed": Kind.FAILED,
            "_response.MissingStreamClassError": Kind.FAILED,
            "_legacy_response.MissingStreamClassError": Kind.FAILED,
        }.items()
    },
    "openai.OpenAIError": Kind.FAILED,
    "openai.LengthFinishReasonError": Kind.FAILED,
    "openai.ContentFilterFinishReasonError": Kind.REJECTED,
    "openai.OAuthError": Kind.REFUSED,
    "openai._exceptions.SubjectTokenProviderError": Kind.REFUSED,
    "openai.lib.azure.MutuallyExclusiveAuthError": Kind.REFUSED,
    "anthropic.AnthropicError": Kind.FAILED,
    "anthropic.DeadlineExceededError": Kind.DROPPED,
    "anthropic.OverloadedError": Kind.THROTTLED,
    "anthropic.RequestTooLargeError": Kind.REJECTED,
    "anthropic.RetryableError": Kind.DROPPED,
    "anthropic.ServiceUnavailableError": Kind.THROTTLED,
    "anthropic.lib.credentials._workload.WorkloadIdentityError": Kind.REFUSED,
    "anthropic.lib.foundry.MutuallyExclusiveAuthError": Kind.REFUSED,
    # ... and of parts of the two that are not used: webhooks, web sockets, other ways to ask, their own tools
    **dict.fromkeys(
        (
            "openai.InvalidWebhookSignatureError",
            "openai.WebSocketConnectionClosedError",
            "openai.WebSocketQueueFullError",
            "openai._AmbiguousModuleClientUsageError",
            "openai._extras._common.MissingDependencyError",
            "openai.lib._old_api.APIRemovedInV1",
            "anthropic.APIWebhookValidationError",
            "anthropic.lib._extras._common.MissingDependencyError",
            "anthropic.lib.credentials._secrets._NonObjectPayloadError",
            "anthropic.lib.tools._beta_functions.ToolError",
            "anthropic.lib.tools._file_store.FileStoreError",
            "anthropic.lib.tools._memories.SessionMemoryError",
            "anthropic.lib.tools.mcp.UnsupportedMCPValueError",
        ),
        Kind.FAILED,
    ),
    # Ollama
    "ollama._types.ResponseError": _BY_STATUS,
    "ollama._types.RequestError": Kind.REJECTED,
    "builtins.ConnectionError": Kind.UNREACHABLE,  # what its package raises where nothing listens
    # Gemini
    "google.genai.errors.APIError": _BY_STATUS,
    "google.genai.errors.ClientError": _BY_STATUS,
    "google.genai.errors.ServerError": _BY_STATUS,
    "google.genai.errors.UnknownApiResponseError": Kind.FAILED,
    "google.genai.errors.UnsupportedFunctionError": Kind.REJECTED,
    "google.genai.errors.FunctionInvocationError": Kind.FAILED,  # of functions that its package would call itself
    "google.genai.errors.UnknownFunctionCallArgumentError": Kind.FAILED,
    "google.genai.errors.ContinuationInterruptedError": Kind.FAILED,  # of its other way to ask
    # LiteLLM: its exceptions are children of OpenAI's, and most have the status that the service gave
    **{
        f"litellm.exceptions.{name}": kind
        for name, kind in {
            "APIConnectionError": Kind.DROPPED,
            "APIError": _BY_STATUS,
            "APIResponseValidationError": Kind.FAILED,
            "AuthenticationError": Kind.REFUSED,
            "BadGatewayError": _BY_STATUS,
            "BadRequestError": _BY_STATUS,
            "BlockedPiiEntityError": Kind.REJECTED,
            "BudgetExceededError": Kind.NO_CREDIT,
            "ContentPolicyViolationError": Kind.REJECTED,
            "ContextWindowExceededError": Kind.REJECTED,
            "GuardrailRaisedException": Kind.REJECTED,
            "ImageFetchError": Kind.REJECTED,
            "InternalServerError": _BY_STATUS,
            "InvalidRequestError": Kind.REJECTED,
            "JSONSchemaValidationError": Kind.FAILED,
            "LiteLLMUnknownProvider": Kind.NOT_FOUND,
            "MidStreamFallbackError": _BY_STATUS,
            "MockException": _BY_STATUS,
            "ModelNotMappedError": Kind.NOT_FOUND,
            "ModifyResponseException": Kind.FAILED,
            "NotFoundError": Kind.NOT_FOUND,
            "OpenAIError": Kind.FAILED,
            "PaymentRequiredError": Kind.NO_CREDIT,
            "PermissionDeniedError": Kind.REFUSED,
            "RateLimitError": _BY_STATUS,
            "RejectedRequestError": Kind.REJECTED,
            "SensitiveDataRouteException": Kind.REJECTED,
            "ServiceUnavailableError": _BY_STATUS,
            "Timeout": Kind.DROPPED,
            "UnprocessableEntityError": Kind.REJECTED,
            "UnsupportedParamsError": Kind.REJECTED,
            "VectorStoreSearchError": Kind.FAILED,
        }.items()
    },
    "litellm.llms.base_llm.chat.transformation.BaseLLMException": _BY_STATUS,  # within them
    # HTTP, where a package lets it through
    **{
        f"httpx.{name}": kind
        for name, kind in {
            "HTTPError": Kind.FAILED,
            "HTTPStatusError": _BY_STATUS,
            "RequestError": Kind.DROPPED,
            "TransportError": Kind.DROPPED,
            "NetworkError": Kind.DROPPED,
            "ReadError": Kind.DROPPED,
            "WriteError": Kind.DROPPED,
            "CloseError": Kind.DROPPED,
            "ConnectError": Kind.UNREACHABLE,
            "TimeoutException": Kind.DROPPED,
            "ReadTimeout": Kind.DROPPED,
            "WriteTimeout": Kind.DROPPED,
            "PoolTimeout": Kind.DROPPED,
            "ConnectTimeout": Kind.UNREACHABLE,
            "ProtocolError": Kind.DROPPED,
            "RemoteProtocolError": Kind.DROPPED,
            "LocalProtocolError": Kind.FAILED,  # such as a key that can't stand in a header
            "ProxyError": Kind.UNREACHABLE,
            "UnsupportedProtocol": Kind.UNREACHABLE,
            "InvalidURL": Kind.UNREACHABLE,
            "TooManyRedirects": Kind.UNREACHABLE,
            "DecodingError": Kind.FAILED,
            "CookieConflict": Kind.FAILED,
            "StreamError": Kind.FAILED,
            "StreamClosed": Kind.FAILED,
            "StreamConsumed": Kind.FAILED,
            "RequestNotRead": Kind.FAILED,
            "ResponseNotRead": Kind.FAILED,
        }.items()
    },
    # AWS
    **{
        f"botocore.exceptions.{name}": kind
        for name, kind in {
            "BotoCoreError": Kind.FAILED,
            "ClientError": _BY_STATUS,
            "EventStreamError": _BY_STATUS,
            "HTTPClientError": Kind.DROPPED,
            "ConnectionClosedError": Kind.DROPPED,
            "ReadTimeoutError": Kind.DROPPED,
            "ResponseStreamingError": Kind.DROPPED,
            "IncompleteReadError": Kind.DROPPED,
            "ConnectionError": Kind.DROPPED,
            "ConnectTimeoutError": Kind.UNREACHABLE,
            "EndpointConnectionError": Kind.UNREACHABLE,
            "ProxyConnectionError": Kind.UNREACHABLE,
            "SSLError": Kind.UNREACHABLE,
            "CapacityNotAvailableError": Kind.THROTTLED,
            "ParamValidationError": Kind.REJECTED,
            "NoCredentialsError": Kind.REFUSED,
            "PartialCredentialsError": Kind.REFUSED,
            "CredentialRetrievalError": Kind.REFUSED,
            "MetadataRetrievalError": Kind.REFUSED,
            "RefreshWithMFAUnsupportedError": Kind.REFUSED,
            "UnknownCredentialError": Kind.REFUSED,
            "ProfileNotFound": Kind.REFUSED,
            "NoAuthTokenError": Kind.REFUSED,
            "TokenRetrievalError": Kind.REFUSED,
            "UnknownTokenProviderError": Kind.REFUSED,
            "LoginError": Kind.REFUSED,
            "SSOError": Kind.REFUSED,
            "UndefinedModelAttributeError": Kind.FAILED,
            "MissingServiceIdError": Kind.FAILED,
        }.items()
    },
    # Strands
    "strands.types.exceptions.ModelThrottledException": Kind.THROTTLED,
    # below the packages
    "urllib3.exceptions.HTTPError": Kind.DROPPED,
    "builtins.ConnectionAbortedError": Kind.DROPPED,
    "builtins.ConnectionResetError": Kind.DROPPED,
    "builtins.BrokenPipeError": Kind.DROPPED,
    "builtins.TimeoutError": Kind.DROPPED,
}
"""What each class of exceptions comes to, and each that derives from it and is not here by its own name."""
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
AWS_CODES: Mapping[str, Kind] = {
    "accessdeniedexception": Kind.REFUSED,
    "expiredtokenexception": Kind.REFUSED,
    "invalidsignatureexception": Kind.REFUSED,
    "unrecognizedclientexception": Kind.REFUSED,
    "modelnotreadyexception": Kind.THROTTLED,
    "serviceunavailableexception": Kind.THROTTLED,
    "throttlingexception": Kind.THROTTLED,
    "servicequotaexceededexception": Kind.THROTTLED,
    "modeltimeoutexception": Kind.DROPPED,
    "resourcenotfoundexception": Kind.NOT_FOUND,
    "conflictexception": Kind.REJECTED,
    "validationexception": Kind.REJECTED,
    "internalserverexception": Kind.FAILED,
    "modelerrorexception": Kind.FAILED,
    "modelstreamerrorexception": Kind.DROPPED,
}
"""What the codes of Bedrock's own errors come to, in small letters. Others are judged by their HTTP status."""
_SECRET = re.compile(r"\b(?:sk|pk|key|gsk|xai)-[\w*.-]{6,}|\bAIza[\w-]{8,}|\b(?:AKIA|ASIA)\w{12,}|Bearer \S+")
_LONGEST_REASON = 300


def kind_of(error: BaseException) -> Kind:
    """The kind of an exception; what no table knows has simply failed.

    Packages wrap errors, some a lost connection in a made-up "500": where the outer one says no more than that it
    failed, the next one within is asked. That nothing could be connected to counts wherever it stands.
    """
    kinds = [_named(one) or _by_status(one) for one in _within(error)]
    if Kind.UNREACHABLE in kinds:
        return Kind.UNREACHABLE
    return next((kind for kind in kinds if kind is not Kind.FAILED), Kind.FAILED)


def _within(error: BaseException) -> Iterator[BaseException]:
    """An error, and one after the other what it was raised from."""
    seen: set[int] = set()
    inner: BaseException | None = error
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        yield inner
        inner = inner.__cause__ or (None if inner.__suppress_context__ else inner.__context__)


def _named(error: BaseException) -> Kind | None:
    for ancestor in type(error).__mro__:
        name = f"{ancestor.__module__}.{ancestor.__qualname__}"
        if name in KINDS:
            return KINDS[name]
    return Kind.FAILED


def _by_status(error: BaseException) -> Kind:
    response: object = getattr(error, "response", None)
    if isinstance(response, Mapping):  # AWS: a code in words
        answer = cast("Mapping[str, Mapping[str, object]]", response)
        code = str(answer.get("Error", {}).get("Code", "")).lower()
        return AWS_CODES.get(code) or _of_status(answer.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    if getattr(error, "code", None) == "insufficient_quota":
        return Kind.NO_CREDIT
    for holder, field in ((error, "status_code"), (error, "code"), (response, "status_code")):
        status: object = getattr(holder, field, None)
        if isinstance(status, int):
            return _of_status(status)
    return Kind.FAILED


def _of_status(status: object) -> Kind:
    if not isinstance(status, int):
        return Kind.FAILED
    return _STATUSES.get(status, Kind.REJECTED if 400 <= status < 500 else Kind.FAILED)


def reason_of(error: BaseException, *, hidden: Iterable[str]) -> str:
    """What a provider says of its error: one short line, without keys, and without any of the `hidden` texts."""
    text = str(error)
    for one in sorted(hidden, key=len, reverse=True):
        if len(one) >= 6:
            text = text.replace(one, "...")
    return " ".join(_SECRET.sub("...", text).split())[:_LONGEST_REASON]
