"""Vectors of what texts mean, where the extra `embeddings` is installed: its package carries a small model."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from agent_mcp.memory.ranking import Vectors


def vectors_if_installed() -> Vectors | None:
    """The vectors, made at the first use; None where the package is not there. Nothing is ever downloaded."""
    return _vectors if importlib.util.find_spec("wordllama") else None


def _vectors(texts: Sequence[str]) -> Sequence[Sequence[float]]:
    return _model().embed(list(texts), norm=True).tolist()


@functools.cache
def _model() -> Any:
    # Imported late: it takes a third of a second, and only memories that are searched need it.
    package = importlib.import_module("wordllama")
    # Both files lie in the package, but it looks for one of them beside it: as a cache it finds both.
    directory = os.path.dirname(str(package.__file__))
    return package.WordLlama.load(cache_dir=directory, disable_download=True)
