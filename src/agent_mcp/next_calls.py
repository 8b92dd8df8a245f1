"""The next call that an error names, in the words of REST and of the shell: errors themselves name MCP's tools."""

import ast
import re
from collections.abc import Mapping

REST: Mapping[str, str] = {
    "create_agent": "POST /api/v1/agents",
    "list_agents": "GET /api/v1/agents",
    "update_agent": "PATCH /api/v1/agents/{agent_id}",
    "delete_agent": "DELETE /api/v1/agents/{agent_id}",
    "start_session": "POST /api/v1/sessions",
    "update_session": "PATCH /api/v1/sessions/{session_id}",
    "list_sessions": "GET /api/v1/sessions",
    "delete_session": "DELETE /api/v1/sessions/{session_id}",
    "read_transcript": "GET /api/v1/sessions/{session_id}/messages",
    "ask_agent": "POST /api/v1/agents/{agent_id}/invoke",
    "get_reply": "GET /api/v1/turns/{turn_id}",
    "cancel_turn": "POST /api/v1/turns/{turn_id}/cancel",
    "remember": "POST /api/v1/memories",
    "recall": "GET /api/v1/memories",
    "forget": "DELETE /api/v1/memories/{memory_id}",
}
"""Each tool's call, its path with the names of the tool's arguments."""

SHELL: Mapping[str, str] = {
    "create_agent": "agent-mcp agents create",
    "list_agents": "agent-mcp agents list",
    "update_agent": "its file (agent-mcp agents show)",
    "delete_agent": "agent-mcp agents delete",
    "start_session": "agent-mcp ask",
    "update_session": "agent-mcp sessions update {session_id} --ttl {ttl_seconds}s",
    "list_sessions": "agent-mcp sessions list",
    "delete_session": "agent-mcp sessions delete {session_id}",
    "read_transcript": "agent-mcp sessions show {session_id}",
    "ask_agent": "agent-mcp ask",
    "get_reply": "agent-mcp turns show {turn_id}",
    "cancel_turn": "agent-mcp turns cancel {turn_id}",
    "remember": "agent-mcp memory remember",
    "recall": "agent-mcp memory recall",
    "forget": "agent-mcp memory forget {memory_id}",
}
"""The command that does what the tool does, with the tool's arguments where it takes them."""

# What `get_reply` with a session's id is: other doors have no such call for a turn.
_OF_A_SESSION_IN_REST = "GET /api/v1/sessions/{session_id}"
_OF_A_SESSION_IN_SHELL = "agent-mcp turns list --session {session_id}"

# A tool's name as errors write it, not a part of a longer word, and perhaps with arguments.
_CALL = re.compile(rf"(?<![\w/{{]){'(' + '|'.join(REST) + ')'}(?![\w}}])(?:\(([^()]*)\))?")
_ARGUMENT = re.compile(r"(\w+)=('[^']*'|\d+|\.\.\.)")


def in_rest(text: str) -> str:
    """An error's text with REST's calls for MCP's tools; what does not stand in the path goes into the body."""
    return _CALL.sub(lambda found: _rest(_chosen(REST, _OF_A_SESSION_IN_REST, found), _given(found[2])), text)


def in_shell(text: str) -> str:
    """An error's text with the shell's commands for MCP's tools."""
    return _CALL.sub(
        lambda found: f"`{_filled(_chosen(SHELL, _OF_A_SESSION_IN_SHELL, found), _given(found[2]))}`", text
    )


def _chosen(calls: Mapping[str, str], of_a_session: str, found: re.Match[str]) -> str:
    return of_a_session if found[1] == "get_reply" and "session_id=" in (found[2] or "") else calls[found[1]]


def _rest(call: str, given: dict[str, str]) -> str:
    rest = [f'"{name}": {_json(value)}' for name, value in given.items() if f"{{{name}}}" not in call]
    body = f" with {{{', '.join(rest)}}}" if rest else ""
    return f"`{_filled(call, given)}`{body}"


def _given(arguments: str | None) -> dict[str, str]:
    return {name: value for name, value in _ARGUMENT.findall(arguments or "") if value != "..."}


def _filled(call: str, given: Mapping[str, str]) -> str:
    """The call with the values that are known; a flag whose value is not known is left out."""
    for name, value in given.items():
        call = call.replace(f"{{{name}}}", str(ast.literal_eval(value)))
    return re.sub(r" --\w+ \{ttl_seconds\}s", "", call)


def _json(value: str) -> str:
    return value.replace("'", '"')
