"""Looks on as a process writes to its data directory, and at a chosen write tells, waits, or has the system refuse it.

Installed in a server process before it serves. It stands where Python calls the system: `os.open`, `os.fsync`, ... and
the raw writes of files. Locks and the catalog don't count: their number depends on time, and they hold nothing.
"""

import errno
import io
import json
import os
import resource
import socket
import threading
from collections.abc import Callable
from typing import Any, cast

OBEYS = "PROOF_OBEYS"
"""Set in the environment of a server that is to be refused what a directory's mode forbids, also where root runs it."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_NEED_SPACE = ("create", "write", "fsync", "mkdir", "link", "replace", "rename")
"""What a full disk refuses: it still lets go of files."""
_Function = Callable[..., Any]


class Spy:
    """Counts the operations below `root` since the last plan, and does at the planned one what is planned.

    A plan: `pause` (number of the operation to wait at, half of it done where it is a write, but for `whole`), `fail`
    (the same, to be refused), `until` (the last one to be refused; without it just the one), `errno` (by name),
    `blind` (nothing is counted: what was done is kept until the next plan, and grows). Over `control` come the plans,
    one JSON object a line.
    """

    def __init__(self, root: str, control: socket.socket) -> None:
        self._root = os.path.realpath(root)
        self._control = control
        self._mutex = threading.Lock()
        self._go = threading.Event()
        self._plan: dict[str, Any] = {}
        self._done: list[tuple[str, str]] = []
        self._watched = ""
        self._files = resource.getrlimit(resource.RLIMIT_NOFILE)

    def install(self) -> None:
        opened, fsync = os.open, os.fsync

        def spied_open(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if self._watched and self._watched in str(path):
                self._watched = ""
                self._tell({"watched": os.path.basename(str(path))})
            if flags & _WRITES:
                self._at("create", path, kwargs.get("dir_fd"))
            return opened(path, flags, *args, **kwargs)

        def spied_fsync(descriptor: Any) -> None:
            self._at("fsync", _path_of(descriptor))
            fsync(descriptor)

        os.open, os.fsync = cast("Any", spied_open), spied_fsync
        for name in ("replace", "rename", "link", "unlink", "remove", "mkdir", "rmdir"):
            setattr(os, name, self._spied(name, getattr(os, name)))
        io.open = cast("Any", self._spied_file(io.open))
        __builtins__["open"] = io.open  # type: ignore[index]  # pyright: ignore[reportIndexIssue] a dict in a module
        threading.Thread(target=self._listen, name="spy", daemon=True).start()

    def _spied(self, name: str, function: _Function) -> _Function:
        def spied(path: Any, *args: Any, **kwargs: Any) -> Any:
            to_new_name = name in ("replace", "rename", "link")
            self._at(name, args[0] if to_new_name else path, kwargs.get("dir_fd"))
            return function(path, *args, **kwargs)

        return spied

    def _spied_file(self, function: _Function) -> _Function:
        spy = self

        class Raw(io.FileIO):
            where = ""

            def write(self, data: Any, /) -> int:
                def half() -> None:
                    io.FileIO.write(self, bytes(data)[: len(data) // 2])

                spy._at("write", self.where, half=half)
                return super().write(data)

        def spied(file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, *args: Any, **kw: Any):
            path = _path_of(file) if isinstance(file, int) else os.fsdecode(file)
            if mode not in ("w", "wb", "x", "xb", "a", "ab") or spy._name(path) is None:
                return function(file, mode, buffering, encoding, *args, **kw)
            raw = Raw(file, mode.removesuffix("b"))
            raw.where = path
            buffered = io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, newline=kw.get("newline"))

        return spied

    def _name(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The path below the root, None where it is elsewhere or does not count."""
        text = os.fsdecode(path)
        whole = os.path.join(_path_of(dir_fd), text) if dir_fd is not None else os.path.abspath(text)
        if whole == self._root:
            return "."
        if not whole.startswith(self._root + os.sep):
            return None
        name = whole[len(self._root) + 1 :]
        return None if name.startswith(("locks", "catalog.db")) else name

    def _at(self, kind: str, path: Any, dir_fd: int | None = None, *, half: Callable[[], None] | None = None) -> None:
        name = self._name(path, dir_fd)
        if name is None or self._plan.get("blind"):
            return
        with self._mutex:
            self._done.append((kind, name))
            number, plan = len(self._done) - 1, self._plan
        if plan.get("pause") == number:
            if half is not None and not plan.get("whole"):
                half()
            self._go.clear()
            self._tell({"paused": number, "kind": kind, "name": name})
            self._go.wait()
        first = plan.get("fail")
        if first is not None and first <= number <= plan.get("until", number):
            code: int = getattr(errno, plan["errno"])
            if code != errno.ENOSPC or kind in _NEED_SPACE:
                raise OSError(code, os.strerror(code), os.fsdecode(path))

    def _listen(self) -> None:
        with self._control.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                order = json.loads(line)
                if "plan" in order:
                    with self._mutex:
                        done, self._done, self._plan = self._done, [], order["plan"]
                    self._tell({"done": done})
                elif "watch" in order:
                    self._watched = order["watch"]
                    self._tell({"watching": True})
                elif "files" in order:
                    self._limit_files(order["files"])
                    self._tell({"limited": True})
                elif "go" in order:
                    self._go.set()
        os._exit(0)  # Whoever looked on is gone.

    def _limit_files(self, more: int | None) -> None:
        """Lets the process open only so many files more; None: as many as before."""
        soft, hard = self._files
        if more is not None:
            soft = max(map(int, os.listdir("/proc/self/fd"))) + more
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def _tell(self, news: dict[str, Any]) -> None:
        self._control.sendall(json.dumps(news).encode() + b"\n")


def _path_of(descriptor: Any) -> str:
    number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
    return os.readlink(f"/proc/self/fd/{number}")
