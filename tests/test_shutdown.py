"""The end of a server: of stdin, by a signal, with its client gone; and that only the protocol is on its stdout."""

import asyncio
import gc
import json
import signal
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_mcp.domain import AgentId
from agent_mcp.service import AgentDraft, Prompt
from bedrock_server import BedrockServer, Gate, say, use_tool
from conftest import server_environment
from engine import (
    DEADLINE,
    NOTE,
    ToolDesk,
    bedrock_env,
    by_prompt,
    reached,
    record_of,
    said,
    serving,
    tools_env,
)
from in_process import CALLER, running

PROMPT = 60.0
"""Seconds in which a server must be gone: the 2 s that turns get, what closing takes, and a busy machine."""


class Raw:
    """A server process and its bare pipes. Every line on its stdout is kept, and must be JSON-RPC."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.stdin = process.stdin
        self.stdout = process.stdout
        self.messages: list[dict[str, Any]] = []
        self._next = 0

    def send(self, method: str, params: Mapping[str, Any] | None = None, *, answer: bool = True) -> int:
        """Sends a request, or with `answer` false a notification; returns the request's id."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        if answer:
            self._next += 1
            message["id"] = self._next
        self.stdin.write(json.dumps(message).encode() + b"\n")
        return self._next

    def ask(self, prompt: str, **arguments: Any) -> int:
        params = {"name": "ask_agent", "arguments": {"prompt": prompt, **arguments}, "_meta": {"progressToken": 1}}
        return self.send("tools/call", params)

    async def answer(self, request: int) -> dict[str, Any]:
        """The result of a request; what comes before it is kept."""
        async with asyncio.timeout(DEADLINE):
            while True:
                for message in self.messages:
                    if message.get("id") == request:
                        return message["result"]
                assert await self._read(), f"stdout ended before the answer to {request}"

    async def handshake(self) -> None:
        client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        await self.answer(self.send("initialize", client))
        self.send("notifications/initialized", answer=False)

    async def rest(self) -> None:
        """Reads to the end of stdout."""
        async with asyncio.timeout(DEADLINE):
            while await self._read():
                pass

    async def _read(self) -> bool:
        line = await self.stdout.readline()
        if line:
            message = json.loads(line)
            assert message["jsonrpc"] == "2.0"
            self.messages.append(message)
        return bool(line)

    async def exit_code(self) -> int:
        """How the process ended, which must be soon."""
        async with asyncio.timeout(PROMPT):
            return await self.process.wait()


@asynccontextmanager
async def raw(data_dir: Path, *, env: Mapping[str, str] | None = None) -> AsyncGenerator[Raw]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "agent_mcp", "serve"),
        env=server_environment(data_dir, env),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1024 * 1024,
    )
    server = Raw(process)
    try:
        yield server
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        server.stdin.close()
        # asyncio keeps the pipe of a process until its transport is closed.
        process._transport.close()  # type: ignore[attr-defined]  # pyright: ignore


def _end(server: Raw, how: str) -> None:
    if how == "end of stdin":
        server.stdin.close()
    else:
        server.process.send_signal(getattr(signal, how))


def _reply(result: dict[str, Any]) -> dict[str, Any]:
    assert not result.get("isError"), result
    return result["structuredContent"]


def _process_locks(data_dir: Path) -> list[Path]:
    return list(data_dir.glob("locks/process-*"))


ENDS = ["end of stdin", "SIGTERM"]


@pytest.mark.parametrize(
    ("how", "started"),
    [
        ("end of stdin", "at once"),  # a signal before Python runs our code has the system's effect
        *((how, started) for how in ENDS for started in ("after the handshake", "after a turn")),
    ],
)
async def test_an_idle_server_leaves_no_process_and_no_lock(data_dir: Path, how: str, started: str) -> None:
    async with raw(data_dir) as server:
        if started != "at once":
            await server.handshake()
        if started == "after a turn":
            assert _reply(await server.answer(server.ask("Hello")))["status"] == "completed"
        _end(server, how)
        await server.rest()
        assert await server.exit_code() == 0
    assert _process_locks(data_dir) == []


@pytest.mark.parametrize("how", ENDS)
async def test_a_turn_that_ends_in_time_is_answered_to_the_last(data_dir: Path, how: str) -> None:
    gate = Gate()
    with BedrockServer(by_prompt({"Count": say("One, two, ", gate, "three.")})) as model:
        async with raw(data_dir, env=bedrock_env(model)) as server:
            await server.handshake()
            request = server.ask("Count")
            await reached(gate)
            _end(server, how)
            gate.release()
            reply = _reply(await server.answer(request))
            await server.rest()
            assert await server.exit_code() == 0
    assert (reply["status"], reply["response"]) == ("completed", "One, two, three.")
    assert record_of(data_dir, reply["turn_id"])["status"] == "completed"


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("where", ["in the text", "in a tool"])
async def test_a_turn_that_does_not_end_is_cancelled_and_closed_and_holds_up_nobody(
    data_dir: Path, how: str, where: str
) -> None:
    gate = Gate()
    with ToolDesk() as desk:
        replies = {"in the text": say("One, two, ", gate, "three."), "in a tool": use_tool("hold", {"port": desk.port})}
        with BedrockServer(by_prompt(replies)) as model:
            env = bedrock_env(model, **tools_env())
            async with raw(data_dir, env=env) as server:
                await server.handshake()
                created = {"name": "create_agent", "arguments": {"name": "User", "tools": ["py:hold"]}}
                await server.answer(server.send("tools/call", created))
                request = server.ask(where, session_id="mine", agent_id="user")
                await (reached(gate) if where == "in the text" else desk.started())
                queued = server.ask("Queued", session_id="mine")
                await server.answer(server.send("ping"))
                _end(server, how)
                # Neither the model nor the tool is ever let go.
                replied = [_reply(await server.answer(n)) for n in (request, queued)]
                await server.rest()
                assert await server.exit_code() == 0
            assert [reply["status"] for reply in replied] == ["cancelled", "cancelled"]
            assert NOTE in replied[0]["response"]
            assert record_of(data_dir, replied[0]["turn_id"])["status"] == "cancelled"
            gate.release()
            async with serving(data_dir, env=env) as again:
                assert (await again.ask("Go on", session_id="mine"))["response"] == "You said: Go on"
            assert model.violations == []
            assert said(model.requests[-1])[-2] == replied[0]["response"]


async def test_a_turn_is_closed_also_where_the_client_takes_both_pipes_with_it(data_dir: Path) -> None:
    gate = Gate()
    with BedrockServer(by_prompt({"Talk": say("One, ", gate, "two.")})) as model:
        async with raw(data_dir, env=bedrock_env(model)) as server:
            await server.handshake()
            started = _reply(await server.answer(server.ask("Talk", wait_seconds=0)))
            await reached(gate)
            server.ask("Talk")  # whoever follows this one writes to a pipe that nobody reads
            server.stdin.close()
            server.process._transport.get_pipe_transport(1).close()  # type: ignore  # pyright: ignore
            assert await server.exit_code() is not None
        record = record_of(data_dir, started["turn_id"])
        assert record["status"] == "cancelled"
        assert NOTE in record["response"]
        assert _process_locks(data_dir) == []


async def test_a_client_that_leaves_in_the_middle_of_a_turn_leaves_it_closed(data_dir: Path, era: str) -> None:
    gate = Gate()
    with BedrockServer(by_prompt({"Talk": say("Some ", gate, "text.")})) as model:
        async with serving(data_dir, env=bedrock_env(model), mode=era) as server:
            asked = await server.ask("Talk", wait_seconds=0)
            await reached(gate)
        record = record_of(data_dir, asked["turn_id"])
    assert record["status"] == "cancelled"
    assert NOTE in record["response"]


async def test_nothing_but_the_protocol_is_on_stdout_also_where_a_tool_prints_and_reads(data_dir: Path) -> None:
    with BedrockServer(by_prompt({"Chat": use_tool("chatter")})) as model:
        async with raw(data_dir, env=bedrock_env(model, **tools_env())) as server:
            await server.handshake()
            created = {"name": "create_agent", "arguments": {"name": "Chatter", "tools": ["py:chatter"]}}
            await server.answer(server.send("tools/call", created))
            reply = _reply(await server.answer(server.ask("Chat", agent_id="chatter")))
            assert [call["status"] for call in reply["tool_calls"]] == ["success"]
            assert "read ''" in model.requests[-1].tool_results[0]
            server.stdin.write(b"this is not JSON\n")
            assert (await server.answer(server.send("tools/list")))["tools"]
            server.stdin.close()
            await server.rest()  # asserts that each line is JSON-RPC, to the last
            assert await server.exit_code() == 0
    answered = [message for message in server.messages if "result" in message]
    told = [message for message in server.messages if message.get("method") == "notifications/progress"]
    assert len(answered) == 4
    assert len(told) >= 2


async def test_what_still_runs_when_the_agents_loop_is_stopped_is_left_without_a_word(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ToolDesk() as desk:
        async with running(data_dir, tools=("engine_tools",)) as service:
            await service.agents.create(CALLER, AgentDraft(name="User", tools=("py:deaf",)))
            prompt = f'Use the tool deaf with {{"port": {desk.port}}}'
            await service.turns.ask(CALLER, Prompt(text=prompt, agent_id=AgentId("user")))
            await desk.started()
        del service
        gc.collect()
        assert "Task was destroyed" not in caplog.text
