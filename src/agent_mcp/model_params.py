"""What a caller may set of a model: a closed list, for every other knob belongs to the operator."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

# pydantic wants this one in front of Python 3.12.
from typing_extensions import TypedDict

from agent_mcp.errors import InvalidArgument


def _texts(value: object) -> object:
    return [value] if isinstance(value, str) else value


class ModelParams(TypedDict, total=False):
    """Parameters of an agent's model, under one name for all providers. What is absent is the provider's default."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # pyright: ignore[reportGeneralTypeIssues] pydantic's place for it

    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)]
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=100)]], BeforeValidator(_texts), Field(max_length=8)
    ]
    reasoning_effort: Literal["low", "medium", "high"]


_ADAPTER = TypeAdapter(ModelParams)


def params_schema() -> dict[str, Any]:
    """Their JSON schema, in one piece: simple hosts follow no references."""
    return _ADAPTER.json_schema()


def parse_params(given: Iterable[str]) -> ModelParams:
    """Parameters written as `name=value`, a list as several of one name; raises InvalidArgument."""
    values: dict[str, Any] = {}
    for item in given:
        name, _, value = item.partition("=")
        if name == "stop":
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    return check_params(values)


def check_params(values: object) -> ModelParams:
    """The parameters, checked; raises InvalidArgument that names the first wrong one."""
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(ModelParams.__annotations__)
        if first["type"] == "extra_forbidden":
            raise InvalidArgument(f"There is no model parameter {name[:60]!r}. There are: {known}.") from None
        raise InvalidArgument(f"The model parameter {name!r} can't be used: {first['msg']}.") from None
