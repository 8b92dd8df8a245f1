"""What the system refuses, as the one error that callers know."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from agent_mcp.errors import StorageFailed


@contextmanager
def storage_errors(root: Path) -> Generator[None]:
    """Turns the system's errors into StorageFailed, one line that says where and why."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StorageFailed(
            f"The data directory {root} can't be used: {reason}. Nothing was half-made; mend it or set "
            "AGENT_MCP_DATA_DIR to a directory that can be written, and call again."
        ) from error
