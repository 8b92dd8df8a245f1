"""The Tasks extension: a turn that takes long is a task, for the clients that declare it and for no others."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mcp import StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_types import ElicitRequestParams, ElicitResult
from strands.tools.mcp import MCPClient
from strands.tools.mcp.mcp_tasks import TasksConfig

from agent_mcp.server.app import build_server
from conftest import server_environment
from engine import ToolDesk, tools_env
from in_process import CALLER, running
from life import order
from wire import DEADLINE, Refused, Wire, wire

EXTENSION = "io.modelcontextprotocol/tasks"
TASKS: dict[str, Any] = {"extensions": {EXTENSION: {}}}
PERSON: dict[str, Any] = {**TASKS, "elicitation": {"form": {}}}
SETTINGS: dict[str, Any] = {"tools": ("engine_tools",), "allow_tools": ("shell",)}


@asynccontextmanager
async def client(data_dir: Path, capabilities: dict[str, Any], **settings: Any) -> AsyncGenerator[Wire]:
    async with (
        running(data_dir, **SETTINGS, **settings) as service,
        wire(build_server(service), capabilities=capabilities) as connected,
    ):
        yield connected


async def worker(server: Wire) -> None:
    await server.call("create_agent", name="Worker", tools=["py:hold", "shell", "handoff_to_user"])


async def begun(server: Wire, desk: ToolDesk, then: str = "") -> dict[str, Any]:
    """The task of a turn that is held; `then` is ordered besides."""
    await worker(server)
    prompt = order("hold", port=desk.port) + (f" and {then}" if then else "")
    _, answer = await server.start(
        "tools/call", {"name": "ask_agent", "arguments": {"prompt": prompt, "agent_id": "worker"}}
    )
    await desk.started()
    task = await asyncio.wait_for(answer, DEADLINE)
    assert task["resultType"] == "task", task
    return task


async def state(server: Wire, task: dict[str, Any]) -> dict[str, Any]:
    found = await server.request("tasks/get", {"taskId": task["taskId"]})
    assert found["resultType"] == "complete"
    assert found["createdAt"] == task["createdAt"]
    assert at(found["lastUpdatedAt"]) >= at(found["createdAt"])
    assert found["ttlMs"] > 0
    return found


async def becomes(server: Wire, task: dict[str, Any], status: str) -> dict[str, Any]:
    """The task's state once it is this; it never goes back in time on the way."""
    last = at(task["createdAt"])
    async with asyncio.timeout(DEADLINE):
        while True:
            found = await state(server, task)
            assert at(found["lastUpdatedAt"]) >= last
            last = at(found["lastUpdatedAt"])
            if found["status"] == status:
                return found
            assert found["status"] in ("working", "input_required"), found
            await asyncio.sleep(0.05)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def update(server: Wire, task: dict[str, Any], key: str, **answer: Any) -> None:
    given = {"taskId": task["taskId"], "inputResponses": {key: answer}}
    acknowledged = await server.request("tasks/update", given)
    assert set(acknowledged) <= {"resultType", "_meta"}


async def test_a_turn_that_takes_long_is_a_task_and_ends_with_the_reply_that_the_ask_would_have_had(
    data_dir: Path,
) -> None:
    with ToolDesk() as desk:
        async with client(data_dir, TASKS) as server:
            task = await begun(server, desk)
            assert task["status"] == "working"
            assert task["taskId"].startswith("t-")
            found = await state(server, task)
            assert (found["status"], "result" in found) == ("working", False)
            desk.release()
            ended = await becomes(server, task, "completed")
            reply = ended["result"]["structuredContent"]
            assert (reply["turn_id"], reply["status"]) == (task["taskId"], "completed")
            assert "held" in reply["response"]
            assert ended["result"]["content"][1]["uri"] == reply["transcript"]
            assert await state(server, task) == ended
            later = await server.call("get_reply", turn_id=task["taskId"])
            assert later["structuredContent"] == reply
        async with client(data_dir, TASKS) as restarted:
            assert await state(restarted, task) == ended


async def test_a_task_is_for_who_declares_the_extension_and_does_not_want_to_wait_less(data_dir: Path) -> None:
    with ToolDesk() as desk:
        async with client(data_dir, TASKS) as server:
            assert "structuredContent" in await server.call("ask_agent", prompt="Hello")
            assert EXTENSION in (await server.request("server/discover"))["capabilities"]["extensions"]
            await worker(server)
            asked = await server.call(
                "ask_agent", prompt=order("hold", port=desk.port), agent_id="worker", wait_seconds=0
            )
            assert asked["structuredContent"]["status"] == "working", "who asks for no wait wants the reply as it is"
            await desk.started()
            desk.release()
    with ToolDesk() as desk:
        others: list[dict[str, Any]] = [{}, {"extensions": {"com.example/other": {}}}]
        for number, capabilities in enumerate(others):
            async with client(data_dir, capabilities, wait_seconds=2) as server:
                prompt = {"prompt": order("hold", port=desk.port), "agent_id": "worker"}
                _, answer = await server.start("tools/call", {"name": "ask_agent", "arguments": prompt})
                await desk.started()
                reply = (await asyncio.wait_for(answer, DEADLINE))["structuredContent"]
                assert reply["status"] == "working", number
                for method in ("tasks/get", "tasks/update", "tasks/cancel"):
                    with pytest.raises(Refused) as caught:
                        await server.request(method, {"taskId": reply["turn_id"], "inputResponses": {}})
                    assert caught.value.code == -32021
                    assert caught.value.data == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
                desk.release()


async def test_the_older_revisions_know_nothing_of_tasks(data_dir: Path) -> None:
    async with running(data_dir) as service, wire(build_server(service), "2025-11-25", capabilities=TASKS) as server:
        assert EXTENSION not in str(server.initialized)
        with pytest.raises(Refused) as caught:
            await server.request("tasks/get", {"taskId": "t-" + "0" * 32})
        assert caught.value.code == -32601


async def test_what_is_no_task_is_an_error_that_says_so(data_dir: Path) -> None:
    async with client(data_dir, TASKS) as server:
        for task_id in ("t-" + "0" * 32, "nonsense", "../x"):
            for method in ("tasks/get", "tasks/update", "tasks/cancel"):
                with pytest.raises(Refused) as caught:
                    await server.request(method, {"taskId": task_id, "inputResponses": {}})
                assert caught.value.code == -32602
                assert caught.value.message.endswith("]")


async def test_a_task_that_is_cancelled_ends_as_its_turn_does(data_dir: Path) -> None:
    with ToolDesk() as desk:
        async with client(data_dir, TASKS) as server:
            task = await begun(server, desk)
            await server.request("tasks/cancel", {"taskId": task["taskId"]})
            await becomes(server, task, "cancelled")
            reply = (await server.call("get_reply", turn_id=task["taskId"]))["structuredContent"]
            assert reply["status"] == "cancelled"
            await server.request("tasks/cancel", {"taskId": task["taskId"]})  # once more, and nothing changes
            assert (await state(server, task))["status"] == "cancelled"


async def test_a_failed_turn_is_a_task_that_completed_with_an_error_result(data_dir: Path) -> None:
    with ToolDesk() as desk:
        async with client(data_dir, TASKS, turn_timeout=3) as server:
            task = await begun(server, desk)
            ended = await becomes(server, task, "completed")
            assert ended["result"]["isError"]
            assert ended["result"]["content"][0]["text"].endswith("[turn_timeout]")


async def test_a_person_allows_a_tool_in_the_midst_of_a_task_also_after_a_restart(data_dir: Path) -> None:
    made = data_dir.parent / "made"
    with ToolDesk() as desk:
        async with client(data_dir, PERSON) as server:
            task = await begun(server, desk, order("shell", command=f"touch {made}"))
            desk.release()
            asked = await becomes(server, task, "input_required")
            [(key, request)] = asked["inputRequests"].items()
            assert request["method"] == "elicitation/create"
            assert str(made) in request["params"]["message"]
            assert (await state(server, task))["inputRequests"] == asked["inputRequests"]
        async with client(data_dir, PERSON) as server:
            assert (await state(server, task))["inputRequests"] == asked["inputRequests"]
            await update(server, task, "unknown", action="accept", content={"allow": True})
            assert (await state(server, task))["status"] == "input_required"
            assert not made.exists()
            await update(server, task, key, action="accept", content={"allow": True})
            ended = await becomes(server, task, "completed")
            assert made.exists()
            assert ended["result"]["structuredContent"]["status"] == "completed"
            await update(server, task, key, action="accept", content={"allow": True})  # too late, and passed over
            assert await state(server, task) == ended


@pytest.mark.parametrize("action", ["decline", "untick", "cancel"])
async def test_nothing_but_a_persons_yes_runs_the_tool(data_dir: Path, action: str) -> None:
    made = data_dir.parent / "made"
    with ToolDesk() as desk:
        async with client(data_dir, PERSON) as server:
            task = await begun(server, desk, order("shell", command=f"touch {made}"))
            desk.release()
            [key] = (await becomes(server, task, "input_required"))["inputRequests"]
            answer = {"action": "accept", "content": {"allow": False}} if action == "untick" else {"action": action}
            await update(server, task, key, **answer)
            ended = await becomes(server, task, "completed")
            reply = ended["result"]["structuredContent"]
            # Who only closes the question has not decided: the reply says how somebody can.
            assert reply["status"] == ("input_required" if action == "cancel" else "completed")
            if action == "cancel":
                assert "agent-mcp turns approve" in reply["question"]
    assert not made.exists()


async def test_inputs_are_asked_for_one_at_a_time_and_never_twice_under_one_key(data_dir: Path) -> None:
    one, two = data_dir.parent / "one", data_dir.parent / "two"
    keys: list[str] = []
    with ToolDesk() as desk:
        async with client(data_dir, PERSON) as server:
            both = f"{order('shell', command=f'touch {one}')} and {order('shell', command=f'touch {two}')}"
            task = await begun(server, desk, both)
            desk.release()
            for _ in range(2):
                async with asyncio.timeout(DEADLINE):
                    while True:
                        asked = await becomes(server, task, "input_required")
                        [(key, request)] = asked["inputRequests"].items()
                        if key not in keys:
                            break
                keys.append(key)
                await update(
                    server, task, key, action="accept", content={"allow": str(one) in request["params"]["message"]}
                )
            await becomes(server, task, "completed")
    assert len(set(keys)) == 2
    assert (one.exists(), two.exists()) == (True, False)


async def test_an_agents_question_is_put_to_the_person_at_the_host(data_dir: Path) -> None:
    with ToolDesk() as desk:
        async with client(data_dir, PERSON) as server:
            task = await begun(server, desk, order("handoff_to_user", message="Which colour?"))
            desk.release()
            [(key, request)] = (await becomes(server, task, "input_required"))["inputRequests"].items()
            assert "Which colour?" in request["params"]["message"]
            await update(server, task, key, action="accept", content={"answer": "Blue"})
            ended = await becomes(server, task, "completed")
            assert "Blue" in ended["result"]["structuredContent"]["response"]


async def test_a_client_that_cant_ask_a_person_gets_the_question_as_the_result(data_dir: Path) -> None:
    with ToolDesk() as desk:
        async with client(data_dir, TASKS) as server:
            task = await begun(server, desk, order("handoff_to_user", message="Which colour?"))
            desk.release()
            ended = await becomes(server, task, "completed")
            reply = ended["result"]["structuredContent"]
            assert (reply["status"], reply["question"]) == ("input_required", "Which colour?")
            done = await server.call("get_reply", turn_id=task["taskId"], answer="Blue")
            assert "Blue" in done["structuredContent"]["response"]


async def test_nobody_else_decides_what_a_task_asked_a_person(data_dir: Path) -> None:
    made = data_dir.parent / "made"
    with ToolDesk() as desk:
        async with (
            running(data_dir, **SETTINGS) as service,
            wire(build_server(service), capabilities=PERSON) as server,
        ):
            task = await begun(server, desk, order("shell", command=f"touch {made}"))
            desk.release()
            [key] = (await becomes(server, task, "input_required"))["inputRequests"]
            await service.turns.decide(CALLER, task["taskId"], approve=False)
            await update(server, task, key, action="accept", content={"allow": True})
            ended = await becomes(server, task, "completed")
            assert ended["result"]["structuredContent"]["tool_calls"][-1]["status"] == "error"
    assert not made.exists()


async def test_strands_own_client_finishes_a_task_with_a_persons_yes_in_the_midst(data_dir: Path) -> None:
    made = data_dir.parent / "made"
    asked: list[str] = []

    async def person(context: Any, params: ElicitRequestParams) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={"allow": True})

    env = {**tools_env(), "AGENT_MCP_ALLOW_TOOLS": "shell"}
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "agent_mcp", "serve"], env=server_environment(data_dir, env)
    )
    limits = TasksConfig(poll_timeout=timedelta(seconds=DEADLINE), poll_interval=timedelta(seconds=0.1))
    transport: Any = lambda: stdio_client(parameters)  # noqa: E731
    strands = MCPClient(transport, elicitation_callback=person, tasks_config=limits)
    with ToolDesk() as desk:
        await asyncio.to_thread(strands.start)
        try:
            tools = ["py:hold", "shell"]
            await strands.call_tool_async("1", "create_agent", {"name": "Worker", "tools": tools})
            prompt = f"{order('hold', port=desk.port)} and {order('shell', command=f'touch {made}')}"
            asking = asyncio.create_task(
                strands.call_tool_async("2", "ask_agent", {"prompt": prompt, "agent_id": "worker"})
            )
            await desk.started()
            await asyncio.sleep(1.5)  # longer than an ask waits before it becomes a task
            desk.release()
            async with asyncio.timeout(DEADLINE):
                result = await asking
        finally:
            await asyncio.to_thread(strands.stop, None, None, None)
    assert result["status"] == "success", result
    assert result.get("structuredContent", {})["status"] == "completed"
    assert len(asked) == 1
    assert made.exists()
