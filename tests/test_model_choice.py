"""Which model an agent gets: names, what callers may name, what `auto` comes to, and the parameters."""

import json
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent_mcp.errors import InvalidArgument, ModelNotAllowed, NoModel
from agent_mcp.models import Models, parse_model
from agent_mcp.models.clients import STREAMS
from conftest import assert_teaches, call, connect, refused, server_environment
from in_process import CALLER, running

PARAMS: dict[str, Any] = {
    "temperature": 0.2,
    "top_p": 0.9,
    "max_tokens": 500,
    "stop": ["END"],
    "reasoning_effort": "low",
}


@pytest.mark.parametrize(
    ("name", "means"),
    {
        "anthropic": "anthropic:claude-sonnet-4-6",
        "anthropic:claude-opus-4-8": "anthropic:claude-opus-4-8",
        "openai:ft:gpt-4.1:acme::x": "openai:ft:gpt-4.1:acme::x",
        "ollama:qwen3:8b": "ollama:qwen3:8b",
        "ollama": "ollama",
        "litellm:mistral/mistral-large-latest": "litellm:mistral/mistral-large-latest",
        "llamacpp": "llamacpp:default",
        "gemini": "gemini:gemini-3.5-flash",
        "offline": "offline:basic",
        "us.anthropic.claude-sonnet-4-20250514-v1:0": "bedrock:us.anthropic.claude-sonnet-4-20250514-v1:0",
        "arn:aws:bedrock:us-east-1:1:inference-profile/x": "bedrock:arn:aws:bedrock:us-east-1:1:inference-profile/x",
        "bedrock": "bedrock:global.anthropic.claude-sonnet-4-6",
    }.items(),
)
def test_a_name_is_split_at_its_first_colon_where_a_provider_stands_before_it(name: str, means: str) -> None:
    assert str(parse_model(name)) == means


@pytest.mark.parametrize("name", ["sonnet", "gpt-5", "openai:", "mistral:large", "litellm", "", "Anthropic:x"])
def test_a_name_that_is_none_is_refused_with_what_to_write(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"provider:model_id|default"):
        parse_model(name)


def test_bedrocks_default_is_strands_own() -> None:
    from strands.models.bedrock import DEFAULT_BEDROCK_MODEL_ID

    assert parse_model("bedrock").model_id == DEFAULT_BEDROCK_MODEL_ID


@contextmanager
def ollama(*names: str) -> Generator[dict[str, str]]:
    """An Ollama that has these models, and the environment in which it is found."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listed = [{"name": name, "details": {"family": "bert" if "embed" in name else "qwen3"}} for name in names]
            body = json.dumps({"models": listed}).encode()
            self.send_response(200 if self.path == "/api/tags" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep requests out of the test's output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield {"OLLAMA_HOST": f"127.0.0.1:{http.server_port}"}
        finally:
            http.shutdown()


NOTHING = {"OLLAMA_HOST": "127.0.0.1:9"}
"""An environment without anything; nobody listens on the discard port."""
AWS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """No profile of whoever runs the tests is found."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.mark.usefixtures("no_aws")
def test_auto_is_the_first_of_two_keys_aws_credentials_and_a_running_ollama() -> None:
    with ollama("nomic-embed-text:latest", "qwen3:8b", "llama3:latest") as running_ollama:
        everything = {"ANTHROPIC_API_KEY": "a", "OPENAI_API_KEY": "o", **AWS, **running_ollama}
        found: list[str] = []
        for gone in ("", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "AWS_ACCESS_KEY_ID"):
            everything.pop(gone, None)
            choice = Models(default="auto", environ=everything).choose(None)
            found.append(f"{choice.ref} because {choice.why}")
    assert [one.split(" because ")[0] for one in found] == [
        "anthropic:claude-sonnet-4-6",
        "openai:gpt-5.4",
        "bedrock:global.anthropic.claude-sonnet-4-6",
        "ollama:qwen3:8b",
    ]
    assert [
        next(
            text
            for text in (
                "ANTHROPIC_API_KEY is set",
                "OPENAI_API_KEY is set",
                "AWS_ACCESS_KEY_ID is set",
                "an Ollama runs",
            )
            if text in one
        )
        for one in found
    ] == ["ANTHROPIC_API_KEY is set", "OPENAI_API_KEY is set", "AWS_ACCESS_KEY_ID is set", "an Ollama runs"]


@pytest.mark.usefixtures("no_aws")
def test_auto_without_anything_says_what_to_set_and_names_offline_but_never_takes_it() -> None:
    with pytest.raises(NoModel) as error:
        Models(default="auto", environ=NOTHING).choose(None)
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "AWS_PROFILE", "Ollama", "AGENT_MCP_MODEL=offline"):
        assert name in error.value.message
    with ollama("nomic-embed-text:latest") as idle, pytest.raises(NoModel, match="ollama pull"):
        Models(default="auto", environ=idle).choose(None)


@pytest.mark.parametrize("name", ["anthropic", "openai", "gemini"])
def test_a_model_whose_key_is_missing_names_the_variable(name: str) -> None:
    with pytest.raises(NoModel, match=f"{name.upper()}_API_KEY"):
        Models(default=name, environ=NOTHING).choose(None)


def test_ollama_alone_is_the_first_model_that_is_installed_and_says_so_where_none_runs() -> None:
    with ollama("qwen3:8b") as running_ollama:
        assert str(Models(default="auto", environ=running_ollama).choose("ollama").ref) == "ollama:qwen3:8b"
    with pytest.raises(NoModel, match=r"no Ollama answers at http://127.0.0.1:9"):
        Models(default="ollama", environ=NOTHING).choose(None)


def test_a_missing_package_gives_the_command_that_installs_it() -> None:
    hidden = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name.split(".")[0] in ("anthropic",) else found(name, *more)
from agent_mcp.errors import NoModel
from agent_mcp.models import Models
try:
    Models(default="auto", environ={"ANTHROPIC_API_KEY": "a"}).choose(None)
except NoModel as error:
    print(error.message)
"""
    said = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, timeout=60)
    assert "pip install 'strands-agents[anthropic]'" in said.stdout, said


@pytest.mark.parametrize(
    ("allowed", "default", "may", "may_not"),
    [
        ((), "offline", ["openai:gpt-5", "offline", "auto"], []),
        (("anthropic:claude-*",), "offline", ["anthropic", "offline", "auto"], ["openai:gpt-5", "bedrock"]),
        (("anthropic",), "auto", ["anthropic:claude-sonnet-4-6"], ["anthropic:claude-opus-4-8"]),
        (("us.amazon.*",), "auto", ["us.amazon.nova-pro-v1:0", "bedrock:us.amazon.nova-2-v1:0"], ["bedrock"]),
    ],
)
def test_callers_may_name_what_a_pattern_covers_and_the_default(
    allowed: tuple[str, ...], default: str, may: list[str], may_not: list[str]
) -> None:
    models = Models(default=default, environ={}, allowed=allowed)
    for name in may:
        models.check(name)
    for name in may_not:
        with pytest.raises(ModelNotAllowed) as error:
            models.check(name)
        assert all(pattern in error.value.message for pattern in (*allowed, default, "AGENT_MCP_ALLOW_MODELS"))


def test_callers_who_are_authenticated_get_the_default_model_only_unless_the_operator_names_more() -> None:
    models = Models(default="offline", environ={}, authenticated=True)
    models.check("offline:basic")
    with pytest.raises(ModelNotAllowed):
        models.check("openai:gpt-5")
    Models(default="offline", environ={}, authenticated=True, allowed=("openai:*",)).check("openai:gpt-5")


@pytest.mark.parametrize("name", ["anthropic", "bedrock", "gemini", "litellm:a/b", "llamacpp", "ollama:a", "openai"])
def test_a_model_is_built_once_for_its_name_and_parameters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So all turns share its client, and a change of parameters by one agent is nothing to another."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    keys = ("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENAI_API_KEY")
    models = Models(default="auto", environ=dict.fromkeys(keys, "not-a-key"))
    ref = parse_model(name)
    one = models.build(ref, {"temperature": 0.5})
    assert models.build(ref, {"temperature": 0.5}) is one
    assert models.build(ref, {"temperature": 0.6}) is not one
    if name == "bedrock":
        inner: Any = getattr(one, "inner")  # noqa: B009
        # boto keeps ten connections where nothing is said, and throws the others away after each answer.
        assert inner.client.meta.config.max_pool_connections >= STREAMS


async def test_a_model_that_is_not_allowed_is_refused_and_left_out_of_agent_files_with_a_warning(
    data_dir: Path,
) -> None:
    files = data_dir / "agents"
    files.mkdir(parents=True)
    (files / "wanting.md").write_text("---\nname: Wanting\nmodel: openai:gpt-5\n---\nHelp.\n")
    (files / "assistants.md").write_text("---\nname: Assistants\nmodel: sonnet\ntools: Read, Bash\n---\nHelp.\n")
    (files / "inheriting.md").write_text("---\nname: Inheriting\nmodel: inherit\n---\nHelp.\n")
    async with connect(data_dir, env={"AGENT_MCP_ALLOW_MODELS": "anthropic:*, bedrock:us.*"}) as client:
        made = await refused(client, "create_agent", name="Own", model="openai:gpt-5")
        await call(client, "create_agent", name="Own", model="anthropic:claude-opus-4-8")
        changed = await refused(client, "update_agent", agent_id="own", model="gemini")
        listed = await call(client, "list_agents")
        asked = await call(client, "ask_agent", prompt="Hi", agent_id="wanting")
    assert_teaches(made, "model_not_allowed")
    assert "anthropic:*, bedrock:us.*, offline" in made
    assert_teaches(changed, "model_not_allowed")
    warnings = [warning for warning in listed["warnings"] if "model" in warning]
    assert len(warnings) == 2
    assert any("'openai:gpt-5' is not allowed" in warning for warning in warnings)
    assert any("'sonnet' is unknown" in warning for warning in warnings)
    assert asked["model"] == "offline:basic"


async def test_parameters_of_the_model_are_a_closed_list_that_is_kept_with_the_agent(data_dir: Path) -> None:
    async with connect(data_dir) as client:
        made = await call(client, "create_agent", name="Own", model_params=PARAMS)
        again = await call(client, "create_agent", name="Own", model_params=json.dumps(PARAMS))
        file = (data_dir / "agents" / "own.md").read_text()
        changed = await call(client, "update_agent", agent_id="own", model_params={"stop": "END"})
        cleared = await call(client, "update_agent", agent_id="own", model_params={})
        unknown = await refused(client, "create_agent", name="Other", model_params={"top_k": 3})
        wrong = await refused(client, "create_agent", name="Other", model_params={"temperature": 9})
    assert made["model_params"] == PARAMS
    assert (again["created"], again["model_params"]) == (False, PARAMS)
    assert "model_params:\n  temperature: 0.2\n" in file
    assert changed["model_params"] == {"stop": ["END"]}
    assert cleared["model_params"] == {}
    assert_teaches(unknown, "invalid_argument")
    assert "top_k" in unknown
    assert_teaches(wrong, "invalid_argument")


async def test_an_agent_file_with_a_parameter_that_there_is_not_is_reported_by_name(data_dir: Path) -> None:
    files = data_dir / "agents"
    files.mkdir(parents=True)
    (files / "odd.md").write_text("---\nname: Odd\nmodel_params:\n  top_k: 3\n---\nHelp.\n")
    async with running(data_dir) as service:
        page = await service.agents.list_agents(CALLER)
    assert any("odd.md" in warning and "model_params.top_k" in warning for warning in page.warnings)


def shell(data_dir: Path, *arguments: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "agent_mcp", *arguments],
        env=server_environment(data_dir, env),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout + done.stderr


def test_the_shell_takes_parameters_too(data_dir: Path) -> None:
    options = ["--param", "temperature=0.2", "--param", "stop=END", "--param", "stop=STOP"]
    made = json.loads(shell(data_dir, "agents", "create", "Own", *options, "--json"))
    assert made["model_params"] == {"temperature": 0.2, "stop": ["END", "STOP"]}
    text = shell(data_dir, "agents", "create", "Other", "--param", "top_k=3")
    assert "no model parameter 'top_k'" in text
    assert "[invalid_argument]" in text


@pytest.mark.usefixtures("no_aws")
def test_doctor_chooses_as_an_ask_does_and_lists_every_provider(data_dir: Path) -> None:
    env = {"AGENT_MCP_MODEL": "auto", "OPENAI_API_KEY": "sk-very-secret", **NOTHING}
    text = shell(data_dir, "doctor", **env)
    assert "model: openai:gpt-5.4 (auto: OPENAI_API_KEY is set)" in text
    for line in (
        "--    provider: anthropic: ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN is not set",
        "provider: openai: OPENAI_API_KEY is set",
        "provider: ollama: nothing answers at http://127.0.0.1:9",
        "provider: gemini: GEMINI_API_KEY or GOOGLE_API_KEY is not set",
        "ok    provider: offline: is always there",
        "ok    model: openai:gpt-5.4",
    ):
        assert line in text
    assert "secret" not in text
    text = shell(data_dir, "doctor", **NOTHING, AGENT_MCP_MODEL="bedrock")
    assert "--    model: bedrock:global.anthropic.claude-sonnet-4-6 (AGENT_MCP_MODEL names it); but no AWS" in text
