"""Completion of ids, for the arguments of prompts and of resource templates."""

from __future__ import annotations

from mcp_types import (
    CompleteRequestParams,
    Completion,
    PromptReference,
)

from agent_mcp.domain import Caller, parse_session_id
from agent_mcp.errors import AgentMcpError, InvalidArgument
from agent_mcp.server.prompts import Prompts
from agent_mcp.server.resources import TEMPLATES, protocol_error
from agent_mcp.service import Service
from agent_mcp.service.suggestions import Suggestions


class Completions:
    """What the caller may mean who has typed a beginning. Nothing of another subject is among it."""

    def __init__(self, service: Service, prompts: Prompts) -> None:
        self._service = service
        self._arguments = {
            prompt.name: [argument.name for argument in prompt.arguments or []] for prompt in prompts.list_prompts()
        }

    async def complete(self, caller: Caller, params: CompleteRequestParams) -> Completion:
        """Raises MCPError for a prompt, a template or an argument that there is not."""
        try:
            self._check(params)
            found = await self._suggest(caller, params)
        except AgentMcpError as error:
            raise protocol_error(error) from None
        total = None if found.more else len(found.values)
        return Completion(values=list(found.values), total=total, has_more=found.more)

    def _check(self, params: CompleteRequestParams) -> None:
        if isinstance(params.ref, PromptReference):
            name, what = params.ref.name, "prompt"
            arguments = self._arguments.get(name)
        else:
            name, what = params.ref.uri, "resource template"
            uris = [template.uri_template for template in TEMPLATES]
            arguments = [one for one in _IDS if f"{{{one}}}" in name] if name in uris else None
        if arguments is None:
            raise InvalidArgument(f"There is no {what} {name[:100]!r} whose arguments could be completed.")
        if params.argument.name not in arguments:
            raise InvalidArgument(
                f"The {what} {name} has no argument {params.argument.name[:60]!r}. There are: {', '.join(arguments)}."
            )

    async def _suggest(self, caller: Caller, params: CompleteRequestParams) -> Suggestions:
        text = params.argument.value
        match params.argument.name:
            case "agent_id":
                return await self._service.suggestions.agents(caller, text)
            case "session_id":
                return await self._service.suggestions.sessions(caller, text)
            case "page":
                chosen = (params.context.arguments if params.context else None) or {}
                if "session_id" not in chosen:
                    return Suggestions(values=())
                session_id = parse_session_id(chosen["session_id"])
                return await self._service.suggestions.pages(caller, session_id, text)
            case _:
                return Suggestions(values=())


_IDS = ("agent_id", "session_id", "page")
