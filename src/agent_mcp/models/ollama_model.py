"""Strands' Ollama model, told an answer that broke off from one that ended."""

from typing import Any

from strands.models.ollama import OllamaModel
from strands.types.streaming import StreamEvent

from agent_mcp.models.guarded import BrokenOff


class WholeOllamaModel(OllamaModel):
    """Raises BrokenOff where the last chunk of an answer does not say that it is the last."""

    def format_chunk(self, event: dict[str, Any]) -> StreamEvent:
        if event["chunk_type"] == "metadata" and not event["data"].done:
            raise BrokenOff("it ended without its end")
        return super().format_chunk(event)
