"""Transcripts and agents as resources."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from mcp.shared.exceptions import MCPError
from mcp.shared.uri_template import UriTemplate
from mcp_types import (
    INVALID_PARAMS,
    Annotations,
    ListResourcesResult,
    ReadResourceResult,
    Resource,
    ResourceLink,
    ResourceTemplate,
    TextResourceContents,
)

from agent_mcp import cursors
from agent_mcp.domain import AgentSpec, Caller, SessionInfo, parse_agent_id, parse_session_id, transcript_uri
from agent_mcp.errors import AgentMcpError, InvalidArgument
from agent_mcp.server import icons
from agent_mcp.service import Service

_MARKDOWN = "text/markdown"
_JSON = "application/json"
_PAGE = 50
_PEOPLE_AND_MODELS = Annotations(audience=["user", "assistant"], priority=0.5)
_PROGRAMS = Annotations(audience=["assistant"], priority=0.2)
_EARLIER_FRESH_MS = 60_000
"""What came before the newest piece of a transcript hardly ever changes: a client may keep it for a while."""

TEMPLATES = [
    ResourceTemplate(
        uri_template="session://{session_id}/transcript",
        name="transcript",
        title="Transcript of a session",
        description="All that was said in a session, as Markdown; the newest 512 KiB, with a link to what came before.",
        mime_type=_MARKDOWN,
        icons=icons.SESSION,
        annotations=_PEOPLE_AND_MODELS,
    ),
    ResourceTemplate(
        uri_template="session://{session_id}/transcript/{page}",
        name="transcript-page",
        title="Earlier part of a transcript",
        description="The part of a transcript in front of the message with the index {page}.",
        mime_type=_MARKDOWN,
        icons=icons.SESSION,
        annotations=_PEOPLE_AND_MODELS,
    ),
    ResourceTemplate(
        uri_template="session://{session_id}/messages",
        name="messages",
        title="Messages of a session",
        description="The newest messages of a session as JSON, for programs; read_transcript pages through all.",
        mime_type=_JSON,
        icons=icons.SESSION,
        annotations=_PROGRAMS,
    ),
    ResourceTemplate(
        uri_template="agent://{agent_id}",
        name="agent",
        title="An agent's definition",
        description="The agent's file: front matter, and the system prompt as the body.",
        mime_type=_MARKDOWN,
        icons=icons.AGENT,
        annotations=_PEOPLE_AND_MODELS,
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
                    return ReadResourceResult(
                        contents=[TextResourceContents(uri=uri, text=text, mime_type=mime_type)],
                        ttl_ms=_EARLIER_FRESH_MS if "page" in found else 0,
                        cache_scope="private",
                    )
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
            if not sessions.sessions and not following:
                return await self._list(caller, cursors.encode(["a", ""]))
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
        return await self._service.agents.markdown(caller, parse_agent_id(values["agent_id"]))


def protocol_error(error: AgentMcpError, *, uri: str | None = None) -> MCPError:
    """Our error as one of the protocol, for requests that have no error result of their own."""
    data = {"code": error.code} | ({"uri": uri} if uri is not None else {})
    return MCPError(INVALID_PARAMS, f"{error.message} [{error.code}]", data=data)


def transcript_link(session: SessionInfo) -> ResourceLink:
    """A link to a session's transcript, for prompts."""
    return ResourceLink(**dict(_session_resource(session)))


def reply_link(uri: str, title: str) -> ResourceLink:
    """A link to a transcript, for what a tool returns. It is for people: the model has the session_id."""
    return ResourceLink(
        uri=uri,
        name=uri.removeprefix("session://").partition("/")[0],
        title=title,
        mime_type=_MARKDOWN,
        icons=icons.SESSION,
        annotations=Annotations(audience=["user"], priority=0.2),
    )


def _session_resource(session: SessionInfo) -> Resource:
    return Resource(
        uri=transcript_uri(session.session_id),
        name=session.session_id,
        title=session.title or session.session_id,
        description=f"Transcript with {session.agent_id}, last active {session.last_active_at:%Y-%m-%d %H:%M} UTC",
        mime_type=_MARKDOWN,
        icons=icons.SESSION,
        annotations=_PEOPLE_AND_MODELS.model_copy(update={"last_modified": _iso(session.last_active_at)}),
    )


def _agent_resource(agent: AgentSpec) -> Resource:
    modified = {"last_modified": _iso(agent.updated_at)} if agent.updated_at else {}
    return Resource(
        uri=f"agent://{agent.agent_id}",
        name=agent.agent_id,
        title=agent.name,
        description=agent.description or None,
        mime_type=_MARKDOWN,
        icons=icons.AGENT,
        annotations=_PEOPLE_AND_MODELS.model_copy(update=modified),
    )


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
