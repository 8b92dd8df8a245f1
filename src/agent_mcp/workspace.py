"""The directory in which the tools of a session run code. It confines nothing; a sandbox of the operator's would."""

from collections.abc import AsyncGenerator
from typing import Any

from strands.sandbox import ExecutionResult, StreamChunk
from strands.sandbox.not_a_sandbox_local_environment import NotASandboxLocalEnvironment


class Workspace(NotASandboxLocalEnvironment):
    """Strands' host environment, with a session's directory as the working directory."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        self._directory = directory

    async def execute_streaming(
        self,
        command: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  (Strands' signature)
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[StreamChunk | ExecutionResult, None]:
        """Runs a command as the server's user; see Strands' class."""
        async for part in super().execute_streaming(
            command, timeout=timeout, cwd=cwd or self._directory, env=env, **kwargs
        ):
            yield part
