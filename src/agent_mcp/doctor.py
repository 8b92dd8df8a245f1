"""`agent-mcp doctor`: what would be used and why, and what is wrong."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

import anyio.to_thread

from agent_mcp.domain import Caller
from agent_mcp.errors import AgentMcpError
from agent_mcp.service import Service


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. What is not `used` is neither right nor wrong: nothing here needs it."""

    ok: bool
    what: str
    text: str
    used: bool = True

    @property
    def mark(self) -> str:
        return "FAIL" if not self.ok else "ok" if self.used else "--"


async def examine(service: Service, caller: Caller) -> list[Finding]:
    """Looks at everything a turn needs, without asking a model."""
    return await anyio.to_thread.run_sync(_examine, service, caller)


def _examine(service: Service, caller: Caller) -> list[Finding]:
    settings = service.settings
    packages = ", ".join(f"{name} {version(name)}" for name in ("agent-mcp", "mcp", "strands-agents", "boto3"))
    findings = [Finding(True, "versions", f"{packages}, Python {platform.python_version()}")]
    findings.append(_data_directory(service, caller))
    providers = service.models.survey()
    findings.append(_model(service, {one.name: one.why for one in providers if not one.is_ready}))
    findings.extend(Finding(True, "provider", f"{one.name}: {one.why}", used=one.is_ready) for one in providers)
    offers = service.toolbox.offers(subject=caller.subject)
    allowed = ", ".join(offer.name for offer in offers if offer.allowed)
    others = "; ".join(f"{offer.name}: {offer.why}" for offer in offers if not offer.allowed)
    findings.append(Finding(True, "tools", f"agents may be given {allowed}; AGENT_MCP_TOOLS adds more"))
    findings.append(Finding(True, "other tools", f"{others or 'none'}", used=False))
    if settings.allow_tools:
        who = ", ".join(sorted(service.toolbox.needs_approval())) or "nothing"
        where = f"in {settings.sandbox}" if settings.sandbox else "as this user, in a folder that confines nothing"
        text = (
            f"{', '.join(settings.allow_tools)}: code runs {where} (AGENT_MCP_SANDBOX); a person approves each use of "
            f"{who} (AGENT_MCP_ALLOW_TOOLS, AGENT_MCP_APPROVE)"
        )
        findings.append(Finding(True, "allowed tools", text))
    findings.extend(Finding(False, "tools", warning) for warning in service.toolbox.warnings)
    if findings[1].ok:
        store = service.store(caller)
        agents, warnings = service.agents.all(store)
        warnings += [
            w for agent in agents.values() for w in service.agents.usable(store, agent, operator=True).warnings
        ]
        findings.extend(Finding(False, "agents", warning) for warning in warnings)
        findings.extend(
            Finding(True, "careful", f"the agent {agent.agent_id} has {risk}")
            for agent in agents.values()
            for risk in service.toolbox.risks(agent.tools, remembers=agent.memory != "off")
        )
    findings.append(Finding(True, "memory", f"{service.memories.where} (AGENT_MCP_AGENTCORE_MEMORY_ID)"))
    life = f"{settings.session_ttl} s after the last turn" if settings.session_ttl else "never"
    findings.append(Finding(True, "sessions", f"expire {life} (AGENT_MCP_SESSION_TTL)"))
    sync = "wait until they are safe on disk" if settings.fsync else "do NOT wait for the disk: a power cut loses turns"
    findings.append(Finding(True, "replies", f"{sync} (AGENT_MCP_FSYNC)"))
    return findings


def _data_directory(service: Service, caller: Caller) -> Finding:
    root = service.settings.data_dir
    try:
        service.store(caller)
    except AgentMcpError as error:
        return Finding(False, "data directory", f"{root}: {error.message}")
    return Finding(True, "data directory", f"{root} can be written (AGENT_MCP_DATA_DIR)")


def _model(service: Service, doubts: Mapping[str, str]) -> Finding:
    try:
        choice = service.models.choose(None)
    except AgentMcpError as error:
        return Finding(False, "model", error.message)
    doubt = doubts.get(choice.ref.provider)
    if doubt is not None:
        return Finding(True, "model", f"{choice.ref} ({choice.why}); but {doubt}", used=False)
    return Finding(True, "model", f"{choice.ref} ({choice.why})")
