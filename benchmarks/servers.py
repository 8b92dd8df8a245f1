"""The two servers that are compared, as processes with a real client each."""

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from mcp import StdioServerParameters
from mcp.client import Client


@asynccontextmanager
async def connected(*command: str, data_dir: Path) -> AsyncGenerator[Client]:
    """A client of `python -m COMMAND` on stdio."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AGENT_MCP_", "AWS_"))}
    env = {**kept, "AGENT_MCP_DATA_DIR": str(data_dir), "AGENT_MCP_MODEL": "offline", "AGENT_MCP_SESSION_TTL": "0"}
    server = StdioServerParameters(command=sys.executable, args=["-m", *command], env=env)
    async with Client(server, read_timeout_seconds=120) as client:
        yield client


def ours(data_dir: Path) -> tuple[str, ...]:
    return ("agent_mcp", "serve")


def bare(data_dir: Path) -> tuple[str, ...]:
    data_dir.mkdir(parents=True, exist_ok=True)
    return ("benchmarks.bare_server", str(data_dir))
