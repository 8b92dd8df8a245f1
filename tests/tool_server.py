"""A small MCP server for tests of those who use MCP servers. On stdio, or with an argument over HTTP on that port."""

import os
import sys
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.mcpserver import Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

server = MCPServer("kit")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def whoami() -> str:
    """Which process this is, and what it was given."""
    secret, region = os.environ.get("KIT_SECRET"), "AWS_REGION" in os.environ
    return f"pid={os.getpid()} cwd={Path.cwd()} secret={secret} region={region}"


@server.tool()
def write_note(path: str, text: str) -> str:
    """Write a file."""
    Path(path).write_text(text)
    return "written"


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def die() -> str:
    """End the server in the middle of a call."""
    os._exit(3)


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def refuse() -> str:
    """Fail as a tool does."""
    raise ToolError("not today")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def flood() -> str:
    """More text than anybody reads."""
    return "x" * 300_000


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def pictures(sizes: list[int]) -> list[Image | str]:
    """Pictures of so many bytes, and a word."""
    return [*(Image(data=b"x" * size, format="png") for size in sizes), "seen"]


@server.tool(name="a.very.long.name." + "x" * 60, annotations=ToolAnnotations(read_only_hint=True))
def long_name() -> str:
    """A name that no provider takes."""
    return "long"


if __name__ == "__main__":
    print("starting", file=sys.stderr)
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        server.run("stdio")
