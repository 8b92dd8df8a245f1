"""Writing so that a crash leaves the old file or the new one, and a power cut too where `sync` is asked for."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


def write_text(path: Path, text: str, *, sync: bool) -> None:
    """Replaces `path` by a file that holds `text` (UTF-8, readable by its owner only); raises OSError."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".write_", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if sync:
        sync_directory(path.parent)


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
