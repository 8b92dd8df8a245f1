"""The names of files and directories in one subject's data directory."""

import re
from pathlib import Path

from agent_mcp.domain import AgentId, SessionId, TurnId

SESSION_PREFIX = "session_"
NEW_PREFIX = ".new-"
_MESSAGE = re.compile(r"message_(0|[1-9][0-9]*)\.json")


class Layout:
    """Paths below `root`. The names in a session's directory are Strands' FileSessionManager's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.agents = root / "agents"
        self.turns = root / "turns"
        self.locks = root / "locks"
        self.catalog = root / "catalog.db"
        self.catalog_lock = self.locks / "catalog.lock"
        self.retired = root / "retired"
        self.secret = root / "secret.key"
        self.subject = root / "subject"
        self.workspaces = root / "workspaces"
        self.damaged = root / "damaged"

    def make(self) -> None:
        """Makes the directories that are not there, closed to other users; raises OSError."""
        for directory in (self.root, self.agents, self.turns, self.locks):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def agent(self, agent_id: AgentId) -> Path:
        return self.agents / f"{agent_id}.md"

    def session(self, session_id: SessionId) -> Path:
        return self.root / f"{SESSION_PREFIX}{session_id}"

    def metadata(self, session_id: SessionId) -> Path:
        return self.session(session_id) / "metadata.json"

    def history(self, session_id: SessionId, agent_id: AgentId) -> Path:
        return self.session(session_id) / "agents" / f"agent_{agent_id}"

    def messages(self, session_id: SessionId, agent_id: AgentId) -> Path:
        return self.history(session_id, agent_id) / "messages"

    def message(self, session_id: SessionId, agent_id: AgentId, index: int) -> Path:
        return self.messages(session_id, agent_id) / f"message_{index}.json"

    def turn(self, turn_id: TurnId) -> Path:
        return self.turns / f"{turn_id}.json"

    def partial(self, turn_id: TurnId) -> Path:
        return self.turns / f"{turn_id}.partial"

    def cancel_mark(self, turn_id: TurnId) -> Path:
        return self.turns / f"{turn_id}.cancel"

    def workspace(self, session_id: SessionId) -> Path:
        return self.workspaces / session_id

    def set_aside(self, session_id: SessionId) -> Path:
        """Where the damaged files of a session are kept once it is repaired."""
        return self.damaged / session_id

    def metadata_lock(self, session_id: SessionId) -> Path:
        return self.locks / f"metadata-{session_id}.lock"

    def session_lock(self, session_id: SessionId) -> Path:
        return self.locks / f"session-{session_id}.lock"


def message_index(file_name: str) -> int | None:
    """The index in the name of a message's file, or None if it is no such file."""
    match = _MESSAGE.fullmatch(file_name)
    return int(match[1]) if match else None
