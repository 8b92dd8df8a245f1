"""Strands' Ollama model, told an answer that broke off from one that ended, and numbers that are left out."""

from typing import Any

from strands.models.ollama import OllamaModel
from strands.types.streaming import StreamEvent

from agent_mcp.models.guarded import BrokenOff


class WholeOllamaModel(OllamaModel):
    """Raises BrokenOff where the last chunk of an answer does not say that it is the last."""

    def format_chunk(self, event: dict[str, Any]) -> StreamEvent:
        if event["chunk_type"] == "metadata":
            end = event["data"]
            if not end.done:
                raise BrokenOff("it ended without its end")
            # What it has in its cache it may leave out, and Strands would add up numbers that are not there.
            end.prompt_eval_count = end.prompt_eval_count or 0
            end.eval_count = end.eval_count or 0
            end.total_duration = end.total_duration or 0
        return super().format_chunk(event)
