"""Writing so that a crash leaves the old file or the new one, and a power cut too where `sync` is asked for."""

import os
import tempfile
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

_BEGUN = ".write_"  # what a file is called until it is whole


def write_text(path: Path, text: str, *, sync: bool, sync_name: bool = True) -> None:
    """Replaces `path` by a file that holds `text` (UTF-8, readable by its owner only); raises OSError.

    Without `sync_name` a power cut may bring the old file back, but never an empty one.
    """
    with _written(path.parent, text, sync=sync) as new:
        os.replace(new, path)
    if sync and sync_name:
        sync_directory(path.parent)


def create_text(path: Path, text: str, *, sync: bool) -> bool:
    """As `write_text`, for a new file: False where the name is taken, and then nothing is changed. Raises OSError."""
    with _written(path.parent, text, sync=sync) as new:
        try:
            os.link(new, path)  # unlike a rename, a link replaces nothing
        except FileExistsError:
            return False
        except OSError:
            # A file system without links (exFAT, some shares): the name is taken first, then what it is to hold.
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except FileExistsError:
                return False
            os.replace(new, path)
    if sync:
        sync_directory(path.parent)
    return True


@contextmanager
def _written(directory: Path, text: str, *, sync: bool) -> Generator[Path]:
    """A file beside its place that holds `text`; it is removed in the end if it is still there."""
    descriptor, name = tempfile.mkstemp(dir=directory, prefix=_BEGUN, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        yield Path(name)
    finally:
        with suppress(OSError):  # What is written stands under its own name now; the rest is cleared in time.
            Path(name).unlink(missing_ok=True)


def remove_begun(directory: Path, *, older_than_seconds: float) -> None:
    """Removes what kills left of files that were being written, as far as the system lets it."""
    for path in directory.glob(f"{_BEGUN}*"):
        with suppress(OSError):  # Another process that lives has just finished this one.
            if path.stat().st_mtime < time.time() - older_than_seconds:
                path.unlink()


def sync_files(paths: Iterable[Path]) -> None:
    """Waits until the contents of these files are on disk; raises OSError."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Waits until the names in a directory are on disk. Windows has no such call; there NTFS's journal must do."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
