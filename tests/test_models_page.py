"""docs/models.md says of providers, parameters and failures what the code does."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent_mcp import agents
from agent_mcp.model_params import ModelParams
from agent_mcp.models.building import Order, build
from agent_mcp.models.clients import STREAMS, Clients
from agent_mcp.models.failures import AGAIN, Kind
from agent_mcp.models.names import DEFAULT_MODEL_IDS
from agent_mcp.models.providers import AWS_VARIABLES, PROVIDERS
from agent_mcp.tally import Tally

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "models.md").read_text("utf-8")
SOURCES = "".join(path.read_text("utf-8") for path in (ROOT / "src" / "agent_mcp" / "models").glob("*.py"))


def table(title: str) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of the table in a section."""

    def cells(line: str) -> list[str]:
        return [cell.strip() for cell in line.strip("|").split("|")]

    found = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    head, _, *rows = [line for line in found[1].splitlines() if line.startswith("|")]
    return cells(head), [cells(row) for row in rows]


def code(text: str) -> Iterator[str]:
    yield from re.findall(r"`([^`]+)`", text)


def test_each_provider_is_there_with_its_package_default_model_and_variables() -> None:
    extras: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    rows = {next(code(row[0])): row for row in table("Providers")[1]}
    assert rows.keys() == PROVIDERS.keys()
    for name, (_, package, default, variables) in rows.items():
        provider = PROVIDERS[name]
        assert list(code(package)) == ([f"strands-agents[{name}]"] if provider.module else [])
        assert (name in extras["optional-dependencies"]) is bool(provider.module)
        assert list(code(default)) == ([DEFAULT_MODEL_IDS[name]] if DEFAULT_MODEL_IDS[name] else [])
        said = set(code(variables))
        assert {*provider.keys, *provider.instead} <= said
        known = {*AWS_VARIABLES, "MISTRAL_API_KEY"}
        assert {one for one in said - known if f'"{one}"' not in SOURCES} == set()


def test_each_parameter_is_there_for_each_provider() -> None:
    head, rows = table("Parameters")
    assert [next(code(row[0])) for row in rows] == list(ModelParams.__annotations__)
    assert {*(name for cell in head[1:] for name in code(cell)), "offline"} == PROVIDERS.keys()
    (limit,) = (row[1] for row in rows if "`max_tokens`" in row[0])
    order = Order(model_id="m", params={}, environ={}, clients=Clients(), tally=Tally())
    assert f"{build('anthropic', order).get_config()['max_tokens']:,} if left out" in limit


def test_caching_is_told_of_each_provider_that_reads_anything() -> None:
    rows = table("Prompt caching")[1]
    assert {name for row in rows for name in code(row[0])} == PROVIDERS.keys() - {"offline"}


def test_each_kind_of_failure_is_there_with_how_often_it_is_tried_again() -> None:
    said = {row[0]: row[1].partition(":")[0] for row in table("When a call fails")[1]}
    times = {kind: f"{AGAIN[kind]} times" if kind in AGAIN else "no" for kind in Kind}
    assert said == {re.split(r"[:,.]", kind.value)[0]: tried for kind, tried in times.items()}
    waits = [agents.FIRST_DELAY_SECONDS * 2**number for number in range(agents.RETRIES)]
    assert f"{', '.join(map(str, waits[:-1]))} and {waits[-1]} seconds" in PAGE
    assert max(AGAIN.values()) == agents.RETRIES
    assert f"{STREAMS} answers can stream at once" in PAGE


def test_the_readme_leads_there() -> None:
    assert "(docs/models.md)" in (ROOT / "README.md").read_text("utf-8")
