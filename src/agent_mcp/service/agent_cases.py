"""What callers do with agents: make, list, change, delete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent_mcp import agent_library, cursors
from agent_mcp.domain import LOCAL_SUBJECT, AgentId, AgentSpec, Caller, Fact, MemoryMode, now, slug
from agent_mcp.errors import AgentExists, AgentNotFound, Forbidden, InvalidArgument, ModelNotAllowed
from agent_mcp.model_params import ModelParams
from agent_mcp.models import Models
from agent_mcp.service.stores import DEFAULT_PAGE, Stores, one_line, page_size, threaded
from agent_mcp.storage.agent_files import AgentDirectory, render
from agent_mcp.storage.catalog import LIST_CHANGED
from agent_mcp.storage.store import Store
from agent_mcp.toolbox import AGENT_PREFIX, Toolbox, check_circles, without_circles

_MAX_NAME = 100
_MAX_DESCRIPTION = 2_000
_MAX_SYSTEM_PROMPT = 100_000
_MAX_TOOLS = 64


class AgentPage(Fact):
    """Part of the list of agents. `examples` are names for create_agent, `warnings` name files that can't be read."""

    agents: tuple[AgentSpec, ...]
    examples: tuple[str, ...]
    warnings: tuple[str, ...]
    next_cursor: str | None = None


class CreatedAgent(AgentSpec):
    created: bool


class DeletedAgent(Fact):
    agent_id: AgentId
    deleted: bool = True


@dataclass(frozen=True, kw_only=True)
class AgentDraft:
    """What a caller says of an agent; None = not said."""

    name: str | None = None
    system_prompt: str | None = None
    description: str | None = None
    model: str | None = None
    model_params: ModelParams | None = None
    tools: tuple[str, ...] | None = None
    memory: MemoryMode | None = None


class AgentCases:
    """The use cases of agents. Own agents win over those in `directories`, and these over the built-in ones."""

    def __init__(
        self, *, stores: Stores, models: Models, toolbox: Toolbox, directories: Sequence[AgentDirectory]
    ) -> None:
        self._stores = stores
        self._models = models
        self._toolbox = toolbox
        self._directories = tuple(directories)

    @threaded
    def create(
        self, caller: Caller, draft: AgentDraft, *, agent_id: AgentId | None = None, example: str | None = None
    ) -> CreatedAgent:
        """Makes an agent, what is not said taken from `example`; the same definition again is the agent there is.

        Raises AgentExists, ToolNotAllowed, InvalidArgument, AgentNotFound (for an unknown example).
        """
        store = self._stores.of(caller)
        base = agent_library.example(example) if example else AgentSpec(agent_id=AgentId("new"), name="")
        spec = self._drafted(base, draft)
        if not spec.name:
            raise InvalidArgument("The name is empty: give the agent one.")
        at = now()
        spec = spec.model_copy(
            update={
                "agent_id": self._new_id(store, spec.name, agent_id),
                "source": "own",
                "created_at": at,
                "updated_at": at,
            }
        )
        there = self._find(store, spec.agent_id)
        if there is None:
            self._check_tools(store, spec, caller)
            try:
                store.agents.create(spec)
                store.announce(LIST_CHANGED)
                return CreatedAgent(**spec.model_dump(), created=True)
            except AgentExists:
                there = self._find(store, spec.agent_id)
        if there is None or not there.same_definition(spec):
            raise AgentExists(
                f"There is another agent {spec.agent_id!r} already, and it was left as it is: change it with "
                "update_agent, or choose another name or agent_id."
            )
        return CreatedAgent(**there.model_dump(), created=False)

    @threaded
    def update(self, caller: Caller, agent_id: AgentId, draft: AgentDraft) -> AgentSpec:
        """Changes what is said and leaves the rest; the next turn uses it. Raises AgentNotFound, Forbidden."""
        store = self._stores.of(caller)
        spec = self._drafted(self._own(store, agent_id), draft)
        if not spec.name:
            raise InvalidArgument("The name is empty: give the agent one.")
        spec = spec.model_copy(update={"updated_at": now(), "warnings": ()})
        if draft.tools is not None:
            self._check_tools(store, spec, caller)
        store.agents.replace(spec)
        store.announce(f"agent://{agent_id}")
        return self.usable(store, spec)

    @threaded
    def delete(self, caller: Caller, agent_id: AgentId) -> DeletedAgent:
        """Deletes an agent. Its sessions stay readable, and then its id is never given again."""
        store = self._stores.of(caller)
        self._own(store, agent_id)
        store.agents.remove(agent_id, retire=store.has_sessions_of(agent_id))
        store.announce(LIST_CHANGED)
        return DeletedAgent(agent_id=agent_id)

    @threaded
    def list_agents(
        self, caller: Caller, *, query: str | None = None, limit: int = DEFAULT_PAGE, cursor: str | None = None
    ) -> AgentPage:
        """All agents by id."""
        store = self._stores.of(caller)
        agents, warnings = self.all(store)
        after = str(cursors.decode(cursor, (str,))[0]) if cursor else ""
        words = (query or "").lower().split()
        found = [
            agent
            for agent_id, agent in sorted(agents.items())
            if agent_id > after and all(w in f"{agent_id} {agent.name} {agent.description}".lower() for w in words)
        ]
        shown = [self.usable(store, agent) for agent in found[: page_size(limit)]]
        return AgentPage(
            agents=tuple(shown),
            examples=tuple(agent_library.examples()),
            warnings=(*warnings, *self._of_settings(caller), *(w for agent in shown for w in agent.warnings)),
            next_cursor=cursors.encode([shown[-1].agent_id]) if len(shown) < len(found) else None,
        )

    @threaded
    def get(self, caller: Caller, agent_id: AgentId) -> AgentSpec:
        """Raises AgentNotFound, InvalidArgument (naming a file that can't be read)."""
        return self.definition(self._stores.of(caller), agent_id)

    @threaded
    def markdown(self, caller: Caller, agent_id: AgentId) -> str:
        """The agent's file; raises as `get`."""
        return render(self.definition(self._stores.of(caller), agent_id))

    def _of_settings(self, caller: Caller) -> list[str]:
        """What is wrong with the operator's settings: nobody else's business."""
        return self._toolbox.warnings if caller.subject == LOCAL_SUBJECT else []

    # For the other use cases: blocking

    def all(self, store: Store) -> tuple[dict[AgentId, AgentSpec], list[str]]:
        """Every agent that can be asked, and a warning for each file that can't be read."""
        agents = agent_library.built_in()
        warnings: list[str] = []
        for directory in reversed(self._directories):
            found, trouble = directory.list_all()
            agents |= {agent.agent_id: agent for agent in found}
            warnings += trouble
        own, trouble = store.agents.list_all()
        return agents | {agent.agent_id: agent for agent in own}, [*trouble, *warnings]

    def definition(self, store: Store, agent_id: AgentId) -> AgentSpec:
        """The agent as its file has it; raises AgentNotFound."""
        agent = self._find(store, agent_id)
        if agent is None:
            raise AgentNotFound(
                f"There is no agent {agent_id!r}: list_agents shows those there are, create_agent makes one."
            )
        return agent

    def usable(self, store: Store, agent: AgentSpec, *, operator: bool = False) -> AgentSpec:
        """The agent without what a hand-written file asks for and can't have, with a warning for each.

        What only other subjects may use can't be had; for the `operator` it is no reason for a warning.
        """
        # Looking for all agents reads their files: only where one of them is named.
        agents = self.all(store)[0] if any(tool.startswith(AGENT_PREFIX) for tool in agent.tools) else {}
        subject = None if operator else store.subject
        tools = tuple(tool for tool in agent.tools if self._toolbox.is_allowed(tool, agents=agents, subject=subject))
        warnings = [
            *agent.warnings,
            *(
                f"{agent.agent_id}: the tool {tool!r} is unknown or not allowed, and left out"
                for tool in agent.tools
                if tool not in tools
            ),
        ]
        model = agent.model if agent.model != "inherit" else None
        try:
            if model is not None:
                self._models.check(model)
        except (InvalidArgument, ModelNotAllowed) as error:
            state = "not allowed" if isinstance(error, ModelNotAllowed) else "unknown"
            warnings.append(f"{agent.agent_id}: the model {model!r} is {state}, the default is used")
            model = None
        return agent.model_copy(update={"tools": tools, "model": model, "warnings": tuple(warnings)})

    def _find(self, store: Store, agent_id: AgentId) -> AgentSpec | None:
        own = store.agents.find(agent_id)
        if own is not None:
            return own
        for directory in self._directories:
            found = directory.find(agent_id)
            if found is not None:
                return found
        return agent_library.built_in().get(agent_id)

    def _own(self, store: Store, agent_id: AgentId) -> AgentSpec:
        agent = self.definition(store, agent_id)
        if agent.source != "own":
            raise Forbidden(
                f"The agent {agent_id!r} is not yours to change ({agent.source}): make one of your own with "
                "create_agent, under another id."
            )
        return agent

    @staticmethod
    def _new_id(store: Store, name: str, agent_id: AgentId | None) -> AgentId:
        retired = store.agents.retired()
        if agent_id is not None:
            if agent_id in retired:
                raise AgentExists(
                    f"The id {agent_id!r} was a deleted agent's, whose sessions are still there: choose another."
                )
            return agent_id
        derived = slug(name)
        candidates = [derived, *(AgentId(f"{derived[:60]}-{number}") for number in range(2, len(retired) + 3))]
        return next(candidate for candidate in candidates if candidate not in retired)

    def _check_tools(self, store: Store, spec: AgentSpec, caller: Caller) -> None:
        agents = self.all(store)[0] if spec.tools else {}

        def tools_of(agent_id: AgentId) -> Sequence[str]:
            return agents[agent_id].tools if agent_id in agents else ()

        check_circles(spec.agent_id, spec.tools, tools_of)
        others = without_circles(spec.agent_id, agents, tools_of)
        self._toolbox.check(spec.tools, agents=others, subject=caller.subject)

    def _drafted(self, base: AgentSpec, draft: AgentDraft) -> AgentSpec:
        """`base` with what the draft says, checked; raises InvalidArgument."""
        if draft.model is not None:
            self._models.check(draft.model)
        if draft.model is not None or draft.model_params is not None:
            params = base.model_params if draft.model_params is None else draft.model_params
            self._models.check_params(base.model if draft.model is None else draft.model, params)
        if draft.tools is not None and len(draft.tools) > _MAX_TOOLS:
            raise InvalidArgument(f"{len(draft.tools)} tools are too many for one agent: give it at most {_MAX_TOOLS}.")
        prompt = base.system_prompt if draft.system_prompt is None else draft.system_prompt
        if len(prompt) > _MAX_SYSTEM_PROMPT:
            raise InvalidArgument(f"The system_prompt is longer than {_MAX_SYSTEM_PROMPT} characters: shorten it.")
        name = base.name if draft.name is None else draft.name
        description = base.description if draft.description is None else draft.description
        return base.model_copy(
            update={
                "name": one_line(name, "name", longest=_MAX_NAME),
                "description": one_line(description, "description", longest=_MAX_DESCRIPTION),
                "system_prompt": prompt.replace("\r\n", "\n").replace("\r", "\n"),
                "model": base.model if draft.model is None else draft.model,
                "memory": base.memory if draft.memory is None else draft.memory,
                "model_params": base.model_params if draft.model_params is None else draft.model_params,
                "tools": base.tools if draft.tools is None else tuple(dict.fromkeys(draft.tools)),
            }
        )
