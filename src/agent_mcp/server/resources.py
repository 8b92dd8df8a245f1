"""Transcripts and agents as resources."""

from collections.abc import Awaitable, Callable

from mcp.shared.exceptions import MCPError
from mcp.shared.uri_template import UriTemplate
from mcp_types import (
    INVALID_PARAMS,
    ListResourcesResult,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from agent_mcp import cursors
from agent_mcp.domain import AgentSpec, Caller, SessionInfo, parse_agent_id, parse_session_id, transcript_uri
from agent_mcp.errors import AgentMcpError, InvalidArgument
from agent_mcp.service import Service

_MARKDOWN = "text/markdown"
_JSON = "application/json"
_PAGE = 50

TEMPLATES = [
    ResourceTemplate(
        uri_template="session://{session_id}/transcript",
        name="transcript",
        title="Transcript of a session",
        description="All that was said in a session, as Markdown; the newest 512 KiB, with a link to what came before.",
        mime_type=_MARKDOWN,
    ),
    ResourceTemplate(
        uri_template="session://{session_id}/transcript/{page}",
        name="transcript-page",
        title="Earlier part of a transcript",
        description="The part of a transcript in front of the message with the index {page}.",
        mime_type=_MARKDOWN,
    ),
    ResourceTemplate(
        uri_template="session://{session_id}/messages",
        name="messages",
        title="Messages of a session",
        description="The newest messages of a session as JSON, for programs; read_transcript pages through all.",
        mime_type=_JSON,
    ),
    ResourceTemplate(
        uri_template="agent://{agent_id}",
        name="agent",
        title="An agent's definition",
        description="The agent's file: front matter, and the system prompt as the body.",
        mime_type=_MARKDOWN,
    ),
]


class Resources:
    """The resources of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        readers: dict[str, tuple[str, Callable[[Caller, dict[str, str]], Awaitable[str]]]] = {
            "session://{session_id}/transcript": (_MARKDOWN, self._transcript),
            "session://{session_id}/transcript/{page}": (_MARKDOWN, self._transcript),
            "session://{session_id}/messages": (_JSON, self._messages),
            "agent://{agent_id}": (_MARKDOWN, self._agent),
        }
        self._readers = [(UriTemplate.parse(template), *rest) for template, rest in readers.items()]

    async def list_resources(self, caller: Caller, cursor: str | None) -> ListResourcesResult:
        """One page: transcripts first, the most recently active in front, then the agents."""
        try:
            return await self._list(caller, cursor)
        except AgentMcpError as error:
            raise protocol_error(error) from None

    async def read(self, caller: Caller, uri: str) -> ReadResourceResult:
        """The text of one resource; raises MCPError where there is none."""
        try:
            for template, mime_type, reader in self._readers:
                found = template.match(uri)
                if found is not None:
                    text = await reader(caller, {name: str(value) for name, value in found.items()})
                    return ReadResourceResult(contents=[TextResourceContents(uri=uri, text=text, mime_type=mime_type)])
            raise InvalidArgument(
                f"There is no resource {uri[:200]!r}: resources/templates/list shows the forms that there are."
            )
        except AgentMcpError as error:
            raise protocol_error(error, uri=uri) from None

    async def _list(self, caller: Caller, cursor: str | None) -> ListResourcesResult:
        kind, rest = ("s", "") if cursor is None else cursors.decode(cursor, (str, str))
        if kind == "s":
            sessions = await self._service.sessions.list_sessions(caller, limit=_PAGE, cursor=str(rest) or None)
            following = sessions.next_cursor
            return ListResourcesResult(
                resources=[_session_resource(session) for session in sessions.sessions],
                next_cursor=cursors.encode(["s", following] if following else ["a", ""]),
            )
        agents = await self._service.agents.list_agents(caller, limit=_PAGE, cursor=str(rest) or None)
        following = agents.next_cursor
        return ListResourcesResult(
            resources=[_agent_resource(agent) for agent in agents.agents],
            next_cursor=cursors.encode(["a", following]) if following else None,
        )

    async def _transcript(self, caller: Caller, values: dict[str, str]) -> str:
        page = values.get("page")
        if page is not None and not (page.isascii() and page.isdigit() and len(page) < 12):
            raise InvalidArgument(f"{page[:40]!r} is no page of a transcript: use the link in the transcript.")
        session_id = parse_session_id(values["session_id"])
        return await self._service.sessions.markdown(caller, session_id, before=int(page) if page else None)

    async def _messages(self, caller: Caller, values: dict[str, str]) -> str:
        return await self._service.sessions.json(caller, parse_session_id(values["session_id"]))

    async def _agent(self, caller: Caller, values: dict[str, str]) -> str:
        return await self._service.agents.file(caller, parse_agent_id(values["agent_id"]))


def protocol_error(error: AgentMcpError, *, uri: str | None = None) -> MCPError:
    """Our error as one of the protocol, for requests that have no error result of their own."""
    data = {"code": error.code} | ({"uri": uri} if uri is not None else {})
    return MCPError(INVALID_PARAMS, f"{error.message} [{error.code}]", data=data)


def _session_resource(session: SessionInfo) -> Resource:
    return Resource(
        uri=transcript_uri(session.session_id),
        name=session.session_id,
        title=session.title or session.session_id,
        description=f"Transcript with {session.agent_id}, last active {session.last_active_at:%Y-%m-%d %H:%M} UTC",
        mime_type=_MARKDOWN,
    )


def _agent_resource(agent: AgentSpec) -> Resource:
    return Resource(
        uri=f"agent://{agent.agent_id}",
        name=agent.agent_id,
        title=agent.name,
        description=agent.description or None,
        mime_type=_MARKDOWN,
    )
