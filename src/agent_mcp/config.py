"""The operator's settings, read once from an environment that is passed in."""

import os
from collections.abc import Mapping
from pathlib import Path

from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agent_mcp.domain import LONGEST_LIFE
from agent_mcp.errors import InvalidArgument

MARKER = ".agent-mcp"
PREFIX = "AGENT_MCP_"


def default_data_dir(cwd: Path) -> Path:
    """`./sessions` where it holds the marker file (a checkout of this project does), else the user's data directory."""
    local = cwd / "sessions"
    return local if (local / MARKER).is_file() else user_data_path("agent-mcp", appauthor=False)


class Settings(BaseModel):
    """What the operator decides. Each field is also the environment variable `AGENT_MCP_<NAME>` and a flag."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(description="The one directory with everything.")
    model: str = Field(default="auto", description="Model of agents that name none: provider:model_id, or auto.")
    allow_models: tuple[str, ...] = Field(
        default=(),
        description="Models that callers may name, patterns; unset: all, with authentication only the default one.",
    )
    session_ttl: int = Field(
        default=3600, ge=0, le=LONGEST_LIFE, description="Idle seconds until a session expires; 0 = never."
    )
    wait_seconds: float = Field(default=45, ge=0, description="Seconds an ask waits before it says 'working'.")
    turn_timeout: float = Field(default=900, gt=0, description="Seconds that one turn may take.")
    max_calls: int = Field(default=50, ge=1, description="Model calls that one turn may make.")
    tools: tuple[str, ...] = Field(default=(), description="Python modules with @tool functions, comma-separated.")
    turn_tokens: int = Field(default=0, ge=0, description="Tokens that one turn may use; 0 = no limit.")
    session_tokens: int = Field(default=0, ge=0, description="Tokens that one session may use; 0 = no limit.")
    allow_tools: tuple[str, ...] = Field(
        default=(),
        description="Tools beyond the safe ones, comma-separated: shell, python_repl, file_editor, http_request.",
    )
    approve: tuple[str, ...] = Field(
        default=("ask",), description="ask: a person approves each use of an allowed tool; or tools that need none."
    )
    agents_path: tuple[Path, ...] = Field(
        default=(), description=f"More directories of agent files, read only, separated by {os.pathsep!r}."
    )
    agentcore_memory_id: str | None = Field(
        default=None,
        pattern=r"^(arn:aws[a-z-]*:bedrock-agentcore:[a-z0-9-]+:[0-9]{12}:memory/)?[a-zA-Z][a-zA-Z0-9_-]{0,99}-[a-zA-Z0-9]{10}$",
        description="Memory of actors in Bedrock AgentCore rather than in the data directory; needs AWS credentials.",
    )
    sandbox: str = Field(
        default="",
        pattern=r"^(docker:[A-Za-z0-9][^\s]*|ssh:[A-Za-z0-9][^\s]*|)$",
        description="Where tools run code: docker:IMAGE or ssh:HOST; without it as the server's user, unconfined.",
    )
    files: tuple[Path, ...] = Field(
        default=(), description=f"Directories that the tool read_files may look into, separated by {os.pathsep!r}."
    )
    mcp_servers: Path | None = Field(
        default=None, description="A file of MCP servers in the mcpServers format, whose tools agents may be given."
    )
    web_domains: tuple[str, ...] = Field(
        default=("*",),
        description="Domains that web tools may reach, with what is below them, comma-separated; none = no web tools.",
    )
    tokens: Path | None = Field(
        default=None, description="A TOML file of bearer tokens for HTTP, edited by agent-mcp token."
    )
    oauth_issuer: str | None = Field(default=None, description="OAuth authorization server whose tokens are accepted.")
    oauth_audience: str | None = Field(default=None, description="Whom those tokens must be for: their aud.")
    public_url: str | None = Field(default=None, description="How the HTTP server is reached from outside.")
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Names that requests may have in Host, beside loopback and the public URL's."
    )
    allowed_origins: tuple[str, ...] = Field(
        default=(), description="Origins whose pages may call the HTTP server: https://example.com, comma-separated."
    )
    trust_platform: bool = Field(
        default=False,
        description="on (or yes): something in front authenticates; other addresses are served without tokens.",
    )
    subject_turns: int = Field(default=16, ge=1, description="Turns at once for each authenticated subject.")
    subject_rate: int = Field(default=300, ge=1, description="Requests a minute for each authenticated subject.")
    fsync: bool = Field(default=True, description="on: a reply waits until it is safe on disk.")

    @field_validator("tokens", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return Path(os.path.abspath(value.expanduser())) if value is not None else None

    @field_validator("agents_path", "files", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(os.path.abspath(os.path.expanduser(p)) for p in value.split(os.pathsep) if p.strip())
        return value

    @field_validator(
        "tools",
        "allowed_hosts",
        "allowed_origins",
        "allow_models",
        "allow_tools",
        "approve",
        "web_domains",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, cwd: Path | None = None) -> "Settings":
        """Settings from `AGENT_MCP_*`; an empty one counts as absent. Raises InvalidArgument naming the variable."""
        given: dict[str, object] = {
            field: environ[PREFIX + field.upper()] for field in cls.model_fields if environ.get(PREFIX + field.upper())
        }
        given.setdefault("data_dir", default_data_dir(cwd or Path.cwd()))
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            name = PREFIX + str(first["loc"][0]).upper()
            raise InvalidArgument(f"{name}={first['input']!r} can't be used: {first['msg']}.") from None
        return settings.model_copy(update={"data_dir": Path(os.path.abspath(settings.data_dir.expanduser()))})
