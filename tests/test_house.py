"""The house: imports point down only, doors call the service, and no room grows past one screen of ideas."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent_mcp

ROOT = Path(agent_mcp.__file__).parent

FLOORS: tuple[tuple[str, ...], ...] = (
    # What everybody may use.
    (
        "__init__",
        "errors",
        "events",
        "late",
        "offline",
        "agent_loop",
        "approval_words",
        "characters",
        "trace_export",
        "next_calls",
    ),
    ("traces",),
    ("model_params",),
    ("server.__init__", "storage.__init__", "http.__init__"),
    ("ids",),
    ("domain",),
    ("tally",),
    ("config", "cursors", "turn_queue", "token_limit", "approvals", "sandboxes", "contained", "arguments"),
    ("models.names", "models.ollama_server", "models.clients", "models.failures"),
    ("models.guarded", "models.effort"),
    ("models.streams", "models.ollama_model", "models.litellm_quiet"),
    ("models.providers",),
    ("models.choice", "models.building"),
    (
        "toolbox.addresses",
        "toolbox.arithmetic",
        "toolbox.internet",
        "toolbox.markup",
        "toolbox.bench",
        "toolbox.charsets",
        "toolbox.files",
        "toolbox.operator_tools",
        "toolbox.risks",
        "toolbox.server_file",
    ),
    ("toolbox.guard", "toolbox.pages", "toolbox.delegation", "toolbox.notebooks"),
    ("toolbox.web", "toolbox.builtin", "toolbox.server_link"),
    ("toolbox.mcp_servers", "toolbox.search"),
    ("toolbox.server_tool",),
    ("models.__init__", "toolbox.__init__", "transcripts", "transcript_page"),
    # What is remembered of actors.
    ("memory.__init__", "memory.ranking", "storage.database"),
    ("memory.facts",),
    ("memory.queue",),
    ("memory.aws", "memory.local", "memory.meaning"),
    ("memory.agentcore",),
    # Where things are kept. `store` is the front of its package.
    ("storage.durable", "storage.locks", "storage.layout", "storage.wording", "storage.failures", "storage.shapes"),
    (
        "storage.index_file",
        "storage.searching",
        "storage.fenced",
        "storage.agent_files",
        "storage.turn_files",
        "storage.subjects",
    ),
    ("storage.catalog",),
    ("storage.history",),
    ("storage.session_files",),
    ("storage.upkeep",),
    ("storage.repair",),
    ("storage.store", "token_file", "oauth"),
    # Agents and their turns.
    ("context", "settle", "agent_library", "memory.actor_store", "memory.learning", "memory.room", "outside"),
    ("agents", "recovery", "memory.worker", "memory.lessons"),
    ("outcomes",),
    ("turn_steps",),
    ("following", "unkept"),
    ("turns",),
    # The use cases. `__init__` is their front.
    ("service.stores",),
    ("service.agent_cases", "service.memory_cases"),
    ("service.session_cases",),
    ("service.admission",),
    ("service.turn_cases", "service.suggestions", "service.change_cases"),
    ("service.erasure",),
    ("service.__init__",),
    # The doors.
    ("server.cancels", "server.icons"),
    ("server.tool_table", "server.resources", "server.stdio", "doctor", "demo", "hosts"),
    ("server.prompts", "server.progress", "server.memory_tools", "install"),
    ("server.completions", "server.notices", "server.tasks"),
    ("server.tools",),
    ("server.app",),
    ("http.problems",),
    ("http.access", "http.access_log", "http.callers", "http.identify", "http.forms", "http.openapi", "http.streams"),
    ("http.parts",),
    ("http.rest_agents", "http.rest_memories", "http.rest_sessions", "http.rest_turns", "http.metrics"),
    ("http.app", "http.serving"),
    # The composition root.
    ("compose",),
    ("cli.terminal",),
    ("cli.common", "letting_in"),
    ("cli.completion", "cli.exports"),
    ("cli.agents", "cli.http", "cli.install", "cli.memory", "cli.sessions", "cli.token", "cli.turns"),
    ("cli.__init__",),
    ("__main__",),
)
"""From the ground up. A module imports from floors below its own, never from its own floor or one above."""

DOORS = ("server.", "http.", "doctor")
BELOW_NO_DOOR_GOES = {
    "arguments",
    "characters",
    "domain",
    "model_params",
    "errors",
    "events",
    "cursors",
    "following",
    "next_calls",
}
"""What doors may import beside each other and the use cases: the words they speak in, and the view of a turn."""

KNOWS_PATHS = ("storage.", "token_file", "config", "cli", "demo", "agent_library", "compose", "hosts", "install")
"""Who may import pathlib: the rooms that know a layout, and those that are given a place by the operator."""

SPEAKS_MCP = ("server.", "http.", "demo", "install", "toolbox.server_link")
"""Who may import MCP's packages: doors, what tries the server as a client, and the client of other servers."""

LINES = 400
LONGER = {
    "offline": (480, "a table of what it understands, which is read as one"),
}
"""Modules over the ceiling, with a ceiling of their own and the reason."""


def modules() -> dict[str, ast.Module]:
    """Each module by its name below `agent_mcp`."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(ROOT.rglob("*.py"))
    }


def imported(tree: ast.Module, names: set[str]) -> Iterator[str]:
    """What a module imports of the package, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            base = (node.module or "").split(".")
            if base[0] == "agent_mcp":
                inner = ".".join(base[1:])
                for alias in node.names:
                    name = ".".join(filter(None, (inner, alias.name)))
                    yield name if name in names else inner if inner in names else f"{inner}.__init__".lstrip(".")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "agent_mcp" and len(parts) > 1:
                    yield ".".join(parts[1:])


MODULES = modules()
FLOOR = {name: number for number, floor in enumerate(FLOORS) for name in floor}


def test_every_module_has_its_floor_and_every_floor_its_modules() -> None:
    assert set(MODULES) == set(FLOOR)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_floors_below(name: str) -> None:
    above = {other for other in imported(MODULES[name], set(MODULES)) if FLOOR[other] >= FLOOR[name]}
    assert not above, f"{name} is on floor {FLOOR[name]}"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(DOORS)])
def test_a_door_calls_the_service_and_nothing_below_it(name: str) -> None:
    below = {other for other in imported(MODULES[name], set(MODULES)) if not other.startswith((*DOORS, "service."))}
    assert below <= BELOW_NO_DOOR_GOES


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith(KNOWS_PATHS)])
def test_only_the_storage_knows_a_path(name: str) -> None:
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "pathlib"
        elif isinstance(node, ast.Import):
            assert "pathlib" not in [alias.name for alias in node.names]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith(SPEAKS_MCP)])
def test_only_the_doors_know_the_protocol(name: str) -> None:
    for node in ast.walk(MODULES[name]):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not [one for one in names if one.split(".")[0] in ("mcp", "mcp_types")]


@pytest.mark.parametrize("name", MODULES)
def test_no_module_is_long_without_a_reason(name: str) -> None:
    lines = len((ROOT / Path(*name.split("."))).with_suffix(".py").read_text(encoding="utf-8").splitlines())
    ceiling, _ = LONGER.get(name, (LINES, ""))
    assert lines <= ceiling


def test_the_reasons_are_of_modules_that_are_long() -> None:
    for name in LONGER:
        lines = (ROOT / Path(*name.split("."))).with_suffix(".py").read_text(encoding="utf-8").splitlines()
        assert len(lines) > LINES, f"{name} needs no reason any more"
