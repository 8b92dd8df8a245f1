"""read_files stays within the operator's directories, and the notebook within the session."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent_mcp.domain import AgentId
from agent_mcp.service import AgentDraft, Service
from agent_mcp.toolbox import files, reads_outside
from in_process import CALLER, ask, running
from life import order


@pytest.fixture
def shelves(tmp_path: Path) -> Path:
    """Two directories of the operator's, and what lies beside them."""
    docs = tmp_path / "shelves" / "docs"
    (docs / "guide").mkdir(parents=True)
    (docs / "guide" / "start.md").write_text("# Start\nThe password is swordfish.\n")
    (docs / "long.txt").write_text("".join(f"line {number}\n" for number in range(1, 6001)))
    (docs / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (docs / "text.bin").write_bytes(b"text\0text")
    (docs / "huge.txt").write_bytes(b"a" * (9 * 1024 * 1024))
    (docs / ".hidden").mkdir()
    (docs / ".hidden" / "key").write_text("swordfish")
    other = tmp_path / "other" / "docs"
    other.mkdir(parents=True)
    (other / "plan.md").write_text("Swordfish again.\n")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key.txt").write_text("SECRET")
    (docs / "way-out").symlink_to(secret)
    (docs / "key.txt").symlink_to(secret / "key.txt")
    (docs / "guide" / "up").symlink_to("../../../secret")
    (docs / "inside").symlink_to("guide")
    os.mkfifo(docs / "pipe")
    return tmp_path


class Reader:
    """An agent with read_files."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def use(self, action: str, path: str = "", **arguments: object) -> tuple[str, str]:
        """How the tool ended, and what it gave."""
        reply = await ask(self.service, order("read_files", action=action, path=path, **arguments), agent="reader")
        (call,) = reply.tool_calls
        page = await self.service.sessions.read(CALLER, reply.session_id)
        return str(call.status), next(m.text for m in page.messages if m.role == "tool")


@asynccontextmanager
async def reader(data: Path, *directories: Path) -> AsyncGenerator[Reader]:
    async with running(data, files=directories) as service:
        await service.agents.create(
            CALLER, AgentDraft(name="Reader", tools=("read_files",)), agent_id=AgentId("reader")
        )
        yield Reader(service)


async def test_files_are_listed_searched_and_read_by_names_that_show_no_place(data_dir: Path, shelves: Path) -> None:
    async with reader(data_dir, shelves / "shelves" / "docs", shelves / "other" / "docs") as agent:
        assert await agent.use("list") == ("success", "docs/\ndocs-2/")
        _, listed = await agent.use("list", "docs")
        assert listed.splitlines()[:4] == [
            *(".hidden/", "guide/", "huge.txt (9437184 bytes)", "long.txt (58893 bytes)")
        ]
        assert "key.txt" not in listed
        assert await agent.use("read", "docs/guide/start.md") == ("success", "# Start\nThe password is swordfish.\n")
        _, found = await agent.use("search", "docs", query="SWORDFISH")
        assert found == "docs/guide/start.md:2: The password is swordfish.\n[Nothing else fits.]"
        _, found = await agent.use("search", "docs-2", query="swordfish", name="*.txt")
        assert found.startswith("[Nothing contains 'swordfish'.")
        status, text = await agent.use("read", str(shelves / "other" / "docs" / "plan.md"))
        assert (status, text) == ("success", "Swordfish again.\n")
        _, first = await agent.use("read", "docs/long.txt")
        assert "of 6000: read on with start_line=" in first
        _, last = await agent.use("read", "docs/long.txt", start_line=5999)
        assert last == "line 5999\nline 6000\n"


WAYS_OUT = [
    *("docs/../secret/key.txt", "docs/guide/../../../secret/key.txt", "../secret/key.txt", "/etc/passwd", "etc/passwd"),
    *("docs/way-out/key.txt", "docs/key.txt", "docs/guide/up/key.txt", "docs/inside/start.md", "docs/./../../secret"),
    *("file:///etc/passwd", "~/.ssh/id_rsa", "docs/\x00", "docs//..//../secret/key.txt", "secret/key.txt", "docs/pipe"),
    *("docs/picture.png", "docs/text.bin", "docs/huge.txt", "docs/guide", "docs/missing"),
]


@pytest.mark.timeout(120)
async def test_nothing_outside_and_no_binary_file_is_read_by_any_path(data_dir: Path, shelves: Path) -> None:
    async with reader(data_dir, shelves / "shelves" / "docs") as agent:
        for path in [*WAYS_OUT, str(shelves / "secret" / "key.txt"), str(shelves / "shelves" / "docs" / "key.txt")]:
            status, text = await agent.use("read", path)
            assert status == "error", path
            assert "SECRET" not in text
        for path in ("docs/way-out", "docs/guide/up", "docs/..", "/", ".."):
            assert "key.txt" not in (await agent.use("list", path))[1]
        _, found = await agent.use("search", "docs", query="SECRET")
        assert found.startswith("[Nothing contains")


async def test_without_directories_there_is_no_read_files(data_dir: Path) -> None:
    async with running(data_dir) as service:
        assert "read_files" not in service.toolbox.names()
        why = next(offer for offer in service.toolbox.offers() if offer.name == "read_files")
        assert (why.allowed, why.why) == (False, "AGENT_MCP_FILES names no directory")


async def test_a_notebook_stays_with_its_session_over_a_restart(data_dir: Path) -> None:
    async with running(data_dir) as service:
        await service.agents.create(CALLER, AgentDraft(name="Clerk", tools=("notebook",)), agent_id=AgentId("clerk"))
        wrote = await ask(service, order("notebook", mode="create", name="plan", new_str="Step one"), agent="clerk")
        session = wrote.session_id
    async with running(data_dir) as service:
        again = await ask(service, order("notebook", mode="read", name="plan"), session)
        assert "Step one" in again.response
        other = await ask(service, order("notebook", mode="read", name="plan"), agent="clerk")
        assert "Step one" not in other.response
        assert other.tool_calls[0].status == "error"
        too_much = await ask(service, order("notebook", mode="write", name="plan", new_str="x" * 70_000), session)
        assert too_much.tool_calls[0].status == "error"


async def test_a_search_has_an_end_in_a_tree_without_files(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_SEARCHED", 50)
    docs = tmp_path / "docs"
    for number in range(60):
        (docs / f"d{number:02}").mkdir(parents=True)
    (docs / "d59" / "last.txt").write_text("swordfish")
    async with reader(data_dir, docs) as agent:
        assert (await agent.use("search", "docs", query="swordfish"))[1].endswith("search a directory below.]")
        assert "last.txt:1" in (await agent.use("search", "docs/d59", query="swordfish"))[1]


async def test_the_notebooks_of_a_session_are_bounded_together(data_dir: Path) -> None:
    async with running(data_dir) as service:
        await service.agents.create(CALLER, AgentDraft(name="Clerk", tools=("notebook",)), agent_id=AgentId("clerk"))

        async def use(session: str | None, **arguments: object) -> tuple[str, str, str]:
            reply = await ask(service, order("notebook", **arguments), session, agent="clerk")
            page = await service.sessions.read(CALLER, reply.session_id)
            told = [m.text for m in page.messages if m.role == "tool"][-1]
            return str(reply.tool_calls[0].status), told, reply.session_id

        _, _, session = await use(None, mode="create", name="first", new_str="kept")
        ends: list[str] = []
        told = ""
        for number in range(9):
            # The name counts as the text does.
            name, text = (f"n{number}", "x" * 40_000) if number % 2 else (f"n{number}" + "y" * 40_000, "x")
            status, told, _ = await use(session, mode="create", name=name, new_str=text)
            ends.append(status)
        assert ends == ["success"] * 6 + ["error"] * 3
        assert "nothing was written" in told
        assert (await use(session, mode="read", name="first"))[1] == "kept"
        assert "n8" not in (await use(session, mode="list"))[1]
        assert (await use(session, mode="clear", name="n1"))[0] == "success"
        assert (await use(session, mode="create", name="n9", new_str="x" * 30_000))[0] == "success"


def test_what_brings_in_the_words_of_others_is_known_by_the_names_that_models_use() -> None:
    assert all(map(reads_outside, ("web_fetch", "web_search", "http_request", "mcp_files_read", "agent_helper")))
    assert not any(map(reads_outside, ("calculator", "notebook", "read_files", "search_session")))
