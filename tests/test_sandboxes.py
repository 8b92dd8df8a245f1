"""Tools that run code: where they run, who must agree, and what they can't reach."""

import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from strands.sandbox import ExecutionResult

from agent_mcp.config import Settings
from agent_mcp.doctor import examine
from agent_mcp.errors import InvalidArgument, ToolNotAllowed
from agent_mcp.ids import AgentId
from agent_mcp.sandboxes import Container, Remote, Workspace, sandbox_for
from agent_mcp.service import AgentDraft, Service
from in_process import CALLER, ask, running
from life import order
from loopback_web import PUBLIC, LoopbackWeb, Page, moved

ALLOWED = ("shell", "python_repl", "file_editor", "http_request")


@asynccontextmanager
async def worker(data: Path, **settings: Any) -> AsyncGenerator[Service]:
    async with running(data, allow_tools=ALLOWED, approve=ALLOWED, **settings) as service:
        await service.agents.create(CALLER, AgentDraft(name="W", tools=ALLOWED), agent_id=AgentId("w"))
        yield service


async def use(service: Service, tool: str, session: str | None = None, **arguments: Any) -> tuple[str, str, str]:
    reply = await ask(service, order(tool, **arguments), session, agent=None if session else "w")
    page = await service.sessions.read(CALLER, reply.session_id)
    return str(reply.tool_calls[0].status), [m.text for m in page.messages if m.role == "tool"][-1], reply.session_id


async def test_none_of_them_is_there_unless_the_operator_allows_it(data_dir: Path) -> None:
    async with running(data_dir) as service:
        for name in ALLOWED:
            with pytest.raises(ToolNotAllowed):
                await service.agents.create(CALLER, AgentDraft(name="W", tools=(name,)))
        offers = {offer.name: offer for offer in service.toolbox.offers()}
        assert not any(offers[name].allowed for name in ALLOWED)
        assert offers["shell"].why == "AGENT_MCP_ALLOW_TOOLS does not name it"


async def test_all_of_them_need_a_person_unless_the_operator_exempts_them(data_dir: Path) -> None:
    async with running(data_dir, allow_tools=ALLOWED, approve=("python_repl",)) as service:
        assert service.toolbox.needs_approval() == {"shell", "file_editor", "http_request"}


async def test_code_files_and_commands_meet_in_the_sessions_folder(data_dir: Path) -> None:
    async with worker(data_dir) as service:
        status, text, session = await use(service, "python_repl", code="open('a.txt','w').write('one'); print(6*7)")
        assert (status, "42" in text) == ("success", True)
        folder = data_dir / "workspaces" / session
        assert (folder / "a.txt").read_text() == "one"
        _, text, _ = await use(service, "shell", session, command="pwd; cat a.txt")
        assert str(folder) in text
        assert "one" in text
        path = str(folder / "b.txt")
        assert (await use(service, "file_editor", session, command="create", path=path, file_text="two"))[
            0
        ] == "success"
        assert "two" in (await use(service, "shell", session, command="cat b.txt"))[1]


async def test_http_request_reaches_the_public_web_and_nothing_else(data_dir: Path) -> None:
    web = LoopbackWeb(
        {
            "a.example/post": lambda asked: Page(asked.body, kind="text/plain"),
            "a.example/in": moved("http://10.0.0.1/"),
            "a.example/half": Page("a \\ud800 z", kind="text/plain; charset=unicode_escape"),
        },
        names={"a.example": [PUBLIC], "localhost": ["127.0.0.1"]},
    )
    with web:
        async with worker(data_dir, internet=web.internet()) as service:
            status, text, session = await use(
                service, "http_request", method="POST", url="http://a.example/post", body="hello", headers={"Host": "x"}
            )
            assert (status, "hello" in text) == ("success", True)
            assert web.asked[0].host == "a.example"
            _, text, _ = await use(service, "http_request", session, method="GET", url="http://a.example/half")
            assert "ud800 z" in text  # read as UTF-8: a server can't name an encoding that makes half characters
            for url in (
                "http://localhost:8080/",
                "http://169.254.169.254/",
                "http://a.example/in",
                "file:///etc/passwd",
            ):
                status, text, _ = await use(service, "http_request", session, method="GET", url=url)
                assert status == "error", url
    assert {address for address, _ in web.dialled} == {PUBLIC}


async def test_more_than_a_history_holds_is_cut_and_the_turn_goes_on(data_dir: Path, tmp_path: Path) -> None:
    big = tmp_path / "big.txt"
    big.write_text("word " * 200_000)
    pages = {"a.example/big": Page("word " * 900_000, kind="text/plain")}
    with LoopbackWeb(pages, names={"a.example": [PUBLIC]}) as web:
        async with worker(data_dir, internet=web.internet()) as service:
            session = None
            uses: list[tuple[str, dict[str, str]]] = [
                ("http_request", {"method": "POST", "url": "http://a.example/big"}),
                ("file_editor", {"command": "view", "path": str(big)}),
                ("shell", {"command": f"cat {big}"}),
                ("python_repl", {"code": f"print(open({str(big)!r}).read())"}),
            ]
            for tool, arguments in uses:
                status, text, session = await use(service, tool, session, **arguments)
                assert (status, text.endswith("characters left out]")) == ("success", True), tool
                assert len(text) < 101_000


async def test_the_setting_chooses_where_code_runs(tmp_path: Path) -> None:
    place = str(tmp_path)
    assert isinstance(sandbox_for("", workspace=place, session="s"), Workspace)
    assert isinstance(sandbox_for("docker:python:3.12", workspace=place, session="s"), Container)
    assert isinstance(sandbox_for("ssh:me@host", workspace=place, session="s"), Remote)
    for wrong in ("docker:", "docker:--privileged", "ssh:-oProxyCommand=x", "podman:x", "docker:a b"):
        with pytest.raises(InvalidArgument, match="AGENT_MCP_SANDBOX"):
            Settings.from_env({"AGENT_MCP_SANDBOX": wrong}, cwd=tmp_path)
    assert Settings.from_env({"AGENT_MCP_SANDBOX": "docker:ghcr.io/a/b:1"}, cwd=tmp_path).sandbox


async def test_no_sandbox_brings_tools_that_nobody_allowed(tmp_path: Path) -> None:
    for setting in ("", "docker:image", "ssh:host"):
        assert sandbox_for(setting, workspace=str(tmp_path), session="s").get_tools() == []


async def test_a_container_has_no_network_no_rights_and_only_the_sessions_folder(tmp_path: Path) -> None:
    line = Container("image", workspace=str(tmp_path)).command_line("a; b", name="n", cwd=None, env={"K": "v w"})
    options, (image, *command) = line[: line.index("--")], line[line.index("--") + 1 :]
    assert (image, command) == ("image", ["sh", "-c", "a; b"])
    assert {"--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--rm"} <= set(options)
    mounts = [option for option in options if "mount" in option or "volume" in option or option == "-v"]
    assert mounts == [f"--mount=type=bind,source={tmp_path},target=/workspace"]
    assert "K=v w" in options


async def test_another_machine_is_worked_on_in_a_folder_of_the_session_that_is_made_first(tmp_path: Path) -> None:
    """The line that goes over ssh, run here by a shell as a remote one would."""
    line = Remote("host", folder="work/one").remote_line("pwd; cat << 'E' | tr a-z A-Z\nhello\nE", cwd=None)
    done = subprocess.run(["sh", "-c", f"cd {tmp_path} && {line}"], capture_output=True, text=True, check=True)  # noqa: ASYNC221
    assert done.stdout == f"{tmp_path}/work/one\nHELLO\n"
    (tmp_path / "file").write_text("")
    blocked = Remote("host", folder="file/one").remote_line("echo reached", cwd=None)
    done = subprocess.run(["sh", "-c", f"cd {tmp_path} && {blocked}"], capture_output=True, text=True, check=False)  # noqa: ASYNC221
    assert (done.returncode, done.stdout) == (1, "")


async def test_a_sandbox_that_is_not_there_is_a_tool_that_fails(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    result = await Container("image", workspace=str(data_dir.parent)).execute("echo reached")
    assert isinstance(result, ExecutionResult)
    assert result.exit_code != 0
    assert "reached" not in result.stdout


async def test_doctor_lists_all_tools_with_reasons_and_what_is_risky_together(data_dir: Path) -> None:
    async with running(data_dir, allow_tools=("shell",), files=(data_dir.parent,)) as service:
        await service.agents.create(
            CALLER,
            AgentDraft(name="Bold", tools=("web_fetch", "shell", "read_files"), memory="auto"),
            agent_id=AgentId("bold"),
        )
        findings = await examine(service, CALLER)
    said = {what: " ".join(f.text for f in findings if f.what == what) for what in {f.what for f in findings}}
    assert all(name in said["tools"] for name in ("calculator", "notebook", "web_fetch", "read_files", "shell"))
    assert "python_repl: AGENT_MCP_ALLOW_TOOLS does not name it" in said["other tools"]
    assert "a folder that confines nothing" in said["allowed tools"]
    assert all(
        f"the agent bold has {what}" in said["careful"] for what in ("web_fetch and shell", "web_fetch and memory")
    )
    assert "read_files and the web" in said["careful"]


async def test_an_operators_function_can_not_stand_in_for_another_tool(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = data_dir.parent / "code"
    folder.mkdir()
    tool = '@tool\ndef {name}() -> str:\n    """A tool."""\n    return \'x\'\n\n'
    names = ("shell", "calculator", "agent_helper", "mcp__files__read", "weather")
    (folder / "stand_ins.py").write_text("from strands import tool\n\n" + "".join(tool.format(name=n) for n in names))
    monkeypatch.syspath_prepend(str(folder))  # pyright: ignore[reportUnknownMemberType] typed in part only
    async with running(data_dir, tools=("stand_ins",)) as service:
        assert [name for name in service.toolbox.names() if name.startswith("py:")] == ["py:weather"]
        assert len([warning for warning in service.toolbox.warnings if "until it is renamed" in warning]) == 4
