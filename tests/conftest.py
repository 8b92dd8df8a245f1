"""What tests share: a data directory, and real MCP clients of real servers on stdio."""

import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from mcp_types import CallToolResult, TextContent

ERAS = ["legacy", "2026-07-28"]
"""The two generations of the protocol, as `Client(mode=...)` names them."""


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def server_environment(data_dir: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a server under test: nothing of the machine's AWS or agent-mcp settings gets in."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "AGENT_MCP_"))}
    return kept | {"AGENT_MCP_DATA_DIR": str(data_dir), "AGENT_MCP_MODEL": "offline"} | dict(env or {})


@asynccontextmanager
async def connect(
    data_dir: Path, *, env: Mapping[str, str] | None = None, mode: str = "auto", **client: Any
) -> AsyncGenerator[Client]:
    """Starts `agent-mcp serve` on `data_dir` and connects a real client to it."""
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "agent_mcp", "serve"], env=server_environment(data_dir, env)
    )
    async with Client(server, mode=mode, read_timeout_seconds=60, **client) as connected:
        yield connected


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Calls a tool that must succeed, and returns its structured result."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text_of(result)
    assert result.structured_content is not None
    return result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """Calls a tool that must fail, and returns the error's text."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.structured_content
    return text_of(result)


def text_of(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))
