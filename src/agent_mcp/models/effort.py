"""How each model is told how hard to think: `reasoning_effort` has another name with every maker, or none."""

from __future__ import annotations

from typing import Any

from agent_mcp.errors import InvalidArgument
from agent_mcp.models.names import ModelRef

_GEMINI_2_THOUGHTS = {"low": 1_024, "medium": 8_192, "high": 24_576}
"""Tokens to think with, for the models that are not told a level."""


def effort_fields(ref: ModelRef, effort: str | None) -> dict[str, Any] | None:
    """What says it in a request to this model, in its provider's words; None where nothing is to be said.

    Raises InvalidArgument for a model that is known to have no such thing, or of which nobody knows how it is told.
    """
    if effort is None:
        return None
    match ref.provider:
        case "anthropic":
            return {"output_config": {"effort": effort}}
        case "bedrock":
            return _on_bedrock(ref.model_id, effort)
        case "gemini":
            older = ref.model_id.startswith("gemini-2")
            return {"thinking_budget": _GEMINI_2_THOUGHTS[effort]} if older else {"thinking_level": effort.upper()}
        case "litellm" | "openai":
            return {"reasoning_effort": effort}
        case "llamacpp":
            raise InvalidArgument("llama.cpp takes no reasoning_effort: leave it out of the agent's model_params.")
        case "ollama":
            return {"think": effort}
        case _:  # offline, which no parameter changes
            return None


def _on_bedrock(model_id: str, effort: str) -> dict[str, Any]:
    """Converse has no field of its own for it: each maker's models read another one."""
    if "anthropic." in model_id:
        return {"output_config": {"effort": effort}}
    if "openai." in model_id:
        return {"reasoning_effort": effort}
    if "amazon.nova-2" in model_id:
        return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": effort}}
    raise InvalidArgument(
        f"It is not known how {model_id[:100]!r} is told a reasoning_effort: leave it out of the agent's model_params."
    )
