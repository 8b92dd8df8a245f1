"""REST: agents."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from agent_mcp.domain import AgentSpec
from agent_mcp.http.forms import AgentChanges, AgentForm, AgentKey, AgentQuery, ExampleForm
from agent_mcp.http.parts import API, TheCaller, TheService
from agent_mcp.http.problems import problems
from agent_mcp.service.agent_cases import AgentPage, CreatedAgent, DeletedAgent

router = APIRouter(prefix=f"{API}/agents", tags=["agents"])

_MAKING = {
    200: {"model": CreatedAgent, "description": "The same agent was there already"},
    **problems("agent_exists", "agent_not_found", "tool_not_allowed", "model_not_allowed"),
}


@router.post("", status_code=201, responses=_MAKING)
async def create_agent(form: AgentForm, service: TheService, caller: TheCaller, response: Response) -> CreatedAgent:
    """Make an agent: a stored definition that remembers what is said in each of its sessions."""
    made = await service.agents.create(caller, form.draft(), agent_id=form.agent_id, example=form.example)
    response.status_code = 201 if made.created else 200
    return made


@router.post("/examples/{example}", status_code=201, responses=_MAKING)
async def create_example(
    example: str, service: TheService, caller: TheCaller, response: Response, form: ExampleForm | None = None
) -> CreatedAgent:
    """Make an agent from an example, or find the one that was made from it."""
    given = form or ExampleForm()
    made = await service.agents.create(caller, given.draft(), agent_id=given.agent_id, example=example)
    response.status_code = 201 if made.created else 200
    return made


@router.get("", responses=problems())
async def list_agents(query: Annotated[AgentQuery, Query()], service: TheService, caller: TheCaller) -> AgentPage:
    """List the agents that can be asked, and the examples there are."""
    return await service.agents.list_agents(caller, query=query.query, limit=query.limit, cursor=query.cursor)


@router.get("/{agent_id}", responses=problems("agent_not_found"))
async def get_agent(agent_id: AgentKey, service: TheService, caller: TheCaller) -> AgentSpec:
    """The definition of an agent."""
    return await service.agents.get(caller, agent_id)


@router.patch("/{agent_id}", responses=problems("agent_not_found", "tool_not_allowed", "model_not_allowed"))
async def update_agent(agent_id: AgentKey, changes: AgentChanges, service: TheService, caller: TheCaller) -> AgentSpec:
    """Change an agent: what is given is replaced, the rest stays."""
    return await service.agents.update(caller, agent_id, changes.draft())


@router.delete("/{agent_id}", responses=problems("agent_not_found"))
async def delete_agent(agent_id: AgentKey, service: TheService, caller: TheCaller) -> DeletedAgent:
    """Delete an agent. Its sessions stay readable."""
    return await service.agents.delete(caller, agent_id)
