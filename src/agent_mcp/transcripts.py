"""Transcripts: messages as Markdown for people and as JSON for programs, in pieces of a bounded size."""

import json
import re
from collections.abc import Callable, Sequence

from agent_mcp.domain import Message, SessionInfo, SessionMeta, transcript_uri

MAX_BYTES = 512 * 1024
_FOR_FRAME = 4 * 1024  # room for title and links
_ROOM = MAX_BYTES - _FOR_FRAME
_RESULT_BYTES = 1000 * 1024
"""What one result may weigh on the wire: clients take 1 MiB in one event over HTTP."""
_PIECE = 40_000  # characters, each of which can weigh 24 bytes in a result
_LABELS = {"user": "User", "assistant": "Assistant", "tool": "Tool"}

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$", re.MULTILINE)
# HTML that a Markdown reader takes for one block until its end comes, however far that is.
_ENDS = {"<!--": "-->", "<?": "?>", "<![CDATA[": "]]>", "<pre": "</pre>", "<script": "</script>", "<style": "</style>"}
_ENDS["<textarea"] = "</textarea>"

Read = Callable[[int, int], Sequence[Message]]
"""Reads messages: from an index, at most so many."""


def newest(read: Read, *, before: int, since: int = 0, max_bytes: int, size: Callable[[Message], int]) -> list[Message]:
    """The newest messages from index `since` on and in front of `before` that fit `max_bytes` together.

    At least one where there is one.
    """
    chosen: list[Message] = []
    used = 0
    start = before
    while start > since:
        step = max(since, start - 50)
        for message in reversed(read(step, start - step)):
            used += size(message)
            if chosen and used > max_bytes:
                return chosen[::-1]
            chosen.append(message)
        start = step
    return chosen[::-1]


def markdown(meta: SessionMeta, read: Read, *, total: int, before: int | None = None) -> str:
    """The newest part of a transcript in front of message `before`, with a link to what came before it.

    At most 512 KiB: a message that is longer by itself is cut, and says so.
    """
    end = total if before is None else min(before, total)
    shown = _piece(read, before=end)
    parts = [_head(meta)]
    if shown and shown[0].index > 0:
        parts.append(f"Earlier: <{transcript_uri(meta.session_id)}/{shown[0].index}>\n")
    parts.extend(_entry(message, _ROOM) for message in shown)
    if not shown:
        parts.append("Nothing was said yet.\n")
    if end < total:
        parts.append(f"Later: <{transcript_uri(meta.session_id)}>\n")
    return "\n".join(parts)


def document(meta: SessionMeta | SessionInfo, messages: Sequence[Message]) -> str:
    """A whole transcript as Markdown, however long."""
    entries = "\n".join(_entry(message, None) for message in messages) or "Nothing was said yet.\n"
    return f"{_head(meta)}\n{entries}"


def page_starts(read: Read, *, total: int, most: int) -> list[int]:
    """The indices that lead from the newest part of a transcript back to its first one, at most so many."""
    starts: list[int] = []
    shown = _piece(read, before=total)
    while shown and shown[0].index > 0 and len(starts) < most:
        starts.append(shown[0].index)
        shown = _piece(read, before=shown[0].index)
    return starts


def _piece(read: Read, *, before: int) -> list[Message]:
    """The messages in front of an index that one piece of Markdown holds."""
    return newest(read, before=before, max_bytes=_ROOM, size=lambda m: _carried(_entry(m, _ROOM)) + 1)


def messages_json(meta: SessionMeta, read: Read, *, total: int) -> str:
    """The newest messages as one JSON object, at most 512 KiB; `before` is where read_transcript goes on."""

    def dump(message: Message) -> str:
        return _cut(message, _ROOM).model_dump_json(exclude_none=True)

    # A message is counted at its longest, with every character escaped at most once.
    shown = newest(read, before=total, max_bytes=_ROOM, size=lambda m: _carried(dump(m)) + 1)
    head = {
        "session_id": meta.session_id,
        "total": total,
        "before": shown[0].index if shown and shown[0].index else None,
    }
    return f'{json.dumps(head)[:-1]}, "messages": [{",".join(dump(m) for m in shown)}]}}'


def page(read: Read, *, before: int, since: int) -> list[Message]:
    """The newest messages in front of `before` that one result can hold; the first may be cut, see `part`."""
    chosen = newest(read, before=before, since=since, max_bytes=_RESULT_BYTES, size=_in_result)
    return [part(message) for message in chosen]


def part(message: Message, start: int = 0) -> Message:
    """A message from a character on, as far as one result can hold; `cut_at` is where the next piece begins."""
    rest = message.model_copy(update={"text": message.text[start:]})
    if _in_result(rest) <= _RESULT_BYTES:
        return rest
    cut = _cut(rest, _RESULT_BYTES // 4).model_copy(update={"text": rest.text[:_PIECE]})
    return cut.model_copy(update={"cut_at": start + _PIECE}) if len(rest.text) > _PIECE else cut


def _in_result(message: Message) -> int:
    """Bytes of a message in a tool's result, which holds it as text and as structured content."""
    return 2 * len(json.dumps(message.model_dump_json()))


def _carried(text: str) -> int:
    """Bytes of a text, or half of what it has on a wire that escapes all but ASCII: so 512 KiB stay under 1 MiB."""
    return max(len(text.encode(errors="replace")), len(json.dumps(text)) // 2)


def _head(meta: SessionMeta | SessionInfo) -> str:
    about = f"Session `{meta.session_id}` with agent `{meta.agent_id}` for `{meta.actor_id}`.\n"
    return f"# {meta.title or meta.session_id}\n\n{about}"


def _entry(message: Message, longest: int | None) -> str:
    cut = message if longest is None else _cut(message, longest)
    at = f" ({cut.created_at:%Y-%m-%d %H:%M} UTC)" if cut.created_at else ""
    lines = [f"## {cut.index}. {_LABELS[cut.role]}{at}\n"]
    if cut.text:
        lines.append(_fenced(cut.text) if cut.role == "tool" else f"{_closed(cut.text)}\n")
    for call in cut.tool_calls:
        arguments = json.dumps(call.arguments, ensure_ascii=False, default=str)
        lines.append(f"Uses the tool `{call.name}`:\n\n{_fenced(arguments)}")
    return "\n".join(lines)


def _closed(text: str) -> str:
    """The text with an end for a code block or an HTML block that it leaves open: it would swallow what follows."""
    fence: str | None = None
    outside = 0  # where the last code block ended
    for match in _FENCE.finditer(text):
        mark, rest = match[1], match[2]
        if fence is None:
            fence = None if mark[0] == "`" and "`" in rest else mark
        elif mark[0] == fence[0] and len(mark) >= len(fence) and not rest.strip():
            fence, outside = None, match.end()
    if fence is not None:
        return f"{text}\n{fence}"
    for begin, end in _ENDS.items():
        found = list(re.finditer(rf"^ {{0,3}}{re.escape(begin)}", text[outside:], re.MULTILINE | re.IGNORECASE))
        if found and end not in text[outside + found[-1].end() :].lower():
            return f"{text}\n{end}"
    return text


def _fenced(text: str) -> str:
    """A code block whose fence is longer than any in the text, so that what tools return stays inside."""
    fence = _fence(text)
    return f"{fence}\n{text}\n{fence}\n"


def _fence(text: str) -> str:
    # The longest run and one more, not tried one by one: in a long text of nothing else that takes minutes.
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def _cut(message: Message, longest: int) -> Message:
    """The message, shortened so that no form of it is longer than `longest` bytes."""
    room = longest - 1024
    weight = _weight(message.text) + sum(_weight(call.arguments) for call in message.tool_calls)
    if weight <= room:
        return message
    share = room // 16  # JSON writes a character in up to six bytes; half of the room is for the text
    text = message.text
    if len(text) > share:
        text = f"{text[:share]}\n[... {len(text) - share} more characters: read_transcript has them ...]"
    calls = [
        call
        if _weight(call.arguments) <= share // (len(message.tool_calls) or 1)
        else call.model_copy(update={"arguments": {"cut": "too long to be shown here"}})
        for call in message.tool_calls
    ]
    return message.model_copy(update={"text": text, "tool_calls": tuple(calls)})


def _weight(value: object) -> int:
    """Bytes as JSON, in which only control characters and quotes take more than in Markdown; and those of a fence."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return _carried(text) + 2 * len(_fence(text))
