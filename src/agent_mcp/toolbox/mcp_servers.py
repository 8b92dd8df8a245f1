"""The operator's MCP servers: one connection for each, shared by all turns, made when it is first needed."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, TimeoutError as FutureTimeout
from typing import TYPE_CHECKING

from agent_mcp.late import load_strands
from agent_mcp.toolbox.server_file import ServerEntry

if TYPE_CHECKING:
    from agent_mcp.toolbox.server_link import ServerLink

MCP_PREFIX = "mcp:"
"""The tools of an MCP server: `mcp:<server>`, or one of them: `mcp:<server>/<tool>`."""
START_SECONDS = 30.0
"""How long a server may take until its tools are known."""
_AGAIN_SECONDS = 5.0
"""How long a server that could not be started is left alone at least, and as long as the attempt took: no turn after
the other has to wait for it."""
_END_SECONDS = 6.0


class Unreachable(RuntimeError):
    """A server whose tools can't be had now, and why."""


def model_name(server: str, tool: str | None = None) -> str:
    """The name by which models know a tool of a server: 64 characters of those that every provider takes."""
    whole = f"mcp__{server}__{tool}" if tool else f"mcp__{server}"
    name = re.sub(r"[^A-Za-z0-9_-]", "_", whole)
    if name == whole and len(name) <= 64:
        return name
    return f"{name[:55]}_{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


class McpServer:
    """A server of the operator and the connection to it, which is made anew once it is found dead."""

    def __init__(self, name: str, entry: ServerEntry) -> None:
        self.name = name
        self.entry = entry
        self._lock = threading.Lock()
        self._link: ServerLink | None = None
        self._attempt: Future[ServerLink] | None = None
        self._failure = ""
        self._again_at = 0.0
        self._closed = False

    @property
    def alive(self) -> ServerLink | None:
        """The connection that there is; does not wait."""
        link = self._link
        return link if link is not None and link.is_alive else None

    def link(self) -> ServerLink:
        """A connection that lives; raises Unreachable. Blocking, for little more than START_SECONDS."""
        with self._lock:
            if (link := self.alive) is not None:
                return link
            if self._closed:
                raise Unreachable("this process ends")
            if self._attempt is None:
                if time.monotonic() < self._again_at:
                    raise Unreachable(self._failure)
                self._attempt = Future()
                # A thread of its own, for what hangs must hold up nobody else; nobody waits for it at the end either.
                threading.Thread(target=self._open, args=[self._attempt, self._link], daemon=True).start()
            attempt = self._attempt
        try:
            return attempt.result(timeout=START_SECONDS + 10)
        except FutureTimeout:
            raise Unreachable(f"it did not answer within {START_SECONDS:g} seconds") from None

    def _open(self, attempt: Future[ServerLink], dead: ServerLink | None) -> None:
        load_strands()
        from agent_mcp.toolbox.server_link import ServerDown, ServerLink

        begun = time.monotonic()
        try:
            link = ServerLink(self.name, self.entry)
            link.open(seconds=START_SECONDS)
        except ServerDown as error:
            self._end_attempt(None, str(error), begun)
            attempt.set_exception(Unreachable(str(error)))
        except BaseException as error:  # the thread's top: whoever waits must hear of it
            self._end_attempt(None, type(error).__name__, begun)
            attempt.set_exception(Unreachable(type(error).__name__))
        else:
            if self._end_attempt(link, "", begun):
                attempt.set_result(link)
            else:
                link.close()
                attempt.set_exception(Unreachable("this process ends"))
        if dead is not None:
            dead.close()

    def _end_attempt(self, link: ServerLink | None, failure: str, begun: float) -> bool:
        now = time.monotonic()
        with self._lock:
            self._attempt = None
            self._link = None if self._closed else link
            self._failure, self._again_at = failure, now + max(_AGAIN_SECONDS, now - begun) if failure else 0.0
            return not self._closed

    def close(self) -> threading.Thread | None:
        """Begins to end the connection, and the server's process; the thread that does it."""
        with self._lock:
            self._closed = True
            link, self._link = self._link, None
        if link is None:
            return None
        thread = threading.Thread(target=link.close, daemon=True)
        thread.start()
        return thread


class McpServers:
    """All servers of the operator, by name."""

    def __init__(self, entries: Mapping[str, ServerEntry]) -> None:
        self._servers = {name: McpServer(name, entry) for name, entry in entries.items()}

    def names(self, subject: str) -> list[str]:
        """The servers that a subject may use, as agents name them."""
        return [f"{MCP_PREFIX}{name}" for name, server in self._servers.items() if server.entry.serves(subject)]

    def entries(self) -> Mapping[str, ServerEntry]:
        return {name: server.entry for name, server in self._servers.items()}

    def find(self, name: str, subject: str | None) -> tuple[McpServer, str | None] | None:
        """The server, and the tool if it is only one, that a name means; None: there is none (for this subject)."""
        server_name, slash, tool = name.removeprefix(MCP_PREFIX).partition("/")
        server = self._servers.get(server_name)
        if server is None or (slash and not tool) or not (subject is None or server.entry.serves(subject)):
            return None
        return server, tool or None

    def missing(self, name: str, subject: str) -> list[str] | None:
        """The tools that a server has, where the one that is named is none of them; None: it is, or nobody can tell.

        Blocking: connects to the server.
        """
        found = self.find(name, subject)
        if found is None or found[1] is None:
            return None
        try:
            tools = found[0].link().tools
        except Unreachable:
            return None
        return None if found[1] in tools else [f"{MCP_PREFIX}{found[0].name}/{tool}" for tool in sorted(tools)]

    def close(self) -> None:
        """Ends the connections and the processes behind them. Blocking, for some seconds at most."""
        until = time.monotonic() + _END_SECONDS
        for thread in [server.close() for server in self._servers.values()]:
            if thread is not None:
                thread.join(timeout=max(0.0, until - time.monotonic()))
