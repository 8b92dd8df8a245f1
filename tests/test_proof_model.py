"""Whatever clients do to sessions in whatever order, and whichever server dies: a small model tells the state.

Two real servers share a data directory. The model of a session is what was answered in it, whether it has expired, and
which turn is held open in a tool.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Coroutine, Generator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bedrock_server import BedrockServer, say
from engine import NOTE
from proof.place import AGENT, Desk, Place, Session, order, telling
from proof.servers import Gone, Nursery, Refused, Server

T = TypeVar("T")
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the proof forks its servers"),
    pytest.mark.timeout(900),
]


@dataclass
class Held:
    """A turn that runs in a tool: in which session, on which server, and what lets it go."""

    session: Session
    server: int
    turn_id: str
    prompt: str
    tool: asyncio.StreamWriter


class World:
    """What all examples share: an event loop, and the process that servers are forked from."""

    loop: asyncio.AbstractEventLoop
    nursery: Nursery


@pytest.fixture
def world() -> Generator[None]:
    World.loop = asyncio.new_event_loop()
    with Nursery() as World.nursery:
        yield
    World.loop.close()


class Sessions(RuleBasedStateMachine):
    """The rules: what clients, time and kills do."""

    @initialize()
    def begin(self) -> None:
        self.sessions: list[Session] = []
        self.held: list[Held] = []
        self.servers: list[Server] = []
        self.expired: set[str] = set()
        self.made = 0
        self.directory = tempfile.TemporaryDirectory()
        self.desk = Desk()
        self.model = BedrockServer(lambda _: say("never asked"))
        port = self.run(self.desk.open())
        self.place = Place(World.nursery, Path(self.directory.name) / "data", self.model, port, self.desk)
        self.servers = [self.run(self.place.victim()) for _ in range(2)]
        tools = ["calculator", "py:hold"]
        self.run(self.servers[0].call("create_agent", name=AGENT, agent_id=AGENT, tools=tools))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return World.loop.run_until_complete(work)

    def session(self, number: int) -> Session:
        return self.sessions[number % len(self.sessions)]

    def is_held(self, session: Session) -> bool:
        return any(held.session is session for held in self.held)

    @rule(server=st.integers(0, 1))
    @precondition(lambda self: len(self.sessions) < 4)
    def start(self, server: int) -> None:
        self.made += 1
        session = Session(f"model-{self.made}")
        self.sessions.append(session)
        self.run(self.place.ask(self.servers[server], session))

    @rule(number=st.integers(0, 3), server=st.integers(0, 1), tool=st.booleans())
    @precondition(lambda self: self.sessions)
    def ask(self, number: int, server: int, tool: bool) -> None:
        session = self.session(number)
        if self.is_held(session):
            return
        prompt = order("calculator", expression="6 * 7") if tool else telling()
        if session.session_id in self.expired:
            with pytest.raises(Refused, match="session_expired"):
                self.run(self.servers[server].ask(prompt, session.session_id))
            return
        self.run(self.place.ask(self.servers[server], session, prompt))

    @rule(number=st.integers(0, 3), server=st.integers(0, 1))
    @precondition(lambda self: self.sessions and not self.held)
    def hold(self, number: int, server: int) -> None:
        session = self.session(number)
        if session.session_id in self.expired:
            return
        prompt = order("hold", port=self.place.port)
        turn = self.run(self.place.begin(self.servers[server], session, prompt))
        self.held.append(Held(session, server, turn, prompt, self.run(self.desk.held())))

    @rule()
    @precondition(lambda self: self.held)
    def let_go(self) -> None:
        held = self.held.pop()
        held.tool.close()
        reply = self.run(self.servers[held.server].reply(held.turn_id))
        held.session.answered[held.prompt] = reply["response"]

    @rule(server=st.integers(0, 1))
    @precondition(lambda self: self.held)
    def cancel(self, server: int) -> None:
        held = self.held.pop()
        reply = self.run(self.servers[server].call("cancel_turn", turn_id=held.turn_id))
        while reply["status"] == "working":
            reply = self.run(self.servers[server].reply(held.turn_id))
        assert reply["status"] == "cancelled"
        assert NOTE in reply["response"]
        held.tool.close()

    @rule(number=st.integers(0, 3))
    @precondition(lambda self: self.sessions)
    def expire(self, number: int) -> None:
        session = self.session(number)
        if self.is_held(session):
            return
        path = self.place.data / f"session_{session.session_id}" / "metadata.json"
        long_ago = (datetime.now(UTC) - timedelta(days=9)).isoformat()
        told = json.loads(path.read_text()) | {"last_active_at": long_ago, "revived_at": None, "ttl_seconds": 60}
        path.write_text(json.dumps(told))
        self.expired.add(session.session_id)

    @rule(number=st.integers(0, 3), server=st.integers(0, 1))
    @precondition(lambda self: self.expired)
    def revive(self, number: int, server: int) -> None:
        session = sorted(self.expired)[number % len(self.expired)]
        changed = self.run(self.servers[server].call("update_session", session_id=session, ttl_seconds=3600))
        assert changed["status"] == "active"
        self.expired.remove(session)

    @rule(number=st.integers(0, 3), server=st.integers(0, 1))
    @precondition(lambda self: self.sessions and len(self.sessions) < 4)
    def go_on_elsewhere(self, number: int, server: int) -> None:
        source = self.session(number)
        if self.is_held(source):
            return
        self.made += 1
        copy = Session(f"model-{self.made}", list(source.given), dict(source.answered))
        arguments = {"session_id": copy.session_id, "continue_from": source.session_id, "ttl_seconds": 3600}
        self.run(self.servers[server].call("start_session", **arguments))
        self.sessions.append(copy)

    @rule(number=st.integers(0, 3), server=st.integers(0, 1))
    @precondition(lambda self: self.sessions)
    def delete(self, number: int, server: int) -> None:
        session = self.session(number)
        self.run(self.servers[server].call("delete_session", session_id=session.session_id))
        for held in [held for held in self.held if held.session is session]:
            self.held.remove(held)
            held.tool.close()
        self.sessions.remove(session)
        self.expired.discard(session.session_id)
        assert not (self.place.data / f"session_{session.session_id}").exists()

    @rule(server=st.integers(0, 1))
    def kill(self, server: int) -> None:
        self.run(self.servers[server].kill())
        for held in [held for held in self.held if held.server == server]:
            self.held.remove(held)
            with suppress(Refused, Gone):
                self.run(self.servers[1 - server].reply(held.turn_id))
        self.servers[server] = self.run(self.place.victim())

    @invariant()
    def everything_answered_is_kept_once(self) -> None:
        for session in getattr(self, "sessions", []):
            if not self.is_held(session):
                self.place.check_kept(session)

    def teardown(self) -> None:
        for held in self.held:
            held.tool.close()
        if not self.servers:
            return
        listed = self.run(self.servers[0].call("list_sessions"))["sessions"]
        assert {found["session_id"] for found in listed} == {session.session_id for session in self.sessions}
        for server in self.servers:
            self.run(server.kill())
        self.desk.close()
        self.directory.cleanup()


@pytest.mark.usefixtures("world")
def test_whatever_clients_time_and_kills_do_every_session_is_as_the_model_says() -> None:
    run_state_machine_as_test(
        Sessions,
        settings=settings(
            max_examples=4,
            derandomize=True,  # what fails once fails again
            stateful_step_count=14,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            database=None,
        ),
    )
