"""Where each subject's data lie, and what all subjects of a data directory share."""

import hashlib
from contextlib import suppress
from pathlib import Path

from agent_mcp.domain import LOCAL_SUBJECT
from agent_mcp.storage.failures import storage_errors
from agent_mcp.storage.layout import Layout
from agent_mcp.storage.locks import ProcessLock


def subject_root(data_dir: Path, subject: str) -> Path:
    """Where everything of a subject lies: hashed, so that no name becomes a path. The local one has the root."""
    if subject == LOCAL_SUBJECT:
        return data_dir
    return _subjects(data_dir) / hashlib.sha256(subject.encode()).hexdigest()[:32]


def list_subjects(data_dir: Path) -> list[str]:
    """The authenticated subjects of which something is kept; raises StorageFailed."""
    found: list[str] = []
    with storage_errors(data_dir):
        for root in sorted(_subjects(data_dir).glob("*")):
            with suppress(FileNotFoundError, NotADirectoryError):
                found.append(Layout(root).subject.read_text(encoding="utf-8"))
    return found


def process_lock(data_dir: Path) -> ProcessLock:
    """What shows that this process lives, to all who use the data directory."""
    return ProcessLock(Layout(data_dir).locks)


def _subjects(data_dir: Path) -> Path:
    return data_dir / "subjects"
