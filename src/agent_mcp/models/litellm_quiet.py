"""LiteLLM, kept from what it does by itself: fetching its table of prices, printing advice, ending broken answers."""

import os
from collections.abc import AsyncGenerator
from typing import Any

# It is read while the package is imported, which would wait for the network.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import litellm
from strands.models.litellm import LiteLLMModel

from agent_mcp.models.guarded import BrokenOff

__all__ = ["LiteLLMModel", "OwnConnections"]

litellm.suppress_debug_info = True  # it goes to stdout, which is the protocol's
litellm.disable_aiohttp_transport = True  # whose sessions nobody could close
_library: Any = litellm
_completion: Any = litellm.acompletion


class OwnConnections:
    """What LiteLLM opens, keeps for all turns of a loop, and closes at the end of a process only, without that loop."""

    async def aclose(self) -> None:
        await _library.close_litellm_async_clients()
        _library.in_memory_llm_clients_cache.flush_cache()


async def _whole_completion(*args: Any, **kwargs: Any) -> Any:
    answer: Any = await _completion(*args, **kwargs)
    return _whole(answer) if hasattr(answer, "received_finish_reason") else answer


async def _whole(answer: Any) -> AsyncGenerator[Any, None]:
    """LiteLLM makes up a reason where an answer ends without one; only its own stream knows that none had come."""
    async for chunk in answer:
        made_up = answer.received_finish_reason is None and answer.intermittent_finish_reason is None
        if made_up and chunk.choices and chunk.choices[0].finish_reason:
            raise BrokenOff("it ended without its end")
        yield chunk


# Strands calls the package's function by its name, and offers no other place to stand in.
litellm.acompletion = _whole_completion
