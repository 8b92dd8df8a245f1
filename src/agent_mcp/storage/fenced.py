"""Strands' FileSessionManager, with a fence: after a turn has ended nothing of it may write any more."""

import inspect
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from strands.session.file_session_manager import FileSessionManager
from strands.types.session import SessionAgent, SessionMessage

from agent_mcp.errors import StorageFailed

# Strands asks for the signature once for each field of each message that it reads, and it is worked out anew each time:
# half of what restoring a session takes. Python looks here first.
SessionMessage.__signature__ = inspect.signature(SessionMessage)  # pyright: ignore[reportAttributeAccessIssue]


class FencedSessionManager(FileSessionManager):
    """Writes what Strands writes, where Strands writes it. Raises StorageFailed where the system refuses a write."""

    _closed = False

    def fence(self) -> None:
        """Refuses every later write: a tool that outlived its turn could otherwise write into the next one."""
        self._closed = True

    def create_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        self._check()
        with _refusals():
            super().create_agent(session_id, session_agent, **kwargs)

    def update_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        self._check()
        with _refusals():
            super().update_agent(session_id, session_agent, **kwargs)

    def create_message(self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any) -> None:
        self._check()
        if os.path.exists(self._get_message_path(session_id, agent_id, session_message.message_id)):
            # Strands would replace it. It counts messages in memory, so a wrong count must not cost what was said.
            raise StorageFailed(f"The message {session_message.message_id} is there already and was left as it is.")
        with _refusals():
            super().create_message(session_id, agent_id, session_message, **kwargs)

    def update_message(self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any) -> None:
        self._check()
        with _refusals():
            super().update_message(session_id, agent_id, session_message, **kwargs)

    def _check(self) -> None:
        if self._closed:
            raise StorageFailed(f"The turn in session {self.session_id!r} has ended; nothing more of it is kept.")


@contextmanager
def _refusals() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"The conversation can't be written: {error.strerror or error}. What was there is untouched; "
            "once there is space and permission again, ask again."
        ) from error
