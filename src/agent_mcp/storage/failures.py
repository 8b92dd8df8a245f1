"""What the system refuses, as the one error that callers know."""

import logging
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from agent_mcp.errors import StorageFailed

logger = logging.getLogger(__name__)


@contextmanager
def storage_errors(root: Path) -> Generator[None]:
    """Turns the system's errors into StorageFailed, one line that says why. Where is for the operator: who calls may be
    anywhere."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        logger.info("the data directory %s can't be used: %s", root, reason)
        raise StorageFailed(
            f"The server's data directory can't be used: {reason}. Nothing was half-made; mend it or set "
            "AGENT_MCP_DATA_DIR to a directory that can be written, and call again.",
            where=str(root),
        ) from error
