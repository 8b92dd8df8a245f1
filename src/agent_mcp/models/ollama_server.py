"""Whether an Ollama runs, and what is installed in it. Blocking, for no longer than a moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

_SECONDS = 0.5
_PORT = 11434
_ANY_ADDRESS = ("0.0.0.0", "[::]", "::")
_NO_CHAT = ("bert", "clip")
"""Families of models that make embeddings."""


def base_url(environ: Mapping[str, str]) -> str:
    """Where Ollama listens: OLLAMA_HOST as Ollama itself reads it, else this machine."""
    host = environ.get("OLLAMA_HOST", "").strip().rstrip("/") or "127.0.0.1"
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest = "http", host
    address, slash, path = rest.partition("/")
    name, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        name, port = (
            address,
            str({"http": 80, "https": 443}[scheme] if separator and scheme in ("http", "https") else _PORT),
        )
    if name in _ANY_ADDRESS or not name:
        name = "127.0.0.1"  # what a server listens on is nothing to connect to
    return f"{scheme}://{name}:{port}{slash}{path}"


def installed(environ: Mapping[str, str]) -> list[str] | None:
    """The models that can chat, the most recently changed first; None where no Ollama answers."""
    import httpx

    try:
        with httpx.Client(trust_env=False, timeout=_SECONDS) as client:
            listed: Any = client.get(f"{base_url(environ)}/api/tags").raise_for_status().json()
        models = cast("list[dict[str, Any]]", listed["models"])
        return [str(model["name"]) for model in models if not _makes_embeddings(model)]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return None


def _makes_embeddings(model: Mapping[str, Any]) -> bool:
    details = cast("dict[str, Any]", model.get("details") or {})
    family = str(details.get("family") or "")
    return any(word in family for word in _NO_CHAT)
