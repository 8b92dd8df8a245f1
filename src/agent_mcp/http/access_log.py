"""One line for each request: what was called and how it ended. Never a query, a header or a body."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)
_QUIET = {"/healthz", "/metrics"}
_LONGEST = 200


class AccessLog:
    """Middleware that logs method, path, status and duration. Ids stand in paths, texts only in queries and bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _QUIET:
            await self._app(scope, receive, send)
            return
        start = time.monotonic()
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            milliseconds = (time.monotonic() - start) * 1000
            path = scope["path"] if str(scope["path"]).isprintable() else repr(scope["path"])
            logger.info("%s %s %s %.0f ms", scope["method"], path[:_LONGEST], status or "-", milliseconds)
