"""Strands' Bedrock model, with one thing mended: an answer whose stream ends too early is no answer."""

from collections.abc import AsyncGenerator
from typing import Any

from strands.models.bedrock import BedrockModel
from strands.types.streaming import StreamEvent

from agent_mcp.errors import ModelFailed


class WholeBedrockModel(BedrockModel):
    """Raises ModelFailed where the stream ends without a messageStop, which Strands takes for the end of a turn."""

    async def stream(self, *args: Any, **kwargs: Any) -> AsyncGenerator[StreamEvent, None]:
        whole = False
        async for event in super().stream(*args, **kwargs):
            whole = whole or "messageStop" in event
            yield event
        cancelled = kwargs.get("cancel_signal")
        if not whole and not (cancelled and cancelled.is_set()):
            raise ModelFailed("The model's answer broke off before its end. The session is usable: ask again.")
