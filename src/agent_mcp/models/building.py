"""From a name to Strands' model class: one builder for each provider, with what the operator's environment says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent_mcp.errors import InvalidArgument
from agent_mcp.late import load_strands
from agent_mcp.model_params import ModelParams
from agent_mcp.models.clients import STREAMS, Clients
from agent_mcp.models.effort import effort_fields
from agent_mcp.models.names import ModelRef
from agent_mcp.models.ollama_server import base_url
from agent_mcp.models.providers import PROVIDERS, llamacpp_url
from agent_mcp.tally import Tally

if TYPE_CHECKING:
    from strands.models.model import Model

_SECRET_ENDS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_TOKEN_BEDROCK")
"""How the variables are named that hold what must not be told."""
_ANTHROPIC_TOKENS = 32_000
"""Anthropic's API wants a limit with each request; every Claude model since 4 can write as much."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be built. `params` are the caller's, everything in `environ` the operator's; `tally` counts tokens."""

    model_id: str
    params: ModelParams
    environ: Mapping[str, str]
    clients: Clients
    tally: Tally

    def key(self, provider: str) -> str | None:
        name = PROVIDERS[provider].key(self.environ)
        return self.environ[name] if name else None

    def effort(self, provider: str) -> dict[str, Any] | None:
        """See `effort_fields`."""
        return effort_fields(ModelRef(provider, self.model_id), self.params.get("reasoning_effort"))


def build(provider: str, order: Order) -> Model:
    """The model, guarded. Blocking: imports the provider's package. Raises InvalidArgument for what it is known not to
    have."""
    load_strands()
    from agent_mcp.models.guarded import GuardedModel

    secrets = {value for name, value in order.environ.items() if name.endswith(_SECRET_ENDS)}
    name = f"{provider}:{order.model_id}"
    return GuardedModel(_BUILDERS[provider](order), name=name, secrets=secrets, tally=order.tally)


def _bedrock(order: Order) -> Model:
    from botocore.config import Config
    from strands.models.bedrock import DEFAULT_READ_TIMEOUT, BedrockModel
    from strands.models.model import CacheConfig

    given = order.params
    config: dict[str, Any] = {
        "temperature": given.get("temperature"),
        "top_p": given.get("top_p"),
        "max_tokens": given.get("max_tokens"),
        "stop_sequences": given.get("stop"),
        "additional_request_fields": order.effort("bedrock"),
    }
    return BedrockModel(
        model_id=order.model_id,
        boto_session=order.clients.aws,
        boto_client_config=Config(
            read_timeout=DEFAULT_READ_TIMEOUT,
            max_pool_connections=STREAMS,
            retries={"total_max_attempts": 1},  # they are made above all providers alike
        ),
        cache_config=CacheConfig(tools_ttl=True),
        **{name: value for name, value in config.items() if value is not None},
    )


def _anthropic(order: Order) -> Model:
    from strands.models.anthropic import AnthropicModel
    from strands.models.model import CacheConfig

    given = order.params
    params: dict[str, Any] = {
        "temperature": given.get("temperature"),
        "top_p": given.get("top_p"),
        "stop_sequences": given.get("stop"),
        **(order.effort("anthropic") or {}),
    }
    return AnthropicModel(
        client_args={
            "api_key": order.environ.get("ANTHROPIC_API_KEY"),
            "auth_token": order.environ.get("ANTHROPIC_AUTH_TOKEN"),
            "base_url": order.environ.get("ANTHROPIC_BASE_URL"),
            "http_client": order.clients.http,
            "max_retries": 0,
        },
        model_id=order.model_id,
        max_tokens=given.get("max_tokens", _ANTHROPIC_TOKENS),
        params=_given(params),
        cache_config=CacheConfig(tools_ttl=True),
    )


def _openai(order: Order) -> Model:
    from openai import AsyncOpenAI
    from strands.models.model import CacheConfig
    from strands.models.openai import OpenAIModel

    from agent_mcp.models.streams import OpenAIClient

    address = order.environ.get("OPENAI_BASE_URL")
    params: dict[str, Any] = dict(order.params)
    if not address and "max_tokens" in params:
        params["max_completion_tokens"] = params.pop("max_tokens")  # the newer models know only this name
    client = AsyncOpenAI(
        api_key=order.key("openai") or "none",  # a server of one's own wants none, the package does
        base_url=address,
        http_client=order.clients.http,
        max_retries=0,
    )
    return OpenAIModel(
        client=OpenAIClient(client),
        model_id=order.model_id,
        params=params,
        # Other servers may refuse a field that only OpenAI's knows.
        cache_config=None if address else CacheConfig(),
    )


def _ollama(order: Order) -> Model:
    from agent_mcp.models.ollama_model import WholeOllamaModel

    given = order.params
    config: dict[str, Any] = {
        "temperature": given.get("temperature"),
        "top_p": given.get("top_p"),
        "max_tokens": given.get("max_tokens"),
        "stop_sequences": given.get("stop"),
        "additional_args": order.effort("ollama"),
    }
    return WholeOllamaModel(
        base_url(order.environ),
        ollama_client_args={"transport": order.clients.local},
        model_id=order.model_id,
        **_given(config),
    )


def _gemini(order: Order) -> Model:
    from google.genai import Client, types
    from strands.models.gemini import GeminiModel

    from agent_mcp.models.streams import GeminiClient

    given = order.params
    params: dict[str, Any] = {
        "temperature": given.get("temperature"),
        "top_p": given.get("top_p"),
        "max_output_tokens": given.get("max_tokens"),
        "stop_sequences": given.get("stop"),
        "thinking_config": order.effort("gemini"),
    }
    options = types.HttpOptions(
        base_url=order.environ.get("GOOGLE_GEMINI_BASE_URL"),
        httpx_async_client=order.clients.http,
        retry_options=types.HttpRetryOptions(attempts=1),
    )
    client = Client(api_key=order.key("gemini"), vertexai=False, http_options=options)
    used: Any = GeminiClient(client)
    return GeminiModel(client=used, model_id=order.model_id, params=_given(params))


def _litellm(order: Order) -> Model:
    from agent_mcp.models.litellm_quiet import LiteLLMModel, OwnConnections

    order.clients.one(OwnConnections, OwnConnections)
    return LiteLLMModel(
        client_args={"num_retries": 0, "max_retries": 0}, model_id=order.model_id, params=dict(order.params)
    )


def _llamacpp(order: Order) -> Model:
    from strands.models.llamacpp import LlamaCppModel

    from agent_mcp.models.streams import StreamingClient

    order.effort("llamacpp")
    address = llamacpp_url(order.environ)
    model = LlamaCppModel(base_url=address, model_id=order.model_id, params=dict(order.params))
    timeout = order.clients.http.timeout
    model.client = order.clients.one(StreamingClient, lambda: StreamingClient(base_url=address, timeout=timeout))
    return model


def _offline(order: Order) -> Model:
    from agent_mcp.offline import OfflineModel

    try:
        return OfflineModel(order.model_id)
    except ValueError as error:
        raise InvalidArgument(str(error)) from None


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


_BUILDERS: Mapping[str, Callable[[Order], Model]] = {
    "anthropic": _anthropic,
    "bedrock": _bedrock,
    "gemini": _gemini,
    "litellm": _litellm,
    "llamacpp": _llamacpp,
    "offline": _offline,
    "ollama": _ollama,
    "openai": _openai,
}
