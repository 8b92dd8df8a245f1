"""Where the server's data lie is for its operator to know, and what lies there for nobody else to read."""

import logging
import os
import stat
from pathlib import Path

import pytest

from conftest import ERAS, text_of
from life import shell
from test_failures import give_back, take_away
from web import serving

CALLS = (
    ("POST", "/agents/assistant/invoke", {"prompt": "Hello"}),
    ("POST", "/agents", {"name": "Own"}),
    ("GET", "/sessions", None),
)


@pytest.mark.parametrize("mode", ERAS)
async def test_what_is_refused_for_the_disk_names_no_place_over_http_and_the_log_does(
    tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    with serving(data) as web:
        web.ask("My name is John")
        async with web.mcp(mode) as client:
            caplog.set_level(logging.INFO, "agent_mcp")
            caplog.clear()
            take_away(data)
            answers = [web.rest.request(method, f"/api/v1{path}", json=body) for method, path, body in CALLS]
            texts = [answer.text for answer in answers]
            for tool, given in (("ask_agent", {"prompt": "Hello"}), ("start_session", {})):
                result = await client.call_tool(tool, given)
                assert result.is_error
                texts.append(text_of(result))
            give_back(data)
    assert [answer.status_code for answer in answers] == [507] * len(answers)
    for text in texts:
        assert "storage_error" in text
        assert str(tmp_path) not in text, text
    assert f"the data directory {data} can't be used" in caplog.text


def test_a_memory_that_cannot_be_opened_names_no_place_either(tmp_path: Path) -> None:
    (tmp_path / "data" / "memory.db").mkdir(parents=True)
    with serving(tmp_path / "data") as web:
        refused = web.post("/memories", {"text": "likes tea"})
    assert (refused.status_code, refused.json()["code"]) == (507, "storage_error")
    assert str(tmp_path) not in refused.text


async def test_the_shell_and_doctor_say_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    asked = await shell(tmp_path / "data", "ask", "Hello")
    assert (asked.code, asked.out) == (1, "")
    [line] = asked.err.splitlines()
    assert f"It is {tmp_path / 'data'}." in line
    assert line.endswith("[storage_error]")
    examined = await shell(tmp_path / "data", "doctor")
    assert examined.code == 1
    assert str(tmp_path / "data") in examined.out


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_what_is_kept_can_be_read_by_the_servers_user_only(tmp_path: Path) -> None:
    """Everything below the directory counts as closed where the directory itself is."""
    data = tmp_path / "deep" / "data"
    with serving(data, tokens=None) as web:
        web.ask("My name is John")
        web.post("/memories", {"text": "likes tea"})
        found = {path: stat.S_IMODE(path.stat().st_mode) for path in (data, *data.rglob("*"))}
    assert found[data] == 0o700
    locks = data / "locks"
    assert [path for path, mode in found.items() if mode & 0o077 and locks not in path.parents] == []
