"""LiteLLM, kept from what it does by itself: fetching its table of prices, and printing advice."""

import os

# It is read while the package is imported, which would wait for the network.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import litellm
from strands.models.litellm import LiteLLMModel

litellm.suppress_debug_info = True  # it goes to stdout, which is the protocol's

__all__ = ["LiteLLMModel"]
