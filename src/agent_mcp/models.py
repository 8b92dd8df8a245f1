"""Models by name: "provider:model_id" to a Strands model, and which one is meant where nobody named one."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_mcp.errors import InvalidArgument, NoModel
from agent_mcp.late import load_strands

if TYPE_CHECKING:
    import boto3
    from strands.models.model import Model

DEFAULT_MODEL_IDS = {"bedrock": "global.anthropic.claude-sonnet-4-6", "offline": "basic"}
"""The model id of a provider that is named alone. Bedrock's is Strands' own default."""

AUTO = "auto"
# An id of Bedrock: vendor.model with an optional region in front and version behind, or an ARN.
_BEDROCK_ID = re.compile(r"(?:[a-z-]+\.)?[a-z0-9-]+\.[a-z0-9][\w.-]*(?::\d+)*(?::\d+k)?|arn:aws[\w-]*:bedrock:\S+")
_AWS_VARIABLES = (
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


@dataclass(frozen=True)
class ModelRef:
    """One model: its provider and the provider's id for it. `str(ref)` is the name that callers use."""

    provider: str
    model_id: str

    def __str__(self) -> str:
        return f"{self.provider}:{self.model_id}"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a name came to, and why: for `doctor` and for errors."""

    ref: ModelRef
    why: str


def parse_model(name: str) -> ModelRef:
    """The model that a name means (`auto` excepted); raises InvalidArgument."""
    provider, colon, model_id = name.partition(":")
    if provider in DEFAULT_MODEL_IDS:
        if colon and not model_id:
            raise InvalidArgument(
                f"The model {name!r} lacks its id behind the colon: use {provider!r} for the default."
            )
        return ModelRef(provider, model_id or DEFAULT_MODEL_IDS[provider])
    if _BEDROCK_ID.fullmatch(name):
        return ModelRef("bedrock", name)
    raise InvalidArgument(
        f"{name[:100]!r} is no model: use provider:model_id with one of {', '.join(sorted(DEFAULT_MODEL_IDS))}, "
        "or a model id of Bedrock."
    )


class Models:
    """Finds and builds models. `default` is the operator's setting, `environ` where credentials are looked for."""

    def __init__(self, *, default: str, environ: Mapping[str, str]) -> None:
        self._default = default
        self._environ = environ
        self._built: dict[ModelRef, Model] = {}
        self._lock = threading.Lock()

    def choose(self, name: str | None) -> Choice:
        """The model for an agent that names `name`, or none. No network; raises NoModel, InvalidArgument."""
        if name is not None and name != AUTO:
            return Choice(ref=parse_model(name), why="the agent names it")
        if self._default != AUTO:
            try:
                return Choice(ref=parse_model(self._default), why="AGENT_MCP_MODEL names it")
            except InvalidArgument as error:
                raise NoModel(f"AGENT_MCP_MODEL can't be used: {error.message}") from None
        found = self._aws()
        if found is None:
            raise NoModel(
                "No model can be used: set AWS credentials (AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY) for Bedrock, or AGENT_MCP_MODEL=provider:model_id. AGENT_MCP_MODEL=offline "
                "tries everything without a model. Nothing was changed."
            )
        return Choice(ref=ModelRef("bedrock", DEFAULT_MODEL_IDS["bedrock"]), why=found)

    def build(self, ref: ModelRef) -> Model:
        """The Strands model, the same object for the same name, so that connections are shared. Blocking.

        Raises InvalidArgument for an id that the provider is known not to have.
        """
        with self._lock:
            if ref not in self._built:
                self._built[ref] = _BUILDERS[ref.provider](ref.model_id)
            return self._built[ref]

    def _aws(self) -> str | None:
        for variable in _AWS_VARIABLES:
            if self._environ.get(variable):
                return f"auto: {variable} is set"
        import botocore.session

        if "default" in botocore.session.Session().available_profiles:
            return "auto: the AWS configuration has a default profile"
        return None


@functools.cache
def _aws_session() -> boto3.Session:
    """One for all models: each new one reads AWS's service descriptions again, for 0.1 s."""
    import boto3

    return boto3.Session()


def _bedrock(model_id: str) -> Model:
    load_strands()
    from agent_mcp.bedrock import WholeBedrockModel

    return WholeBedrockModel(model_id=model_id, boto_session=_aws_session())


def _offline(model_id: str) -> Model:
    load_strands()
    from agent_mcp.offline import OfflineModel

    try:
        return OfflineModel(model_id)
    except ValueError as error:
        raise InvalidArgument(str(error)) from None


_BUILDERS = {"bedrock": _bedrock, "offline": _offline}
