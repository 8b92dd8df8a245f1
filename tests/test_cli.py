"""The command line, as a shell sees it: real processes, their output, their exit codes."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from agent_mcp.cli import cli
from agent_mcp.config import MARKER, Settings
from agent_mcp.errors import InvalidArgument
from bedrock_server import Answer, BedrockServer, Gate, Received, Script, say
from conftest import server_environment

COMMAND = [sys.executable, "-m", "agent_mcp"]


def run(
    data_dir: Path,
    *arguments: str,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in server_environment(data_dir, env).items() if k not in without}
    return subprocess.run(
        [*COMMAND, *arguments], input=stdin, env=environment, cwd=cwd, capture_output=True, text=True, timeout=180
    )


def invoke(data_dir: Path, *arguments: str) -> Result:
    """The same without a process of its own, where nothing depends on that."""
    env = {"AGENT_MCP_DATA_DIR": str(data_dir), "AGENT_MCP_MODEL": "offline"}
    return CliRunner().invoke(cli, arguments, env=env, prog_name="agent-mcp")


def session_of(stderr: str) -> str:
    found = re.search(r"^session: (\S+)$", stderr, re.MULTILINE)
    assert found, stderr
    return found[1]


def test_ask_prints_the_answer_on_stdout_and_the_session_on_stderr_and_goes_on_with_it(data_dir: Path) -> None:
    told = run(data_dir, "ask", "My name is John")
    session = session_of(told.stderr)
    asked = run(data_dir, "ask", "--session", session, "-", stdin="What's my name?\n")
    as_json = run(data_dir, "ask", "--session", session, "--json", stdin="What's my name?")
    assert (told.returncode, asked.returncode, as_json.returncode) == (0, 0, 0)
    assert "Your name is John." in told.stdout
    assert session not in told.stdout
    assert asked.stdout.startswith("Your name is John.")
    assert session_of(asked.stderr) == session
    reply = json.loads(as_json.stdout)  # nothing else is on stdout
    assert (reply["session_id"], reply["status"]) == (session, "completed")
    assert "John" in reply["response"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["hello", "--session", "s-00000000000000000000000000000000"], "session_not_found"),
        (["hello", "--session", "../etc"], "invalid_argument"),
        (["hello", "--agent", "nobody"], "agent_not_found"),
        (["  "], "invalid_argument"),
        (["hello", "--model", "nonsense"], "no_model"),
        (["hello", "--session-ttl", "soon"], "invalid_argument"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_exit_code_1(data_dir: Path, arguments: list[str], code: str) -> None:
    done = invoke(data_dir, "ask", *arguments)
    assert done.exit_code == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert line.endswith(f"[{code}]")


def test_without_a_model_ask_and_doctor_say_what_to_set_and_exit_with_1(data_dir: Path) -> None:
    nothing = {"AGENT_MCP_MODEL": "", "HOME": str(data_dir.parent), "AWS_EC2_METADATA_DISABLED": "true"}
    ask, doctor = run(data_dir, "ask", "hello", env=nothing), run(data_dir, "doctor", env=nothing)
    assert (ask.returncode, doctor.returncode) == (1, 1)
    for text in (ask.stderr, doctor.stdout):
        assert "AGENT_MCP_MODEL" in text
        assert "offline" in text
    assert ask.stderr.strip().endswith("[no_model]")
    assert not list(data_dir.glob("session_*"))


def test_doctor_is_content_on_offline_and_names_an_agent_file_that_is_broken(data_dir: Path) -> None:
    well = run(data_dir, "doctor")
    (data_dir / "agents" / "broken.md").write_text("no front matter")
    ill = run(data_dir, "doctor")
    assert well.returncode == 0, well.stdout
    assert "FAIL" not in well.stdout
    assert "offline:basic (AGENT_MCP_MODEL names it)" in well.stdout
    assert str(data_dir) in well.stdout
    assert ill.returncode == 1
    (failure,) = [line for line in ill.stdout.splitlines() if line.startswith("FAIL")]
    assert "broken.md" in failure


def test_doctor_says_that_a_data_directory_can_not_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "file" / "data", "doctor")
    assert done.returncode == 1
    assert "FAIL  data directory" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_demo_remembers_across_a_restart(tmp_path: Path) -> None:
    done = run(tmp_path / "unused", "demo", "--data-dir", str(tmp_path / "demo"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "remembered" in done.stdout
    assert list((tmp_path / "demo").glob("session_*"))
    assert not (tmp_path / "unused").exists()


def test_the_demo_as_json(tmp_path: Path) -> None:
    done = run(tmp_path / "unused", "demo", "--json", "--data-dir", str(tmp_path / "demo"))
    told = json.loads(done.stdout)
    assert (told["remembered"], told["apart"]) == (True, True)
    first, again, other = told["replies"]
    assert first["session_id"] == again["session_id"] != other["session_id"]


def test_every_command_that_prints_a_result_prints_it_as_json_too() -> None:
    without = {path for path, one in commands(cli) if not any("--json" in option.opts for option in one.params)}
    # A server, a script for the shell, and texts in a format that --format names.
    assert without == {"serve", "completion", "sessions export"}


def commands(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, one in group.commands.items():
        if isinstance(one, click.Group):
            yield from commands(one, f"{above}{name} ")
        else:
            yield f"{above}{name}", one


def test_help_names_every_setting_with_its_variable(data_dir: Path) -> None:
    for arguments in (["--help"], ["serve", "--help"]):
        done = invoke(data_dir, *arguments)
        assert done.exit_code == 0
        text = " ".join(done.stdout.split())
        for name in Settings.model_fields:
            assert f"--{name.replace('_', '-')}" in text
            assert f"AGENT_MCP_{name.upper()}]" in text


def test_a_flag_wins_over_the_environment_behind_and_in_front_of_the_command(data_dir: Path, tmp_path: Path) -> None:
    flags = ["--data-dir", str(tmp_path / "flag"), "--model", "offline:small"]
    behind = invoke(data_dir, "ask", "hello", "--json", *flags)
    front = invoke(data_dir, *flags, "ask", "hello", "--json")
    for done in (behind, front):
        assert json.loads(done.stdout)["model"] == "offline:small", done.stderr
    assert len(list((tmp_path / "flag").glob("session_*"))) == 2
    assert not data_dir.exists()


def test_the_data_directory_is_sessions_only_where_that_holds_the_marker(tmp_path: Path) -> None:
    home, marked, unmarked = tmp_path / "home", tmp_path / "marked", tmp_path / "unmarked"
    for directory in (home, marked / "sessions", unmarked / "sessions"):
        directory.mkdir(parents=True)
    (marked / "sessions" / MARKER).touch()
    env = {"HOME": str(home), "XDG_DATA_HOME": str(home / "data")}
    for cwd in (marked, unmarked):
        done = run(tmp_path, "ask", "hello", env=env, without=["AGENT_MCP_DATA_DIR"], cwd=cwd)
        assert done.returncode == 0, done.stderr
    assert len(list((marked / "sessions").glob("session_*"))) == 1
    assert not list((unmarked / "sessions").iterdir())
    assert len(list(home.rglob("session_*"))) >= 1


def test_settings_are_read_from_the_environment_that_is_given(tmp_path: Path) -> None:
    settings = Settings.from_env(
        {"AGENT_MCP_DATA_DIR": "~/x", "AGENT_MCP_TOOLS": " a , b,", "AGENT_MCP_FSYNC": "off", "AGENT_MCP_MODEL": ""},
        cwd=tmp_path,
    )
    assert settings.data_dir == Path("~/x").expanduser()
    assert settings.tools == ("a", "b")
    assert settings.fsync is False
    assert settings.model == "auto"
    with pytest.raises(InvalidArgument, match="AGENT_MCP_MAX_CALLS='0' can't be used"):
        Settings.from_env({"AGENT_MCP_MAX_CALLS": "0"}, cwd=tmp_path)


def test_a_reader_that_leaves_early_gets_no_traceback(data_dir: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        done = subprocess.run(
            [*COMMAND, "ask", "Tell me something"],
            env=server_environment(data_dir),
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            timeout=180,
        )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_text_that_is_no_utf8_is_refused_in_one_line(data_dir: Path) -> None:
    done = subprocess.run(
        [*map(os.fsencode, COMMAND), b"ask", b"caf\xe9"],
        env=server_environment(data_dir) | {"PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=180,
    )
    assert done.returncode == 1
    assert done.stderr.decode().strip().endswith("[invalid_argument]")


def saying(*parts: str | Gate) -> Script:
    def script(received: Received) -> Answer:
        return say(*parts)

    return script


@pytest.fixture
def bedrock() -> Iterator[BedrockServer]:
    with BedrockServer(saying("Hello.")) as server:
        yield server
        assert server.violations == []


HEARS_CTRL_C = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Becomes the command behind it with Ctrl-C as in a terminal: a shell's job in the background would ignore it."""


def start_ask(data_dir: Path, bedrock: BedrockServer, *arguments: str) -> subprocess.Popen[bytes]:
    env = server_environment(data_dir, bedrock.env | {"AGENT_MCP_MODEL": "vendor.model-v1"})
    return subprocess.Popen(
        [sys.executable, "-c", HEARS_CTRL_C, *COMMAND[1:], "ask", *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def read_until(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """Reads the process's stdout until it holds `text`; fails after 30 s."""
    assert process.stdout is not None
    got = b""
    deadline = time.monotonic() + 120
    while text not in got:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"only {got!r} came"
        got += os.read(process.stdout.fileno(), 4096)
    return got


def test_the_answer_is_printed_while_it_is_written(data_dir: Path, bedrock: BedrockServer) -> None:
    gate = Gate()
    bedrock.script = saying("The beginning ", gate, "and the end.")
    with start_ask(data_dir, bedrock, "Tell me") as process:
        first = read_until(process, b"The beginning")
        assert b"end" not in first
        gate.release()
        rest, _ = process.communicate(timeout=120)
    assert (first + rest).decode() == "The beginning and the end.\n"
    assert process.returncode == 0


def test_ctrl_c_ends_an_ask_without_a_traceback_and_leaves_a_session_that_goes_on(
    data_dir: Path, bedrock: BedrockServer
) -> None:
    gate = Gate()
    bedrock.script = saying("The beginning ", gate, "and the end.")
    with start_ask(data_dir, bedrock, "Tell me", "--session", "mine", "--agent", "assistant") as process:
        read_until(process, b"The beginning")
        process.send_signal(signal.SIGINT)
        timer = threading.Timer(30, process.kill)
        timer.start()
        _, stderr = process.communicate()
        timer.cancel()
    gate.release()
    assert b"Traceback" not in stderr
    assert stderr.endswith(b"Stopped.\n")
    assert process.returncode == 130
    bedrock.script = saying("I am here.")
    env = bedrock.env | {"AGENT_MCP_MODEL": "vendor.model-v1"}
    again = run(data_dir, "ask", "Still there?", "--session", "mine", env=env)
    assert again.stdout == "I am here.\n"
    sent = bedrock.requests[-1].messages
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert sent[1]["content"][0]["text"].startswith("The beginning")
