"""Locks between processes: one for each session's turns, one that shows that a server lives."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from filelock import AsyncFileLock, FileLock, Timeout


def session_lock(path: Path) -> AsyncFileLock:
    """The lock under which a session's turns run.

    Take it once per process: the queue in `turns` sees to that. It polls its file without a thread, so that waiting
    for another process costs other sessions nothing. The system frees it when its holder dies.
    """
    return AsyncFileLock(path, run_in_executor=False, thread_local=False, poll_interval=0.02, fallback_to_soft=False)


def short_lock(path: Path) -> FileLock:
    """A lock for a few file operations: `with short_lock(path): ...`. Raises Timeout after 10 s."""
    return FileLock(path, timeout=10, thread_local=False, poll_interval=0.01, fallback_to_soft=False)


class ProcessLock:
    """Held as long as this process lives, so that others can tell."""

    def __init__(self, directory: Path) -> None:
        self.process = secrets.token_hex(8)
        self._directory = directory
        self._path = self._of(self.process)
        # A soft lock would outlive its process, and say for ever that it lives.
        self._lock = FileLock(self._path, thread_local=False, fallback_to_soft=False)

    def acquire(self) -> None:
        """Shows that this process lives, and removes what is left of those that were killed; raises OSError."""
        if not self._lock.is_locked:
            for directory in (self._directory.parent, self._directory):  # What mkdir makes above has no mode given.
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in self._directory.glob("process-*.lock"):
                with suppress(OSError):  # another user's; whether that one lives is asked again where it matters
                    is_free(path)
            self._lock.acquire()

    def lives(self, process: str) -> bool:
        """Whether a process that has such a lock is still there."""
        return not is_free(self._of(process))

    def release(self) -> None:
        if self._lock.is_locked:
            remove_held(self._lock, self._path)

    def _of(self, process: str) -> Path:
        return self._directory / f"process-{process}.lock"


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock at `path` (a file that is not there is held by nobody)."""
    if not path.exists():
        return True
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    remove_held(lock, path)
    return True


def remove_held(lock: FileLock, path: Path) -> None:
    """Releases a lock that nobody needs any more, and removes its file.

    Removed while it is held, so that whoever waits for it sees that it is gone and begins anew; removed behind the
    release, it could already be another's. Windows removes no file that is open, and then it may stay.
    """
    if os.name != "nt":
        path.unlink(missing_ok=True)
    lock.release()
    if os.name == "nt":
        with suppress(OSError):
            path.unlink()
