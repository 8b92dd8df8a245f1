"""One data directory under proof: who is asked there, what was answered, and what must hold of it at any time."""

import asyncio
import json
import string
import uuid
from collections.abc import AsyncGenerator, Container
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from strands.types.content import Messages

from agent_mcp.offline import check_history
from bedrock_server import BedrockServer, Gate, Received, Reply, say
from engine import MODEL, NOTE
from proof.servers import DEADLINE, Nursery, Refused, Server

AGENT = "tester"
_FAILED = ("turn_interrupted", "storage_error")
HOLD = "Hold it in the middle of the text"
"""How a prompt begins at whose answer the model server waits in the middle."""


def token() -> str:
    """A word that was never said before."""
    return "K" + "".join(string.ascii_lowercase[int(digit, 16)] for digit in uuid.uuid4().hex[:12])


def telling() -> str:
    """A prompt that nobody gave before; the answer to it names its token, whichever model answers."""
    return f"My name is {token()}"


def order(tool: str, **arguments: Any) -> str:
    """A prompt that has the offline model use a tool."""
    return f"Use the tool {tool} with {json.dumps(arguments)} My name is {token()}"


class Desk:
    """Where the tool `hold` connects when it runs, and waits to be let go."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._waiting: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def open(self) -> int:
        """Opens it, and returns its port."""

        async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._waiting.put_nowait(writer)
            with suppress(ConnectionError):
                await reader.read()  # until it is let go, or its server is killed
            writer.close()

        self._server = await asyncio.start_server(met, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def held(self) -> asyncio.StreamWriter:
        """Waits until one more tool runs; closing what is returned lets it go."""
        async with asyncio.timeout(DEADLINE):
            return await self._waiting.get()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


@dataclass
class Session:
    """What a client knows of one session: the prompts it gave, and the replies it got to them."""

    session_id: str
    given: list[str] = field(default_factory=list[str])
    answered: dict[str, str] = field(default_factory=dict[str, str])


class Place:
    """A data directory, a witness (a server that lives on) and a model server that checks every history it is sent."""

    def __init__(self, nursery: Nursery, data: Path, model: BedrockServer, port: int, desk: Desk) -> None:
        self.nursery = nursery
        self.data = data
        self.model = model
        self.port = port
        self.desk = desk
        self.gates: dict[str, Gate] = {}
        self.witness: Server

    async def victim(self, *, bedrock: bool = False, **settings: str) -> Server:
        """A server that is about to be broken; its model is the embedded one, or the model server."""
        model = {**self.model.env, "AGENT_MCP_MODEL": MODEL, "AWS_MAX_ATTEMPTS": "1"} if bedrock else {}
        return await self.nursery.start(self.data, **model, **settings)

    def new_id(self) -> str:
        """An id for a session that nobody has."""
        return f"p-{uuid.uuid4().hex[:12]}"

    async def session(self, server: Server, *, asked: bool = True) -> Session:
        """A new session; with `asked` one turn was answered in it."""
        session = Session(self.new_id())
        if asked:
            await self.ask(server, session)
        else:
            await server.call("start_session", session_id=session.session_id, agent_id=AGENT)
        return session

    async def ask(self, server: Server, session: Session, prompt: str | None = None) -> dict[str, Any]:
        """Asks to the end, and notes the reply; raises Refused, Gone."""
        prompt = prompt or telling()
        session.given.append(prompt)
        reply = await server.ask(prompt, session.session_id, agent_id=AGENT)
        assert reply["status"] == "completed", reply
        session.answered[prompt] = reply["response"]
        return reply

    async def begin(self, server: Server, session: Session, prompt: str) -> str:
        """Asks without waiting; returns the turn's id."""
        session.given.append(prompt)
        arguments = {"prompt": prompt, "session_id": session.session_id, "agent_id": AGENT, "wait_seconds": 0}
        return str((await server.call("ask_agent", **arguments))["turn_id"])

    def record(self, turn_id: str) -> dict[str, Any]:
        """A turn's record as it stands on disk."""
        return json.loads((self.data / "turns" / f"{turn_id}.json").read_bytes())

    def metadata(self, session: Session) -> dict[str, Any]:
        """What stands on disk of a session beside the conversation."""
        return json.loads((self.data / f"session_{session.session_id}" / "metadata.json").read_bytes())

    def messages(self, session: Session) -> Messages:
        """A session's messages as Strands' files hold them."""
        directory = self.data / f"session_{session.session_id}" / "agents" / f"agent_{AGENT}" / "messages"
        count = len(list(directory.glob("message_*.json")))
        return [json.loads((directory / f"message_{index}.json").read_bytes())["message"] for index in range(count)]

    def turns(self, session: Session) -> list[str]:
        """The turns of a session, by their records."""
        found = (path for path in (self.data / "turns").glob("t-*.json") if session.session_id in path.read_text())
        return [path.stem for path in found if self.record(path.stem)["session_id"] == session.session_id]

    async def check(self, session: Session, *, failed: Container[str] = _FAILED) -> None:
        """The next ask succeeds; every turn has ended; every answered turn is there once and in order; the history is
        valid by the offline model's rules and by the model server's. Turns may have `failed` with these codes.
        """
        await self.ask(self.witness, session)
        for turn_id in self.turns(session):
            try:
                reply = await self.witness.reply(turn_id)
                assert reply["status"] in ("completed", "cancelled"), reply
                if reply["status"] == "completed":
                    session.answered.setdefault(self.record(turn_id)["prompt"], reply["response"])
            except Refused as refused:
                if refused.code not in failed:
                    raise
        self.check_kept(session)
        assert self.model.violations == [], self.model.violations

    def check_kept(self, session: Session) -> None:
        """Every answered turn is there once, with its reply, in the order of the asks; nothing is there twice."""
        messages = self.messages(session)
        check_history([*messages, {"role": "user", "content": [{"text": "And now?"}]}])
        texts = ["\n".join(b.get("text", "") for b in m["content"] if "text" in b) for m in messages]
        prompts = [text for m, text in zip(messages, texts, strict=True) if m["role"] == "user" and text]
        assert sorted(set(prompts)) == sorted(prompts), f"a prompt is there twice: {prompts}"
        assert prompts == [p for p in session.given if p in prompts], f"out of order, or nobody's: {prompts}"
        ends = [index for index, text in enumerate(texts) if text in prompts] + [len(texts)]
        replies = {texts[at]: texts[end - 1] for at, end in pairwise(ends)}
        for prompt, response in session.answered.items():
            assert replies.get(prompt) == response, f"{prompt!r} was answered with {response!r}, kept is {replies}"
        for prompt in replies.keys() - session.answered.keys():
            assert NOTE in replies[prompt], f"{prompt!r} was never answered, and ends with {replies[prompt]!r}"


@asynccontextmanager
async def placed(nursery: Nursery, directory: Path, name: str = "data") -> AsyncGenerator[Place]:
    """A place with an agent that may use a calculator and the tool that the desk holds."""
    desk = Desk()
    async with AsyncExitStack() as stack:
        port = await desk.open()
        stack.callback(desk.close)

        def script(received: Received) -> Reply:
            said = received.last_text
            gate = place.gates.get(said)
            return say(f"Half of {said}", gate, " and the rest.") if gate else say(f"You said: {said}")

        model = stack.enter_context(BedrockServer(script))
        place = Place(nursery, directory / name, model, port, desk)
        place.witness = await place.victim(bedrock=True)
        stack.push_async_callback(place.witness.close)
        await place.witness.call("create_agent", name=AGENT, agent_id=AGENT, tools=["calculator", "py:hold"])
        yield place
        await no_lock_is_left(place)


async def no_lock_is_left(place: Place) -> None:
    """Once all servers have ended and a new one looked around, no lock shows a process that there is not."""
    await place.witness.close()
    last = await place.victim()
    await last.call("list_sessions")
    assert len(list((place.data / "locks").glob("process-*.lock"))) == 1
    await last.close()
    assert not list((place.data / "locks").glob("process-*.lock"))
