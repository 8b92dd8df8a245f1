"""Where tools run code: a session's folder on this machine, a container, or another machine."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shlex
import subprocess
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from strands.sandbox import ExecutionResult, FileInfo, PosixShellSandbox, StreamChunk
from strands.sandbox.not_a_sandbox_local_environment import NotASandboxLocalEnvironment
from strands.sandbox.ssh import SshSandbox
from strands.types.tools import AgentTool

_INSIDE = "/workspace"
_MEMORY = "1g"
_PROCESSES = "256"


def sandbox_for(setting: str, *, workspace: str, session: str) -> Workspace | Container | Remote:
    """The sandbox of one session: by AGENT_MCP_SANDBOX, or, where that is empty, its folder `workspace`.

    `session` names it among the sessions of all subjects.
    """
    kind, _, what = setting.partition(":")
    if kind == "docker":
        return Container(what, workspace=workspace)
    if kind == "ssh":
        return Remote(what, folder=f"agent-mcp-workspaces/{hashlib.sha256(session.encode()).hexdigest()[:32]}")
    return Workspace(workspace)


class Workspace(NotASandboxLocalEnvironment):
    """Strands' host environment, with a session's directory as the working directory. It confines nothing."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        self._directory = self.place = directory

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

    async def read_file(self, path: str, **kwargs: Any) -> bytes:
        return await super().read_file(self._place(path), **kwargs)

    async def write_file(self, path: str, content: bytes, **kwargs: Any) -> None:
        await super().write_file(self._place(path), content, **kwargs)

    async def remove_file(self, path: str, **kwargs: Any) -> None:
        await super().remove_file(self._place(path), **kwargs)

    async def list_files(self, path: str, **kwargs: Any) -> list[FileInfo]:
        return await super().list_files(self._place(path), **kwargs)

    def _place(self, path: str) -> str:
        """A path as the commands of this session understand it."""
        return path if os.path.isabs(path) else os.path.join(self._directory, path)


class Container(PosixShellSandbox):
    """A fresh container for each command, with the session's folder as all that it keeps and no network.

    A container that ends with its command leaves nothing behind that somebody would have to tidy up, whatever becomes
    of this process.
    """

    def __init__(self, image: str, *, workspace: str) -> None:
        self.place = _INSIDE
        self._image = image
        self._workspace = workspace
        self._host = NotASandboxLocalEnvironment()

    async def execute_streaming(
        self,
        command: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  (Strands' signature)
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[StreamChunk | ExecutionResult, None]:
        """Runs a command by `docker run`; see Strands' class."""
        name = f"agent-mcp-{uuid.uuid4().hex}"
        line = shlex.join(self.command_line(command, name=name, cwd=cwd, env=env or {}))
        done = False
        try:
            async for part in self._host.execute_streaming(line, timeout=timeout, cwd=self._workspace, **kwargs):
                done = done or isinstance(part, ExecutionResult)
                yield part
        finally:
            if not done:  # Killing the client does not end the container.
                await asyncio.shield(asyncio.to_thread(_remove, name))

    def command_line(self, command: str, *, name: str, cwd: str | None, env: dict[str, str]) -> list[str]:
        """What is run on this machine. The folder is mounted; of everything else the container has its own."""
        limits = ["--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        limits += [f"--memory={_MEMORY}", f"--pids-limit={_PROCESSES}"]
        user = [f"--user={os.getuid()}:{os.getgid()}"] if hasattr(os, "getuid") else []
        mount = [f"--mount=type=bind,source={self._workspace},target={_INSIDE}"]
        mount += ["-w", cwd or _INSIDE, "-e", f"HOME={_INSIDE}"]
        given = [part for key, value in env.items() for part in ("-e", f"{key}={value}")]
        return [
            *("docker", "run", "--rm", "--init", "--name", name, *limits, *user, *mount, *given),
            *("--", self._image, "sh", "-c", command),
        ]


class Remote(SshSandbox):
    """Strands' sandbox on another machine, with a folder for each session, made when it is first needed.

    The sessions share the remote user, who can read and write all of these folders.
    """

    def __init__(self, host: str, *, folder: str) -> None:
        super().__init__(host, working_dir=".")
        self.place = ""  # below the home of a user whom only that machine knows
        self._folder = folder

    async def execute_streaming(
        self,
        command: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  (Strands' signature)
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[StreamChunk | ExecutionResult, None]:
        """Runs a command over ssh; see Strands' class."""
        async for part in super().execute_streaming(
            self.remote_line(command, cwd=cwd), timeout=timeout, env=env, **kwargs
        ):
            yield part

    def remote_line(self, command: str, *, cwd: str | None) -> str:
        """A line that goes to the folder, and no further where there is none."""
        folder = shlex.quote(self._folder)
        further = f"cd {shlex.quote(cwd)} || exit 1\n" if cwd else ""
        return f"mkdir -p {folder} && cd {folder} || exit 1\n{further}{command}"

    def get_tools(self) -> list[AgentTool]:
        """None: what runs code is what the operator allowed by name, and a person approves."""
        return []


def _remove(name: str) -> None:
    subprocess.run(["docker", "rm", "-f", name], check=False, capture_output=True, timeout=30)
