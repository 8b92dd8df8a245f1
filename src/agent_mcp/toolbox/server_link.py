"""One connection to an MCP server: opened within a time that holds, and known to be dead when it is."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import anyio
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import (
    create_mcp_http_client,  # pyright: ignore[reportPrivateImportUsage] beside the function that takes it
    streamable_http_client,
)
from strands.tools.mcp import MCPClient
from strands.tools.mcp.mcp_agent_tool import MCPAgentTool
from strands.types.tools import ToolResult

from agent_mcp.toolbox.server_file import ServerEntry, home

logger = logging.getLogger(__name__)

_MOST_TOOLS = 1000
_NEVER = 24 * 3600
"""Strands' own bound, which does not hold for a server that starts and says nothing. Ours is in front of it."""
_PROBE_SECONDS = 10.0


class ServerDown(RuntimeError):
    """A server that can't be reached, and why."""


class ServerLink:
    """A connection by Strands' MCPClient, with a watch on its transport."""

    def __init__(self, name: str, entry: ServerEntry) -> None:
        self.name = name
        self._entry = entry
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._given_up = ""
        self._dead = threading.Event()
        self._tools: dict[str, MCPAgentTool] = {}
        self._client = MCPClient(
            self._watched,
            startup_timeout=_NEVER,
            application_name="agent-mcp",
            on_tools_changed=lambda _, tools: self._take(tools),
        )

    @property
    def is_alive(self) -> bool:
        return not self._dead.is_set()

    @property
    def tools(self) -> dict[str, MCPAgentTool]:
        """The server's tools by their own names."""
        return self._tools

    def open(self, *, seconds: float) -> None:
        """Connects and lists the tools; raises ServerDown. Blocking, for little more than `seconds`."""
        bound = threading.Timer(seconds, self._give_up, [f"it did not answer within {seconds:g} seconds"])
        bound.daemon = True
        bound.start()
        try:
            self._client.start()
            self._take(self._list())
        except Exception as error:  # of the transport, the protocol, the server's own making
            self._dead.set()
            reason = self._given_up or _root(error)
            self.close()
            raise ServerDown(reason) from error
        finally:
            bound.cancel()

    async def call(self, tool: str, arguments: Any, *, use_id: str, seconds: float) -> ToolResult:
        """Uses a tool. A failure is a result with the status error. To be awaited on the agents' loop."""
        result = await self._client.call_tool_async(
            use_id, tool, arguments, read_timeout_seconds=timedelta(seconds=seconds)
        )
        if result["status"] == "error" and "isError" not in result:
            await self._probe()  # No answer of the tool's own: does the server still live?
        return result

    def close(self) -> None:
        """Ends the connection, and the server's process if it is ours. Blocking, for some seconds at most."""
        self._dead.set()
        try:
            self._client.stop(None, None, None)
        except Exception:  # it is over, however it went
            logger.info("the connection to the MCP server %s ended with an error", self.name, exc_info=True)

    async def _probe(self) -> None:
        if not self.is_alive:
            return
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await asyncio.to_thread(self._client.list_tools_sync)
        except Exception:  # whatever it is, the server does not serve
            self._dead.set()

    def _list(self) -> list[MCPAgentTool]:
        found: list[MCPAgentTool] = []
        page = self._client.list_tools_sync()
        found += page
        while page.pagination_token is not None and len(found) < _MOST_TOOLS:
            page = self._client.list_tools_sync(page.pagination_token)
            found += page
        return found[:_MOST_TOOLS]

    def _take(self, tools: Sequence[Any]) -> None:
        self._tools = {tool.mcp_tool.name: tool for tool in tools}

    def _give_up(self, reason: str) -> None:
        self._given_up = reason
        if self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)

    @asynccontextmanager
    async def _watched(self) -> AsyncGenerator[tuple[Any, Any]]:
        """The transport, in Strands' thread for it. What comes in is passed on, so that its end is seen here first."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        outlet, inlet = anyio.create_memory_object_stream[Any](0)

        async def pass_on(read: Any) -> None:
            async with outlet:
                try:
                    async for message in read:
                        await outlet.send(message)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    pass  # nobody listens any more
                finally:
                    self._dead.set()

        try:
            async with outlet, inlet, self._transport() as (read, write, *_), anyio.create_task_group() as tasks:
                tasks.start_soon(pass_on, read)
                try:
                    yield inlet, write
                finally:
                    tasks.cancel_scope.cancel()
        except asyncio.CancelledError:
            if not self._given_up:
                raise
            raise ServerDown(self._given_up) from None  # the thread ends as after any failure

    def _transport(self) -> AbstractAsyncContextManager[Any]:
        entry = self._entry
        if entry.command is not None:
            return stdio_client(
                StdioServerParameters(
                    command=home(entry.command) or "", args=list(entry.args), env=dict(entry.env), cwd=home(entry.cwd)
                )
            )
        if entry.type == "sse":
            return sse_client(entry.url or "", headers=dict(entry.headers))
        return self._http()

    @asynccontextmanager
    async def _http(self) -> AsyncGenerator[Any]:
        async with (
            create_mcp_http_client(headers=dict(self._entry.headers)) as client,
            streamable_http_client(self._entry.url or "", http_client=client) as streams,
        ):
            yield streams


def _root(error: BaseException) -> str:
    """What went wrong at the bottom of it, on one line."""
    while True:
        within = cast("tuple[BaseException, ...]", getattr(error, "exceptions", ()))  # of a group
        below = within[0] if within else error.__cause__
        if below is None:
            return " ".join(str(error).split())[:300] or type(error).__name__
        error = below
