"""Which model is meant where nobody named one, or only its provider, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent_mcp.errors import NoModel
from agent_mcp.models import ollama_server
from agent_mcp.models.names import DEFAULT_MODEL_IDS, ModelRef
from agent_mcp.models.providers import PROVIDERS, aws_credentials


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a name came to, and why: for `doctor` and for errors."""

    ref: ModelRef
    why: str


def automatic(environ: Mapping[str, str]) -> Choice:
    """What `auto` comes to: the first of two keys, AWS credentials, a running Ollama. Blocking; raises NoModel.

    A key that is set decides, also where the provider's package is missing: another provider would be no less of a
    surprise than none.
    """
    for name in ("anthropic", "openai"):
        key = f"{name.upper()}_API_KEY"
        if environ.get(key):
            return Choice(ref=ModelRef(name, DEFAULT_MODEL_IDS[name]), why=f"auto: {key} is set")
    found = aws_credentials(environ)
    if found is not None:
        return Choice(ref=ModelRef("bedrock", DEFAULT_MODEL_IDS["bedrock"]), why=f"auto: {found}")
    models = ollama_server.installed(environ)
    if models:
        where = ollama_server.base_url(environ)
        return Choice(ref=ModelRef("ollama", models[0]), why=f"auto: an Ollama runs at {where}")
    idle = "" if models is None else " (the Ollama that runs has no model: ollama pull one)"
    raise NoModel(
        "No model can be used: set ANTHROPIC_API_KEY or OPENAI_API_KEY, or AWS credentials for Bedrock (AWS_PROFILE, "
        f"or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or start Ollama{idle}, or name one with "
        "AGENT_MCP_MODEL=provider:model_id. AGENT_MCP_MODEL=offline tries everything without a model. Nothing was "
        "changed."
    )


def ready(choice: Choice, environ: Mapping[str, str]) -> Choice:
    """The choice with its model's id found; raises NoModel with what is missing. Blocking."""
    ref = choice.ref
    lacking = PROVIDERS[ref.provider].lacks(environ)
    if lacking is not None:
        raise NoModel(
            f"The model {ref} ({choice.why}) can't be asked: {lacking}. Nothing was changed; do that where the server "
            "runs, or name another model with AGENT_MCP_MODEL."
        )
    if ref.provider == "ollama" and not ref.model_id:
        models = ollama_server.installed(environ)
        if not models:
            where = ollama_server.base_url(environ)
            state = f"no Ollama answers at {where}: start it" if models is None else "it has no model: ollama pull one"
            raise NoModel(f"The model {ref} ({choice.why}) can't be asked: {state}. Nothing was changed.")
        return replace(choice, ref=ModelRef("ollama", models[0]))
    return choice
