"""One tree out of the exceptions of all providers' packages: what each comes to is written down, class by class.

Strands' own are in test_error_map.py.
"""

import builtins
import importlib
import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any

import botocore.session
import openai
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from agent_mcp.models.failures import AWS_CODES, KINDS, Kind, kind_of

PACKAGES = [
    *("anthropic", "botocore.exceptions", "google.genai.errors", "httpx", "litellm.exceptions", "ollama", "openai"),
]
"""Where the exceptions are that a provider's model can raise. Other parts of LiteLLM's and Gemini's packages have some
too: those of the first are turned into these, those of the second are of another way to ask."""

FAMILIES = {
    "botocore.exceptions.BotoCoreError": "what boto finds wrong with its settings or its use before it asks anything",
    "botocore.exceptions.LoginError": "credentials that are got by signing in, whatever the step that failed",
    "botocore.exceptions.SSOError": "the same, by single sign-on",
}
"""Classes that stand for all that derive from them, and why. Everywhere else a class is known by its own name only."""

_CLASS = re.compile(r"^class (\w+)\(([^)]*)\)\s*:", re.MULTILINE)


def exceptions_of(package: str) -> list[type[Exception]]:
    """The exception classes that a package or module defines at the top of its modules, by its sources."""
    if package == "litellm.exceptions":
        importlib.import_module("agent_mcp.models.litellm_quiet")  # which must be the first to import it
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    origin = Path(spec.origin)
    root = origin.parent
    files = sorted(root.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    found: dict[str, set[str]] = {}
    known = {name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, Exception)}
    if package == "litellm.exceptions":
        known |= {one.__name__ for one in exceptions_of("openai")}
    while True:
        before = len(known)
        for file in files:
            parts = file.relative_to(root).with_suffix("").parts if len(files) > 1 else ()
            module = ".".join([package, *(part for part in parts if part != "__init__")])
            for name, bases in _CLASS.findall(file.read_text(encoding="utf-8")):
                if known & {base.strip().rpartition(".")[2] for base in bases.split(",")}:
                    found.setdefault(module, set()).add(name)
                    known.add(name)
        if len(known) == before:
            break
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that nobody needs but this test
        classes = [getattr(importlib.import_module(module), name) for module, names in found.items() for name in names]
    return [one for one in classes if issubclass(one, Exception) and not issubclass(one, Warning)]


def name_of(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def is_known(kind: type[BaseException]) -> bool:
    """Whether the table has a class by its own name, or by that of a family."""
    first = next((name for name in map(name_of, kind.__mro__) if name in KINDS), "")
    return first == name_of(kind) or first in FAMILIES


@pytest.mark.parametrize("package", PACKAGES)
def test_it_is_known_what_every_exception_of_a_providers_package_comes_to(package: str) -> None:
    classes = exceptions_of(package)
    assert len(classes) > 1
    assert [name_of(one) for one in classes if not is_known(one)] == []
    gone = {name for name in KINDS if name.startswith(f"{package}.")} - {name_of(one) for one in classes}
    assert gone == set(), "the table has exceptions that there are not"


def test_an_exception_that_a_package_gets_is_not_known_until_it_is_in_the_table() -> None:
    class New(openai.APIStatusError):
        """As a later version of the package might have it."""

    class NewSetting(BotoCoreError):
        """A member of a family."""

    assert not is_known(New)
    assert not is_known(type("Other", (Exception,), {}))
    assert is_known(NewSetting)


def test_it_is_known_what_every_error_of_bedrock_comes_to() -> None:
    service: Any = botocore.session.Session().get_service_model("bedrock-runtime")
    asked = [service.operation_model(name) for name in ("Converse", "ConverseStream", "CountTokens")]
    codes = {shape.name.lower() for operation in asked for shape in operation.error_shapes}
    stream = service.operation_model("ConverseStream").get_event_stream_output()
    codes |= {name.lower() for name, shape in stream.members.items() if shape.metadata.get("exception")}
    assert len(codes) > 8
    assert codes - AWS_CODES.keys() == set()


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ThrottlingException", 429, Kind.THROTTLED),
        ("modelStreamErrorException", None, Kind.DROPPED),
        ("OptInRequired", 403, Kind.REFUSED),
        ("Unheard", 503, Kind.THROTTLED),
        ("Unheard", 418, Kind.REJECTED),
        ("Unheard", None, Kind.FAILED),
    ],
)
def test_an_error_of_aws_is_judged_by_its_code_and_where_that_is_unknown_by_its_status(
    code: str, status: int | None, kind: Kind
) -> None:
    told = {"Error": {"Code": code}, "ResponseMetadata": {} if status is None else {"HTTPStatusCode": status}}
    assert kind_of(ClientError(told, "ConverseStream")) is kind  # pyright: ignore[reportArgumentType] as boto makes it


def test_an_error_that_only_says_that_it_failed_is_judged_by_what_is_within() -> None:
    outer = RuntimeError("it failed")
    outer.__cause__ = ConnectionResetError("by the peer")
    assert kind_of(outer) is Kind.DROPPED
    outer.__cause__ = ConnectionRefusedError("nobody there")
    assert kind_of(outer) is Kind.UNREACHABLE
    outer.__cause__ = ValueError("something else")
    outer.__cause__.__cause__ = outer
    assert kind_of(outer) is Kind.FAILED
