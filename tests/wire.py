"""A client of JSON-RPC alone, of any revision of the protocol, to a server in the test's own process or over HTTP.

What a client library hides can be seen here: capabilities, notifications, and results as they are sent.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server
from mcp.shared.inbound import NAME_BEARING_METHODS, encode_header_value
from mcp.shared.memory import create_client_server_memory_streams
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    PROTOCOL_VERSION_META_KEY,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)

DEADLINE = 150.0
MODERN = "2026-07-28"
REVISIONS = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", MODERN]
_INFO = {"name": "wire", "version": "1"}

Answer = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Answers a request of the server: its method and parameters."""


class Refused(Exception):
    """The server answered with an error of the protocol."""

    def __init__(self, code: int, message: str, data: Any) -> None:
        super().__init__(code, message, data)
        self.code, self.message, self.data = code, message, data


class Wire:
    """One connection. `told` are the notifications that came, as (method, parameters)."""

    def __init__(self, revision: str, capabilities: Mapping[str, Any], streams: Any, answer: Answer | None) -> None:
        self.revision = revision
        self.capabilities = dict(capabilities)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.initialized: dict[str, Any] = {}
        self._incoming, self._outgoing = streams
        self._answer = answer
        self._waiting: dict[Any, asyncio.Future[dict[str, Any]]] = {}
        self._news = asyncio.Event()
        self._number = 0

    async def start(self, method: str, params: Mapping[str, Any] | None = None) -> tuple[int, asyncio.Future[Any]]:
        """Sends a request, and returns its id and its answer, which is still to come."""
        self._number += 1
        number, body = self._number, dict(params or {})
        if self.revision == MODERN:
            body["_meta"] = {
                PROTOCOL_VERSION_META_KEY: MODERN,
                CLIENT_INFO_META_KEY: _INFO,
                CLIENT_CAPABILITIES_META_KEY: self.capabilities,
                **body.get("_meta", {}),
            }
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # a stream is often just left
        self._waiting[number] = answer
        message = JSONRPCRequest(jsonrpc="2.0", id=number, method=method, params=body)
        await self._outgoing.send(SessionMessage(message, metadata=self._stamp(method, body)))
        return number, answer

    def _stamp(self, method: str, body: Mapping[str, Any]) -> ClientMessageMetadata | None:
        """The headers that HTTP wants; other transports have none."""
        if method == "initialize":
            return None
        headers = {"mcp-protocol-version": self.revision}
        if self.revision == MODERN:
            headers["mcp-method"] = method
            name = body.get(NAME_BEARING_METHODS.get(method, ""))
            headers |= {"mcp-name": encode_header_value(name)} if isinstance(name, str) else {}
        return ClientMessageMetadata(headers=headers)

    async def shake_hands(self) -> None:
        """Where the revision has a handshake."""
        if self.revision != MODERN:
            hello = {"protocolVersion": self.revision, "capabilities": self.capabilities, "clientInfo": _INFO}
            self.initialized = await self.request("initialize", hello)
            await self.notify("notifications/initialized")

    async def request(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Sends a request and returns its result; raises Refused."""
        async with asyncio.timeout(DEADLINE):
            return await (await self.start(method, params))[1]

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The result of a tool, as it is sent."""
        return await self.request("tools/call", {"name": tool, "arguments": arguments})

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        message = JSONRPCNotification(jsonrpc="2.0", method=method, params=dict(params) if params else None)
        await self._outgoing.send(SessionMessage(message, metadata=self._stamp(method, params or {})))

    async def until(self, is_there: Callable[[], bool], *, seconds: float = DEADLINE) -> None:
        """Waits until something holds; looks at each message that comes. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not is_there():
                self._news.clear()
                await self._news.wait()

    async def listen(self) -> None:
        async for item in self._incoming:
            if isinstance(item, Exception):
                raise item
            message = item.message
            match message:
                case JSONRPCResponse():
                    self._waiting.pop(message.id).set_result(message.result)
                case JSONRPCError():
                    error = message.error
                    self._waiting.pop(message.id).set_exception(Refused(error.code, error.message, error.data))
                case JSONRPCRequest():
                    asyncio.get_running_loop().create_task(self._respond(message))
                case _:
                    self.told.append((message.method, message.params or {}))
            self._news.set()

    async def _respond(self, request: JSONRPCRequest) -> None:
        assert self._answer is not None, f"the server asked for {request.method}"
        result = await self._answer(request.method, request.params or {})
        await self._outgoing.send(SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=request.id, result=result)))


@asynccontextmanager
async def wire(
    server: Server[Any],
    revision: str = MODERN,
    *,
    capabilities: Mapping[str, Any] | None = None,
    answer: Answer | None = None,
) -> AsyncGenerator[Wire]:
    """Connects to a server, and shakes hands."""
    async with create_client_server_memory_streams() as (client, (incoming, outgoing)):
        wired = Wire(revision, capabilities or {}, client, answer)
        serving = asyncio.create_task(server.run(incoming, outgoing, server.create_initialization_options()))
        listening = asyncio.create_task(wired.listen())
        try:
            await wired.shake_hands()
            yield wired
        finally:
            await client[1].aclose()
            await asyncio.wait({serving}, timeout=DEADLINE)
            listening.cancel()
            serving.cancel()
            await asyncio.gather(serving, listening, return_exceptions=True)


@asynccontextmanager
async def wire_over_http(
    url: str, revision: str, headers: Mapping[str, str], *, capabilities: Mapping[str, Any] | None = None
) -> AsyncGenerator[Wire]:
    """Connects to the MCP door of a server with these headers, and shakes hands."""
    async with (
        httpx2.AsyncClient(headers=dict(headers), timeout=DEADLINE, trust_env=False) as http,
        streamable_http_client(url, http_client=http) as streams,
    ):
        wired = Wire(revision, capabilities or {}, streams, None)
        listening = asyncio.create_task(wired.listen())
        try:
            await wired.shake_hands()
            yield wired
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
