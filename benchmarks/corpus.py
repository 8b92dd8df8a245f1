"""Data directories with many sessions, in the form in which a turn leaves them."""

import asyncio
import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent_mcp.compose import build_service
from agent_mcp.config import Settings
from agent_mcp.domain import LOCAL_SUBJECT, Caller
from agent_mcp.service import Prompt, Service

CALLER = Caller(subject=LOCAL_SUBJECT)
_WORDS = """
river ledger copper window signal garden ticket weather engine market basket letter harbour winter lantern orchard
captain thunder velvet compass granite meadow pepper saddle timber whistle anchor blanket cinder ember
"""


def service_on(data_dir: Path) -> Service:
    """A service with the embedded model."""
    settings = Settings.from_env(
        {"AGENT_MCP_DATA_DIR": str(data_dir), "AGENT_MCP_MODEL": "offline", "AGENT_MCP_SESSION_TTL": "0"}
    )
    return build_service(settings, {})


def sentence(random_words: random.Random) -> str:
    """Some twenty words."""
    return " ".join(random_words.choices(_WORDS.split(), k=20))


def make(data_dir: Path, *, sessions: int, messages: int, marked: Sequence[int] = ()) -> None:
    """Makes sessions `c-0`, `c-1`, ... with as many messages each; those in `marked` hold the word "zeppelin".

    One is begun by a real turn, and its files are the pattern of all others.
    """
    asyncio.run(_one_turn(data_dir))
    pattern = data_dir / "session_pattern"
    session_text = (pattern / "session.json").read_text(encoding="utf-8")
    meta = json.loads((pattern / "metadata.json").read_text(encoding="utf-8"))
    history = pattern / "agents" / "agent_assistant"
    agent_text = (history / "agent.json").read_text(encoding="utf-8")
    messages_of_turn = [json.loads((history / "messages" / f"message_{n}.json").read_bytes()) for n in (0, 1)]
    words = random.Random(1)
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(sessions):
        session_id = f"c-{number}"
        directory = data_dir / f"session_{session_id}"
        folder = directory / "agents" / "agent_assistant" / "messages"
        folder.mkdir(parents=True)
        (directory / "session.json").write_text(session_text.replace("pattern", session_id), encoding="utf-8")
        (folder.parent / "agent.json").write_text(agent_text, encoding="utf-8")
        for index in range(messages):
            message = json.loads(json.dumps(messages_of_turn[index % 2]))
            message["message_id"] = index
            marker = " zeppelin" if number in marked and index == messages // 2 else ""
            message["message"]["content"] = [{"text": sentence(words) + marker}]
            (folder / f"message_{index}.json").write_text(json.dumps(message), encoding="utf-8")
        at = (begun + timedelta(minutes=number)).isoformat().replace("+00:00", "Z")
        changed = {"session_id": session_id, "title": f"Session {number}", "created_at": at, "last_active_at": at}
        own = {**meta, **changed, "turns": messages // 2, "last_turn": None}
        (directory / "metadata.json").write_text(json.dumps(own, indent=2), encoding="utf-8")


async def _one_turn(data_dir: Path) -> None:
    service = service_on(data_dir)
    try:
        made = await service.sessions.start(CALLER, session_id=None)
        followed = (await service.turns.ask(CALLER, Prompt(text="Hello", session_id=made.session_id))).followed
        async for _ in followed.events(wait=60):
            pass
    finally:
        await service.close(grace=1)
    (data_dir / f"session_{made.session_id}").rename(data_dir / "session_pattern")
    for name in ("session.json", "metadata.json"):
        file = data_dir / "session_pattern" / name
        file.write_text(file.read_text(encoding="utf-8").replace(made.session_id, "pattern"), encoding="utf-8")
