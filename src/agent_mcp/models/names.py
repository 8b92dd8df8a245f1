"""Names of models: "provider:model_id", and what each provider is called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from agent_mcp.errors import InvalidArgument

AUTO = "auto"

DEFAULT_MODEL_IDS = {
    "bedrock": "global.anthropic.claude-sonnet-4-6",  # Strands' own default
    "anthropic": "claude-sonnet-4-6",
    "openai": "gpt-5.4",
    "ollama": "",  # the first that is installed
    "gemini": "gemini-3.5-flash",
    "litellm": "",  # there is none: it speaks to a hundred services
    "llamacpp": "default",  # a server has one model, whatever it is called
    "offline": "basic",
}
"""The providers, and the model id of each that is named alone; "" where it must be found or given."""

_MAKERS = {"claude": "anthropic", "gpt": "openai", "gemini": "gemini", "llama": "ollama", "mistral": "ollama"}
"""Whose models have names that begin so."""

# An id of Bedrock: vendor.model with an optional region in front and version behind, or an ARN.
_BEDROCK_ID = re.compile(r"(?:[a-z-]+\.)?[a-z0-9-]+\.[a-z0-9][\w.-]*(?::\d+)*(?::\d+k)?|arn:aws[\w-]*:bedrock:\S+")


@dataclass(frozen=True)
class ModelRef:
    """One model: its provider and the provider's id for it. `str(ref)` is the name that callers use.

    Without an id it is the provider's default, which is still to be found.
    """

    provider: str
    model_id: str

    def __str__(self) -> str:
        return f"{self.provider}:{self.model_id}" if self.model_id else self.provider


def parse_model(name: str) -> ModelRef:
    """The model that a name means (`auto` excepted); raises InvalidArgument."""
    provider, colon, model_id = name.partition(":")
    if provider in DEFAULT_MODEL_IDS:
        if colon and not model_id:
            raise InvalidArgument(
                f"The model {name!r} lacks its id behind the colon: use {provider!r} for the default."
            )
        if provider == "litellm" and not model_id:
            raise InvalidArgument(
                "litellm has no default model: name one, such as litellm:mistral/mistral-large-latest."
            )
        return ModelRef(provider, model_id or DEFAULT_MODEL_IDS[provider])
    if _BEDROCK_ID.fullmatch(name):
        return ModelRef("bedrock", name)
    raise InvalidArgument(
        f"{name[:100]!r} is no model: use provider:model_id with one of {', '.join(sorted(DEFAULT_MODEL_IDS))}, "
        f"or a model id of Bedrock.{_suggestion(provider, model_id)}"
    )


def _suggestion(provider: str, model_id: str) -> str:
    """What was probably meant: a misspelt provider, or a maker's model without one."""
    if model_id:
        close = get_close_matches(provider.lower(), DEFAULT_MODEL_IDS, n=1)
        return f" Did you mean {close[0]}:{model_id[:100]}?" if close else ""
    maker = next((maker for beginning, maker in _MAKERS.items() if provider.lower().startswith(beginning)), None)
    return f" Did you mean {maker}:{provider[:100]}?" if maker else ""


def is_covered(ref: ModelRef, pattern: str) -> bool:
    """Whether a pattern of the operator's allows this model. A bare provider stands for its default model, a bare
    model id or pattern of ids for Bedrock's."""
    if fnmatchcase(str(ref), pattern) or (ref.provider == "bedrock" and fnmatchcase(ref.model_id, pattern)):
        return True
    try:
        return parse_model(pattern) == ref
    except InvalidArgument:
        return False
