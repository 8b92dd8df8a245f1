"""Two subjects on one server: through every door there is, neither sees, changes or ends what is the other's.

A third one is the local subject, without authentication: a door that forgets to ask who calls shows what is its. A
fourth shares a subject with a backend that acts for others, and may act for nobody but itself.
"""

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from agent_mcp.server.app import build_server
from agent_mcp.storage.subjects import subject_root
from agent_mcp.token_file import TokenFile
from doors import (
    CALLS,
    CAPABILITIES,
    METHODS,
    OLDER,
    Owned,
    Walk,
    call,
    handled,
    knock,
    served,
    through_mcp,
    through_rest,
    unknown,
)
from engine import ToolDesk
from in_process import running
from life import order
from test_cancel_over_http import ACCEPT, cancel, connected, tool_call
from test_notices import LIST, UPDATED, told, watch
from web import DEADLINE, Web, serving
from wire import MODERN, Wire, wire_over_http

REVISIONS = [OLDER, MODERN]
ABLE: dict[str, Any] = {"extensions": {"io.modelcontextprotocol/tasks": {}}, "elicitation": {"form": {}}}
NOT_THERE = {None, "agent_not_found", "session_not_found", "turn_not_found", "memory_not_found", "tool_not_allowed"}
"""What a stranger may be told; None is an answer, in which there must be nothing of anybody else."""
REACHED = {None, "turn_conflict"}
"""What an owner is told: an answer, or that a turn does not wait any more."""


class Member(httpx.Client):
    """Somebody who uses the server with a token, or without; `actor` is for whom, where that isn't clear."""

    def __init__(self, web: Web, token: str | None, *, actor: str | None = None) -> None:
        self.bearer = {"Authorization": f"Bearer {token}"} if token else {}
        super().__init__(base_url=web.url, headers=self.bearer, timeout=DEADLINE, trust_env=False)
        self.actor = actor
        self._url = web.url

    @asynccontextmanager
    async def wire(self, revision: str, capabilities: Mapping[str, Any] = ABLE) -> AsyncGenerator[Wire]:
        async with wire_over_http(f"{self._url}/mcp", revision, self.bearer, capabilities=capabilities) as client:
            yield client

    def made(self, path: str, body: dict[str, Any], **options: Any) -> dict[str, Any]:
        answer = self.post(f"/api/v1{path}", json=body, **options)
        assert answer.is_success, answer.text
        return answer.json()

    def ask(
        self, prompt: str, session_id: str | None = None, agent: str = "assistant", **options: Any
    ) -> dict[str, Any]:
        body = {"prompt": prompt, "session_id": session_id, "actor_id": self.actor}
        return self.made(f"/agents/{agent}/invoke", body, **options)


@dataclass(frozen=True)
class Team:
    """A server, who uses it, and what they have. `strangers` are who walks, what isn't theirs, and the codes that they
    may be given beside that it is not there."""

    web: Web
    file: TokenFile
    alice: Member
    bob: Member
    strangers: tuple[tuple[Member, Owned, set[str]], ...]

    @property
    def app(self) -> FastAPI:
        return cast("FastAPI", self.web.server.config.app)

    def joined(self, stack: ExitStack, subject: str, **more: Any) -> Member:
        """Somebody new."""
        token = self.file.add(name=subject, subject=subject, **more)
        return stack.enter_context(Member(self.web, token))

    def state(self) -> dict[str, Any]:
        """What is kept for Alice, the local subject, and the actor whom a backend acts for: files byte for byte, and
        what is remembered."""
        found: dict[str, Any] = {}
        everything = ("agents", "turns", "session_*")
        actors = ("session_notes-z*", *(f"turns/{one.turn_id}*" for _, one, _ in self.strangers[-1:]))
        for subject, parts, actor in (
            ("local", everything, "%"),
            ("alice", everything, "%"),
            ("acme", actors, "acme:two"),
        ):
            root = subject_root(self.web.data, subject)
            files = (path for one in parts for start in root.glob(one) for path in (start, *start.rglob("*")))
            found |= {str(path): path.read_bytes() for path in files if path.is_file()}
            with closing(sqlite3.connect(f"file:{root / 'memory.db'}?mode=ro", uri=True)) as db:
                rows = db.execute("SELECT * FROM facts WHERE actor_id LIKE ?", [actor]).fetchall()
                assert rows
                found[subject] = rows
        return found


def settle_in(member: Member, word: str, *, own: str | None = None) -> Owned:
    """Makes an agent, a session with a turn, a turn that asks something, and a memory, all with a word that nobody else
    may see. `own` is the id of the agent and the session."""
    agent_id, session_id = own or f"helper-{word[0].lower()}", own or f"notes-{word[0].lower()}"
    asking = order("handoff_to_user", message=f"Which colour does {word} like?")
    member.made(
        "/agents",
        {
            "name": f"Helper {word}",
            "system_prompt": f"You work for {word}.",
            "tools": ["handoff_to_user"],
            "agent_id": agent_id,
        },
    )
    told = member.ask(f"My name is {word}", session_id, agent_id)
    asked = member.ask(asking, f"{session_id}-asks", agent_id)
    assert asked["status"] == "input_required"
    fact = member.made("/memories", {"text": f"The name of the dog is {word}.", "actor_id": member.actor})
    ids = [told["turn_id"], asked["turn_id"], fact["memory_id"]]
    return Owned(
        session_id=session_id,
        turn_id=told["turn_id"],
        asking_id=asked["turn_id"],
        question_key="unknown",
        agent_id=agent_id,
        memory_id=fact["memory_id"],
        words=(word, *ids) if own else (word, *ids, agent_id, session_id),
    )


async def with_key(member: Member, owned: Owned) -> Owned:
    """The same with the key under which a client answers the question, which its owner can learn."""
    async with member.wire(MODERN) as client:
        [key] = (await client.request("tasks/get", {"taskId": owned.asking_id}))["inputRequests"]
    return replace(owned, question_key=key)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Generator[Team]:
    home = tmp_path_factory.mktemp("team")
    data = home / "data"
    file = TokenFile(home / "tokens.toml")
    tokens = {name: file.add(name=name, subject=name, scopes=["metrics"]) for name in ("alice", "bob")}
    backend = file.add(name="backend", subject="acme", act_as=["acme:*"])
    plain = file.add(name="plain", subject="acme", scopes=["metrics"])
    with serving(data) as web, Member(web, None) as nobody:
        local = settle_in(nobody, "Localia")
        settle_in(nobody, "Loco", own="shared")
    settings: dict[str, Any] = {"tools": ("engine_tools",), "allow_tools": ("shell",), "subject_rate": 100_000}
    with serving(data, tokens=file.path, **settings) as web, ExitStack() as stack:
        alice, bob, acme = (stack.enter_context(Member(web, token)) for token in (*tokens.values(), plain))
        behind = stack.enter_context(Member(web, backend, actor="acme:two"))
        alices = asyncio.run(with_key(alice, settle_in(alice, "Quintessa")))
        shared = settle_in(alice, "Querida", own="shared")
        settle_in(bob, "Bertram", own="shared")
        # Agents are the whole subject's: of these the words and ids of sessions, turns and memories count.
        others = settle_in(behind, "Zenobia")
        others = replace(others, words=tuple(w for w in others.words if w not in ("Zenobia", others.agent_id)))
        strangers = (
            (bob, alices, set[str]()),
            (bob, local, set[str]()),
            (bob, shared, {"turn_conflict"}),  # of a turn of his own under the same session
            (acme, others, {"session_exists"}),  # within a subject an id is given once
        )
        yield Team(web, file, alice, bob, strangers)


def test_no_call_shows_or_changes_what_is_anothers(team: Team) -> None:
    before = team.state()
    for stranger, owned, codes in team.strangers:
        for walk in through_rest(team.app, owned):
            text, code = call(stranger, walk)
            assert not (seen := owned.seen_in(text, walk.asked)), f"{walk.method} {walk.door} shows {seen}: {text}"
            assert code in NOT_THERE | codes, f"{walk.method} {walk.door}: {text}"
    assert team.state() == before


@pytest.mark.parametrize("revision", REVISIONS)
async def test_no_request_shows_or_changes_what_is_anothers(team: Team, revision: str) -> None:
    before = team.state()
    for stranger, owned, codes in team.strangers:
        async with stranger.wire(revision) as client:
            for walk in await through_mcp(client, owned):
                text, code = await knock(client, walk)
                assert not (seen := owned.seen_in(text, walk.asked)), f"{walk.door} shows {seen}: {text}"
                assert code in NOT_THERE | codes, f"{walk.door}: {text}"
    assert team.state() == before


def test_an_owner_gets_through_every_call(team: Team) -> None:
    """The proof that each walk leads to something: it is the caller that keeps a stranger out."""
    with ExitStack() as stack:
        owner = team.joined(stack, "owner-of-calls", scopes=["metrics"])
        owned = settle_in(owner, "Ottilia")
        shown: set[str] = set()
        for walk in through_rest(team.app, owned):
            text, code = call(owner, walk)
            assert code in REACHED, f"{walk.method} {walk.door}: {text}"
            if owned.seen_in(text, walk.asked):
                shown.add(f"{walk.method} {walk.door.replace(owned.agent_id, 'A').replace(owned.session_id, 'S')}")
        lists = {f"get /api/v1/{what}" for what in ("agents", "sessions", "memories")}
        assert shown >= {*lists, "get /api/v1/agents/A", "get /api/v1/sessions/S", "get /api/v1/sessions/S/messages"}


@pytest.mark.parametrize("revision", REVISIONS)
async def test_an_owner_gets_through_every_request(team: Team, revision: str) -> None:
    with ExitStack() as stack:
        owner = team.joined(stack, f"owner-{revision}")
        owned = await with_key(owner, await asyncio.to_thread(settle_in, owner, "Ottilia"))
        shown: set[str] = set()
        async with owner.wire(revision) as client:
            for walk in await through_mcp(client, owned):
                text, code = await knock(client, walk)
                assert code in REACHED, f"{walk.door}: {text}"
                if owned.seen_in(text, walk.asked):
                    shown.add(walk.method)
        always = {"resources/list", "resources/read", "prompts/get", "completion/complete", "tools/call"}
        assert shown >= always | ({"tasks/get"} if revision == MODERN else set())


@pytest.mark.parametrize("revision", REVISIONS)
async def test_there_is_no_kind_of_door_that_is_not_walked(team: Team, revision: str) -> None:
    async with running(team.web.data.parent / "other") as service:
        assert not unknown(handled(build_server(service)), METHODS, "METHODS")
    async with team.bob.wire(revision) as client:
        given = client.initialized or await client.request("server/discover")
        assert not unknown(given["capabilities"], CAPABILITIES, "CAPABILITIES, and walk it")
    assert not unknown(served(team.app), CALLS, "CALLS")


@pytest.mark.parametrize("revision", REVISIONS)
async def test_nobody_is_told_of_what_is_anothers(team: Team, revision: str) -> None:
    """Both watch the same addresses, and one of them stands for a session of each."""
    with ExitStack() as stack:
        alice, bob = (team.joined(stack, f"{name}-{revision}") for name in ("anna", "ben"))
        owned = [
            await asyncio.to_thread(settle_in, one, word, own="same") for one, word in ((alice, "Anna"), (bob, "Ben"))
        ]
        assert owned[0].session_id == owned[1].session_id
        uris = ["session://same/transcript", "session://same/messages", "agent://same", "session://last/transcript"]
        async with alice.wire(revision) as hers, bob.wire(revision) as his:
            for member, client in ((alice, hers), (bob, his)):
                await asyncio.to_thread(member.ask, "Hello", "last")
                await watch(client, *uris)
                await heard(member, client)
            await heard(bob, his)
            mark = len(his.told)
            await asyncio.to_thread(anything, alice)
            await heard(alice, hers)
            await heard(bob, his)
            after = [(method, params.get("uri")) for method, params in his.told[mark:]]
            assert set(after) == {(UPDATED, "session://last/transcript")}, after
            assert {method for method, _ in hers.told} >= {LIST, UPDATED}
            assert told(hers, UPDATED, "session://same/transcript")
            assert told(hers, UPDATED, "agent://same")
            heard_words = json.dumps(his.told)
            assert not owned[0].seen_in(heard_words, "")


async def heard(member: Member, client: Wire) -> None:
    """Has somebody do something of their own until their client is told: by then it was told all that was before.

    The first time the stream on which an older client is told may not be open yet.
    """
    uri = "session://last/transcript"
    seen = told(client, UPDATED, uri)
    async with asyncio.timeout(60):
        while told(client, UPDATED, uri) == seen:
            await asyncio.to_thread(member.ask, "Hello again", "last")
            with suppress(TimeoutError):
                await client.until(lambda: told(client, UPDATED, uri) > seen, seconds=2)


@pytest.mark.parametrize("revision", REVISIONS)
async def test_an_actor_is_not_told_of_another_actors_session(team: Team, revision: str) -> None:
    """Two of one subject, each for one actor only; the id of the one's session is easily guessed."""
    subject = f"crowd-{revision}"
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(
                Member(team.web, team.file.add(name=f"{subject}-{name}", subject=subject, act_as=[name]), actor=name)
            )
            for name in ("crowd:one", "crowd:two")
        )
        one.ask("Hello", "notes")
        two.ask("Hello", "last")
        async with one.wire(revision) as hers, two.wire(revision) as his:
            for client in (hers, his):
                await watch(client, "session://notes/transcript", "session://last/transcript")
            await heard(two, his)
            await asyncio.to_thread(one.ask, "Hello again", "notes")
            await hers.until(lambda: told(hers, UPDATED, "session://notes/transcript") > 0, seconds=60)
            await heard(two, his)
            assert not told(his, UPDATED, "session://notes/transcript")
            assert not told(hers, UPDATED, "session://last/transcript")


def anything(member: Member) -> None:
    """All that others could be told of."""
    member.ask("What's my name?", "same", "same")
    session_id = member.ask("Something new")["session_id"]
    member.delete(f"/api/v1/sessions/{session_id}")
    member.patch("/api/v1/agents/same", json={"description": "changed"})
    member.made("/agents", {"name": "One more"})
    member.delete("/api/v1/agents/one-more")


def test_two_subjects_use_the_same_key_for_the_same_actor_and_do_not_meet(team: Team) -> None:
    with ExitStack() as stack:
        one, two = (team.joined(stack, name, act_as=["acme:*"]) for name in ("rival-one", "rival-two"))
        one.actor = two.actor = "acme:two"
        key: dict[str, Any] = {"headers": {"Idempotency-Key": "order-66"}}
        first = one.ask("My name is Rosalind", **key)
        assert one.ask("My name is Rosalind", **key) == first
        same, other = (
            two.ask("My name is Rosalind", **key),
            two.ask("My name is Celia", headers={"Idempotency-Key": "7"}),
        )
        assert same["turn_id"] != first["turn_id"]
        assert same["session_id"] != first["session_id"]
        one.made("/memories", {"text": "Rosalind has a cat.", "actor_id": "acme:two"})
        listed = two.get("/api/v1/sessions", params={"actor_id": "acme:two"}).json()["sessions"]
        assert {session["session_id"] for session in listed} == {same["session_id"], other["session_id"]}
        assert not two.get("/api/v1/memories", params={"query": "cat", "actor_id": "acme:two"}).json()["memories"]


async def test_what_runs_in_a_session_of_another_subject_with_the_same_id_is_not_waited_for_nor_ended(
    team: Team,
) -> None:
    with ExitStack() as stack, ToolDesk() as desk:
        alice, bob = (team.joined(stack, name) for name in ("ada", "bill"))
        for member in (alice, bob):
            member.made("/agents", {"name": "Worker", "tools": ["py:hold"]})
        held = {"prompt": order("hold", port=desk.port), "session_id": "busy", "wait_seconds": 0}
        turn_id = alice.made("/agents/worker/invoke", held)["turn_id"]
        await desk.started()
        reply = await asyncio.to_thread(bob.ask, "Hello", "busy", "worker")
        assert reply["status"] == "completed"
        async with bob.wire(MODERN) as client:
            await client.call("cancel_turn", session_id="busy")
        assert bob.post(f"/api/v1/turns/{turn_id}/cancel").status_code == 404
        deleted = await asyncio.to_thread(bob.delete, "/api/v1/sessions/busy")
        assert deleted.json()["deleted"]
        assert alice.get(f"/api/v1/turns/{turn_id}").json()["status"] == "working"
        desk.release()
        done = alice.get(f"/api/v1/turns/{turn_id}", params={"wait": DEADLINE}).json()
        assert (done["status"], "held" in done["response"]) == ("completed", True)


async def test_a_persons_yes_counts_only_with_whoever_was_asked(team: Team, tmp_path: Path) -> None:
    made = tmp_path / "made"
    with ExitStack() as stack:
        alice, bob = (team.joined(stack, name) for name in ("amy", "bert"))
        for member in (alice, bob):
            member.made("/agents", {"name": "Worker", "tools": ["shell"]})
        asking = {"prompt": order("shell", command=f"touch {made}"), "agent_id": "worker"}
        request: dict[str, Any] = {"name": "ask_agent", "arguments": asking}
        async with alice.wire(MODERN) as hers, bob.wire(MODERN) as his:
            asked = await hers.request("tools/call", request)
            [key] = asked["inputRequests"]
            yes = {key: {"action": "accept", "content": {"allow": True}}}
            answered = {**request, "requestState": asked["requestState"], "inputResponses": yes}
            text, code = await knock(his, Walk("tools/call", "tools/call", answered))
            assert code is not None, text
            assert not made.exists()
            assert "structuredContent" in await hers.request("tools/call", answered)
            assert made.exists()


def test_a_connection_belongs_to_whoever_began_it(team: Team) -> None:
    """An older client's connection has an id: another's token can't speak, listen or hang up through it."""
    hers = connected(Web(team.web.url, team.alice, team.web.data, team.web.server))
    listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    cancelling = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    assert team.bob.post("/mcp", json=listing, headers=hers).status_code == 404
    assert team.bob.post("/mcp", json=cancelling, headers=hers).status_code == 404
    assert team.bob.get("/mcp", headers=hers).status_code == 404
    assert team.bob.delete("/mcp", headers=hers).status_code == 404
    assert team.alice.post("/mcp", json=listing, headers=hers).status_code == 200


async def test_where_no_connections_are_kept_nobody_cancels_anothers_request_by_its_number(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.toml")
    tokens = [file.add(name=name, subject=name) for name in ("alice", "bob")]
    with (
        ToolDesk() as desk,
        serving(tmp_path / "data", tokens=file.path, stateless=True, tools=("engine_tools",)) as web,
        ExitStack() as stack,
    ):
        alice, bob = (stack.enter_context(Member(web, token)) for token in tokens)
        alice.made("/agents", {"name": "Worker", "tools": ["py:hold"]})
        platforms = {**ACCEPT, "MCP-Protocol-Version": OLDER, "Mcp-Session-Id": "of-the-platform"}
        for number, canceller, status in ((1, bob, "completed"), (2, alice, "cancelled")):
            prompt = {"prompt": order("hold", port=desk.port), "agent_id": "worker", "session_id": f"held-{number}"}
            asking = tool_call(number, "ask_agent", prompt, modern=False)
            with web.dropped("/mcp", asking, {**platforms, **alice.bearer}):
                await desk.started()
                turn_id = alice.get(f"/api/v1/sessions/held-{number}").json()["open_turn"]["turn_id"]
                cancel(Web(web.url, canceller, web.data, web.server), platforms, number)
                if status == "completed":
                    assert alice.get(f"/api/v1/turns/{turn_id}").json()["status"] == "working"
                    desk.release()
                done = alice.get(f"/api/v1/turns/{turn_id}", params={"wait": DEADLINE}).json()
                assert done["status"] == status
                desk.release()
