"""The arguments of REST calls, as bodies and queries give them. What is not known is refused by name."""

from __future__ import annotations

# pydantic wants this one in front of Python 3.12.
from typing import Annotated, Any, Literal, Required

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from agent_mcp.domain import (
    LONGEST_LIFE,
    ActorId,
    AgentId,
    MemoryId,
    MemoryMode,
    SessionId,
    TurnId,
    parse_actor_id,
    parse_agent_id,
    parse_memory_id,
    parse_session_id,
    parse_turn_id,
)
from agent_mcp.errors import InvalidArgument
from agent_mcp.model_params import ModelParams, check_params
from agent_mcp.service import AgentDraft
from agent_mcp.service.memory_cases import DEFAULT_HITS
from agent_mcp.service.stores import DEFAULT_PAGE, MAX_PAGE

AgentKey = Annotated[
    AgentId, AfterValidator(parse_agent_id), Field(json_schema_extra={"pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"})
]
SessionKey = Annotated[
    SessionId, AfterValidator(parse_session_id), Field(json_schema_extra={"pattern": "^[a-z0-9][a-z0-9_-]{0,99}$"})
]
ActorKey = Annotated[
    ActorId,
    AfterValidator(parse_actor_id),
    Field(json_schema_extra={"pattern": r"^[^\s\x00-\x1f\x7f]+$", "minLength": 1, "maxLength": 200}),
]
TurnKey = Annotated[TurnId, AfterValidator(parse_turn_id), Field(json_schema_extra={"pattern": "^t-[0-9a-f]{32}$"})]
MemoryKey = Annotated[
    MemoryId,
    AfterValidator(parse_memory_id),
    Field(json_schema_extra={"pattern": "^m(em)?-[a-zA-Z0-9_-]{1,60}$"}),
]
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Life = Annotated[int, Field(ge=0, le=LONGEST_LIFE, description="Idle life in seconds; 0 = never expires")]
Budget = Annotated[int, Field(ge=0, description="Tokens that the whole session may use; 0 = no limit")]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE)]


_Stop = Annotated[str, Field(min_length=1, max_length=100)]


class Form(BaseModel):
    """Arguments of one call in its body. null means absent; a number is no text and no truth value."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Search(BaseModel):
    """Arguments of one call in its query, where everything is text."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ParamsForm(ModelParams, total=False):
    """Parameters of a model."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # pyright: ignore[reportGeneralTypeIssues] its place

    stop: Annotated[list[_Stop], Field(max_length=8)]


class ModelForm(ParamsForm):
    """A model and its parameters in one object, as Strands' configurations have them."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # pyright: ignore[reportGeneralTypeIssues] its place

    model_id: Required[Annotated[str, Field(description='"provider:model_id", or a Bedrock model id')]]


class AgentChanges(Form):
    """What is said of an agent; what is left out stays as it is."""

    name: str | None = Field(default=None, description="For people")
    system_prompt: str | None = Field(default=None, description="Who the agent is and how it works")
    description: str | None = Field(default=None, description="What to use it for")
    model: str | None = Field(default=None, description='"provider:model_id"; default: the server\'s')
    model_params: ParamsForm | None = Field(default=None, description="Parameters of the model")
    model_settings: ModelForm | None = Field(
        default=None, alias="model_config", description="In place of model and model_params"
    )
    tools: list[str] | None = Field(default=None, description="Names of allowed tools")
    memory: MemoryMode | None = Field(
        default=None, description="explicit: sees facts about its actor from all sessions; auto: learns them too"
    )

    def draft(self) -> AgentDraft:
        """The same for the use cases; raises InvalidArgument where two models are named."""
        model, params = self.model, self.model_params
        if self.model_settings is not None:
            if model is not None or params is not None:
                raise InvalidArgument("The model is named twice: give either model and model_params, or model_config.")
            rest: dict[str, Any] = {**self.model_settings}
            model = str(rest.pop("model_id"))
            params = check_params(rest)
        return AgentDraft(
            name=self.name,
            system_prompt=self.system_prompt,
            description=self.description,
            model=model,
            model_params=params,
            tools=tuple(self.tools) if self.tools is not None else None,
            memory=self.memory,
        )


class ExampleForm(AgentChanges):
    """What is to be different from the example."""

    agent_id: AgentKey | None = Field(default=None, description="An id of your own; default: made from the name")


class AgentForm(ExampleForm):
    """A new agent."""

    name: str | None = Field(description="For people; the agent_id is made from it")
    example: str | None = Field(default=None, description="Fills in what is not given from an example")


class AgentQuery(Search):
    """Which agents to list."""

    query: str | None = Field(default=None, description="Words in id, name or description")
    limit: Limit = DEFAULT_PAGE
    cursor: str | None = Field(default=None, description="next_cursor of the page before")


class InvokeForm(Form):
    """One thing that is asked of an agent."""

    prompt: str = Field(description="What is said to the agent, at most 1 MiB")
    session_id: SessionKey | None = Field(default=None, description="From an earlier reply: the agent remembers")
    actor_id: ActorKey | None = Field(default=None, description="The person on whose behalf; default: local")
    wait_seconds: Seconds | None = Field(
        default=None,
        description="How long to wait before a 202 with status working; default: as long as a turn may take",
    )


class SessionForm(Form):
    """A new session."""

    agent_id: AgentKey | None = Field(default=None, description="Default: assistant")
    actor_id: ActorKey | None = Field(default=None, description="The person on whose behalf; default: local")
    title: str | None = Field(default=None, description="Default: the first prompt")
    session_id: SessionKey | None = Field(default=None, description="An id of your own, lower case")
    ttl_seconds: Life | None = None
    token_budget: Budget | None = None
    continue_from: SessionKey | None = Field(default=None, description="Begin with this session's history")
    at: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Take the history up to this message only (index, inclusive)"
    )


class SessionSearch(SessionForm):
    """The same in a query, where everything is text."""

    model_config = ConfigDict(strict=False)


class SessionChanges(Form):
    """What is to be changed of a session."""

    title: str | None = None
    ttl_seconds: Life | None = Field(default=None, description="Counts from now, and revives an expired session")
    token_budget: Budget | None = None


class SessionQuery(Search):
    """Which sessions to list."""

    agent_id: AgentKey | None = Field(default=None, description="Only with this agent")
    actor_id: ActorKey | None = Field(default=None, description="Only of this person")
    status: Literal["active", "expired", "damaged", "all"] = "all"
    query: Annotated[str, StringConstraints(max_length=1000)] | None = Field(
        default=None, description="Words that were said; gives a snippet each"
    )
    limit: Limit = DEFAULT_PAGE
    cursor: str | None = Field(default=None, description="next_cursor of the page before")


class MessageQuery(Search):
    """Which messages of a session to read."""

    limit: Limit = DEFAULT_PAGE
    before: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Only messages in front of this index")
    offset: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Only the message in front of before, from this character on: its cut_at"
    )


class TurnQuery(Search):
    """How long to wait for a turn."""

    wait: Seconds = Field(default=0, description="Seconds to wait for the end of the turn")


class AnswerForm(Form):
    """An answer to an agent's question."""

    answer: str = Field(description="What the agent is told")
    wait_seconds: Seconds | None = Field(default=None, description="As for invoke")


class RememberForm(Form):
    """A fact to remember, or one to confirm."""

    text: str | None = Field(default=None, description='One sentence, such as "Prefers Celsius"')
    memory_id: MemoryKey | None = Field(default=None, description="Instead: confirms a fact that an agent noted")
    actor_id: ActorKey | None = Field(default=None, description="Of whom; default: the caller's own")


class ActorQuery(Search):
    """Whose memory is meant."""

    actor_id: ActorKey | None = Field(default=None, description="Of whom; default: the caller's own")


class RecallQuery(ActorQuery):
    """What to look for in a memory."""

    query: str = Field(max_length=1000, description="Words; other endings and small typos are found too")
    limit: Limit = DEFAULT_HITS
