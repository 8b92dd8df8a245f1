"""What each provider needs before it can be asked: its package, and a key or an address."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

from agent_mcp.models import ollama_server
from agent_mcp.models.names import DEFAULT_MODEL_IDS

AWS_VARIABLES = (
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


@dataclass(frozen=True, kw_only=True)
class Provider:
    """`module` is what its package is imported as ("" = comes with agent-mcp), `keys` are variables of which one must
    be set, `instead` variables that make a key needless."""

    name: str
    module: str = ""
    keys: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()

    @property
    def is_installed(self) -> bool:
        try:
            return not self.module or importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:  # of the package that it would be a part of
            return False

    def lacks(self, environ: Mapping[str, str]) -> str | None:
        """What is missing, with what to do about it; None where nothing is known to be."""
        if not self.is_installed:
            # Strands' extra, which is all that ours asks for; the name agent-mcp on the index is another project's.
            return f"the package for {self.name} is not installed: pip install 'strands-agents[{self.name}]'"
        if self.keys and self.key(environ) is None and not any(environ.get(name) for name in self.instead):
            return f"{' or '.join(self.keys)} is not set"
        return None

    def key(self, environ: Mapping[str, str]) -> str | None:
        """The variable that its key is taken from."""
        return next((name for name in self.keys if environ.get(name)), None)


PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(name="anthropic", module="anthropic", keys=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")),
        Provider(name="openai", module="openai", keys=("OPENAI_API_KEY",), instead=("OPENAI_BASE_URL",)),
        Provider(name="bedrock"),
        Provider(name="ollama", module="ollama"),
        Provider(name="gemini", module="google.genai", keys=("GEMINI_API_KEY", "GOOGLE_API_KEY")),
        Provider(name="litellm", module="litellm"),
        Provider(name="llamacpp"),
        Provider(name="offline"),
    )
}
assert PROVIDERS.keys() == DEFAULT_MODEL_IDS.keys()


def aws_credentials(environ: Mapping[str, str]) -> str | None:
    """Where AWS credentials are found, without asking the network; None if nowhere. Blocking."""
    for variable in AWS_VARIABLES:
        if environ.get(variable):
            return f"{variable} is set"
    import botocore.session

    if "default" in botocore.session.Session().available_profiles:
        return "the AWS configuration has a default profile"
    return None


@dataclass(frozen=True)
class Surveyed:
    """Whether a provider could be asked, as far as can be told without asking it, and why or why not."""

    name: str
    is_ready: bool
    why: str


def survey(environ: Mapping[str, str]) -> list[Surveyed]:
    """Each provider as it is here. Blocking."""
    return [_surveyed(provider, environ) for provider in PROVIDERS.values()]


def _surveyed(provider: Provider, environ: Mapping[str, str]) -> Surveyed:
    lacking = provider.lacks(environ)
    is_ready, why = (False, lacking) if lacking is not None else _state(provider, environ)
    return Surveyed(provider.name, is_ready, why)


def _state(provider: Provider, environ: Mapping[str, str]) -> tuple[bool, str]:
    match provider.name:
        case "bedrock":
            found = aws_credentials(environ)
            return found is not None, found or "no AWS credentials are set (an instance's role is not looked for)"
        case "ollama":
            there, where = ollama_server.installed(environ), ollama_server.base_url(environ)
            if there is None:
                return False, f"nothing answers at {where}"
            return True, f"{len(there)} models at {where}"
        case "litellm":
            return True, "is installed; each service that it asks wants a key of its own"
        case "llamacpp":
            return True, f"asks {llamacpp_url(environ)}"
        case "offline":
            return True, "is always there"
        case _:
            key = provider.key(environ) or next(name for name in provider.instead if environ.get(name))
            return True, f"{key} is set"


def llamacpp_url(environ: Mapping[str, str]) -> str:
    """Where llama.cpp's server listens: its own default, unless LLAMACPP_BASE_URL says otherwise."""
    return environ.get("LLAMACPP_BASE_URL") or "http://localhost:8080"
