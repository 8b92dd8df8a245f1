# ruff: noqa: RUF001 (people type curly quotes, dashes and signs of arithmetic)
"""The embedded model `offline`: deterministic, without network, and no language model.

It recognises a few plain English statements ("My name is John", "I live in Lisbon", "remember that the door
code is 4711") in the user's messages and answers questions about them from nothing but the messages it is
given. So what it knows is exactly what a session carries. It refuses a history that a real provider refuses.
"""

import asyncio
import hashlib
import json
import re
import threading
import warnings
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import unescape
from typing import Any, TypeVar, Unpack, cast

from pydantic import BaseModel
from strands.models.model import BaseModelConfig, Model
from strands.types.content import ContentBlock, Message, Messages, SystemContentBlock
from strands.types.exceptions import ContextWindowOverflowException
from strands.types.streaming import StreamEvent
from strands.types.tools import ToolChoice, ToolSpec
from typing_extensions import override

T = TypeVar("T", bound=BaseModel)

CONTEXT_WINDOWS: Mapping[str, int] = {"basic": 100_000, "small": 2_000}
"""Model ids and their windows in tokens, of about four characters each."""

SUMMARY_MARKER = "Summarise the transcript of a conversation"
"""In the system prompt of a request for a summary; `offline` then answers with the facts it recognises."""

LEARNING_MARKER = "Write down what one turn of a conversation taught"
"""In the system prompt of a request for durable facts; `offline` then answers with those that it recognises."""

_WHO = "I am the offline model, not a language model: I answer only from the messages I am given."
_SAID = "The user said: "
_SUMMARY_HEAD = "Summary by the offline model (no language model) of what it recognised in the transcript:"
_SUMMARY_FOOT = "(End of the summary.)"
_LONGEST_VALUE, _LONGEST_QUOTE, _LONGEST_RESULT, _LONGEST_SUMMARY = 200, 80, 2_000, 4_000  # characters

# What it understands. A table of regular expressions rather than a grammar, because the point is to be
# predictable: what counts as a statement or a question is these rows and nothing else. Words of a topic and
# characters of a value are bounded, so that a long prompt takes time in proportion to its length.
#
# Statements: where the value begins, the topic they are looked up by, the fact in the user's words. A named
# group serves as both where the template is empty.
_WORD = r"(?!(?:is|are|was|were|and|or)\b)[^\W_][\w'’-]{0,40}"
_TOPIC = rf"(?P<topic>{_WORD}(?:\s+{_WORD}){{0,5}}?)"
_IS = r"(?:\s+(?P<verb>is|are|was|were)\b|\s*[:=])"
_BEFORE_THE = r"(?:^|[.!?;,:]\s*|\b(?:that|this|remember|note|please|so|and|but)\s+)"
_STATEMENTS = tuple(
    (re.compile(start, re.IGNORECASE), topic, said)
    for start, topic, said in (
        (r"\b(?:my\s+name['’]s|I(?:\s+am|['’]m)\s+called|I\s+go\s+by)\b", "name", "my name is"),
        (r"\bcall\s+me\b(?!\s+(?:back|when|if|at|later|an?)\b)", "name", "my name is"),
        (rf"\b(?:my|(?:the\s+)?user['’]s)\s+{_TOPIC}{_IS}", "{topic}", "my {topic} {verb}"),
        (rf"{_BEFORE_THE}(?P<the>the|our)\s+(?!user['’]s){_TOPIC}{_IS}", "{topic}", "{the} {topic} {verb}"),
        (r"\bI\s+(?P<how>(?P<topic>live|work)\s+(?:in|at|as|for|near|on|with))\b", "{topic}", "I {how}"),
        (r"\bI\s+(?P<topic>like|love|prefer|hate)\b", "{topic}", "I {topic}"),
        (r"\bI(?:\s+am|['’]m|\s+come)\s+from\b", "from", "I am from"),
    )
)
_NOTE = re.compile(r"(?:^|[.!?;,:]\s*|\bplease\s+)remember\b(?!\s+me\b)(?:\s*:|\s+(?:that|this)\b:?)?", re.IGNORECASE)

# A value ends with its sentence, or where a new clause begins. A stop after a capital or a title ends nothing
# ("J. R. Smith", "St. John's"), unless a new clause follows.
_CLAUSE = (
    r"(?i:I|I['’]m|my|you|your|what|what['’]s|who|where|when|which|how|why|do|does|did|can|could|please|remember"
    r"|tell|call|use|nice|pleased|glad|it|it['’]s|that['’]s|this|thanks|thank|ok|okay|right|hello|hi|the|our)\b"
)
_VALUE_END = re.compile(
    rf"(?<!\b[A-ZÀ-Þ])(?<!\b(?:Dr|Mr|Ms|St|Jr|Sr))(?<!\bMrs)[.!?;]+(?=\s|$)"
    rf"|[.!?;,:]+\s+(?i:(?:and|but|so)\s+)?{_CLAUSE}|\s+(?:[-–—]+|(?i:and|but|so))\s+{_CLAUSE}"
    r"|\s+(?i:please|by the way|from now on)\b|[.!?;,\s]+$"
)
_QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|'([^']+)'(?!\w)")
_SPEAKER = re.compile(r"[\W\d]*(user|assistant|system|tool)(?: uses \S+)?\W*:\s*", re.IGNORECASE)

# Questions: the pattern, the topic and what it is called in "I don't know ...". The topic `*` is everything.
_ASKED = rf"(?P<whose>my|the|our)\s+{_TOPIC}"
_END = r"(?=\s*(?:[?.!,;]|$)|\s+(?:and|again|called|please|is|are|was|were)\b)"
_QUESTIONS = tuple(
    (re.compile(pattern, re.IGNORECASE | re.MULTILINE), topic, phrase)
    for pattern, topic, phrase in (
        (rf"\b(?:what|how|who|which)(?:['’]s|\s+is|\s+are|\s+was|\s+were)?\s+{_ASKED}{_END}", "", ""),
        (rf"\b(?:you\s+(?:know|remember|recall)|tell\s+me|remind\s+me\s+of)\s+{_ASKED}{_END}", "", ""),
        (r"\b(?:who|what)\s+(?:am\s+I|I\s+am)(?:\s+called)?\s*(?:[?.!,;]|$)", "name", "your name"),
        (r"\bwhat\s+(?:do|should)\s+you\s+call\s+me\b", "name", "your name"),
        (r"\b(?:where|who|what|how)\s+(?:do\s+)?I\s+(?P<topic>live|work)\b", "", "where you {topic}"),
        (r"\bwhat\s+(?:do\s+)?I\s+(?P<topic>like|love|prefer|hate)\b", "", "what you {topic}"),
        (r"\bwhere\s+(?:am\s+I|I\s+am|(?:do\s+)?I\s+come)\s+from\b", "from", "where you are from"),
        (r"\bwhat\s+(?:\w+\s+)?(?:did|have)\s+I\s+(?:tell|told|ask|asked|say|said|give)\b", "*", "it"),
        (r"\bwhat\s+(?:do|should)\s+you\s+(?:know|remember)\b", "*", "anything"),
    )
)

_ORDER = re.compile(r"\buse\s+the\s+tool\s+(?P<name>[\w.:/-]*\w)(?P<with>\s+with\b\s*)?", re.IGNORECASE)
_SUM = re.compile(
    r"(?:^|\b(?:what(?:['’]s|\s+is)|how\s+much\s+is|calculate|compute)) *(?P<sum>[-+*/×÷^%().\d ]+)"
    r"(?=[=?!;,]|\.\s|$|(?<= )(?:and|please)\b)",
    re.IGNORECASE | re.MULTILINE,
)
_TIME = re.compile(
    r"\bwhat\s+(?:time|day)\s+is\s+it\b|\bwhat(?:['’]s|\s+is)\s+the\s+(?:current\s+)?time\b", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something the user stated: the `topic` it is looked up by, and the user's words (`my name is John`)."""

    topic: str
    said: str

    def told(self) -> str:
        """The fact as the user is told it: `Your name is John.`"""
        swaps = {"my": "your", "I am": "you are", "I": "you", "remember:": "you asked me to remember:"}
        text = re.sub(r"^(my|I am|I|remember:)(?= )", lambda match: swaps[match[0]], self.said)
        return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _squeeze(text: str, longest: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _topic(words: str) -> str:
    """What a statement and a question about it have in common, in British or American spelling."""
    return " ".join(words.casefold().replace("’", "'").replace("our", "or").split())


def _value(rest: str) -> tuple[str, int]:
    """The value that `rest` begins with and where it ends; empty where the sentence is a question."""
    lead = len(rest) - len(rest.lstrip(" \t:,"))
    if quoted := _QUOTED.match(rest, lead):
        return _squeeze(quoted[quoted.lastindex or 0], _LONGEST_VALUE), quoted.end()
    end = _VALUE_END.search(rest, lead)
    stop = end.start() if end else len(rest)
    asked = end is not None and end[0].startswith("?")
    return "" if asked else _squeeze(rest[lead:stop], _LONGEST_VALUE), stop


def _facts_of_line(line: str) -> list[Fact]:
    facts: list[Fact] = []
    taken = 0
    found = [(match, topic, said) for start, topic, said in _STATEMENTS for match in start.finditer(line)]
    for match, topic, said in sorted(found, key=lambda each: each[0].start()):
        if match.start() < taken:  # within the value of the statement before
            continue
        value, length = _value(line[match.end() : match.end() + 5 * _LONGEST_VALUE])
        if value:
            facts.append(_fact(match, topic, said, value))
            taken = match.end() + length
    if not facts and (match := _NOTE.search(line)):
        value, _ = _value(line[match.end() : match.end() + 5 * _LONGEST_VALUE])
        facts = [Fact(topic=_topic(value), said=f"remember: {value}")] if value else []
    return facts


def _fact(match: re.Match[str], topic: str, said: str, value: str) -> Fact:
    words = {name: " ".join(text.split()) for name, text in match.groupdict(default="is").items()}
    return Fact(topic=_topic(topic.format_map(words)), said=f"{said.format_map(words)} {value}")


def _fact_of_summary(said: str) -> Fact | None:
    """The fact of a line of a summary, where the value is all that follows, whatever it holds."""
    if said.startswith("remember: "):
        return Fact(topic=_topic(said.removeprefix("remember: ")), said=said)
    for start, topic, template in _STATEMENTS:
        if match := start.match(said):
            return _fact(match, topic, template, said[match.end() :].strip())
    return None


def read_facts(text: str) -> Iterator[Fact]:
    """The facts in a message, a transcript (lines `user: ...`, `assistant: ...`) or a summary, in order.

    What others than the user say and what goes to a tool are no statements of the user's.
    """
    by_user = True
    for line in _read_orders(text)[1].split("\n"):
        if speaker := _SPEAKER.match(line):
            by_user = speaker[1].lower() == "user"
            line = line[speaker.end() :]
        if by_user and _SAID in line:
            for said in line.split(_SAID)[1:]:
                if fact := _fact_of_summary(said.partition(_SUMMARY_FOOT)[0].strip().removesuffix(".")):
                    yield fact
        elif by_user and line:
            yield from _facts_of_line(line)


def _known(messages: Messages, injected: str = "") -> dict[str, Fact]:
    """What the user stated, by topic: the latest of each, in the order they were stated."""
    # Injected memory (`<memory><entry>...`) is older than what was said here, so it is read first.
    texts = [unescape(re.sub(r"<[^<>]{0,200}>", "\n", injected))]
    texts += [_text(message["content"]) for message in messages if message["role"] == "user"]
    known: dict[str, Fact] = {}
    for fact in (fact for text in texts for fact in read_facts(text)):
        known.pop(fact.topic, None)
        known[fact.topic] = fact
    return known


def _answers(prompt: str, known: Mapping[str, Fact]) -> dict[str, Fact | None]:
    """The sentences that answer the questions of `prompt`, in its order, each with the fact it tells."""
    asked = [(match, *row) for pattern, *row in _QUESTIONS for match in pattern.finditer(prompt)]
    answers: dict[str, Fact | None] = {}
    for match, topic, phrase in sorted(asked, key=lambda each: each[0].start()):
        words = match.groupdict(default="")
        topic = topic or _topic(words["topic"])
        facts = known.values()
        if topic in known:
            facts = [known[topic]]
        elif topic != "*":  # a note has no topic of its own: it answers where it mentions what is asked for
            facts = [fact for fact in facts if fact.said.startswith("remember: ") and topic in fact.topic]
        answers |= {fact.told(): fact for fact in facts}
        if not facts:
            whose = words.get("whose", "").lower().replace("my", "your")
            unknown = phrase.format_map(words) or f"{whose} {words['topic']}"
            answers[f"I don't know {unknown}: you have not told me in this session. {_WHO}"] = None
    return answers


def _read_orders(text: str) -> tuple[list[tuple[str, object]], str]:
    """Each `use the tool NAME with {json}` in `text` as (name, value, None if no JSON), and the rest."""
    orders: list[tuple[str, object]] = []
    rest, at = "", 0
    while match := _ORDER.search(text, at):
        rest += text[at : match.start()]
        at, given = match.end(), cast(object, {})
        if match["with"]:
            try:
                given, at = cast(tuple[object, int], json.JSONDecoder().raw_decode(text, at))
            except (ValueError, RecursionError):
                given = None
        orders.append((match["name"], given))
    return orders, rest + text[at:]


def _tool_calls(prompt: str, specs: Iterable[ToolSpec]) -> tuple[list[tuple[str, object]], str]:
    """The tools (name, input) that `prompt` wants, or else why an order can't be followed."""
    schemas = {spec["name"]: cast(Mapping[str, Any], spec["inputSchema"]) for spec in specs}
    orders, rest = _read_orders(prompt)
    for name, given in orders:
        if name not in schemas:
            return [], f"I have no tool {name}, only: {', '.join(sorted(schemas)) or 'none'}. {_WHO}"
        if not isinstance(given, dict):
            return [], f'What follows "use the tool {name} with" is no JSON object. {_WHO}'
    if orders:
        return orders, ""
    if "calculator" in schemas and (match := _SUM.search(rest)):
        schema: Mapping[str, Any] = schemas["calculator"].get("json", schemas["calculator"])
        required = {key: schema["properties"][key] for key in schema.get("required", [])}
        keys = [key for key, value in required.items() if value.get("type") == "string"]
        wanted = match["sum"].replace("×", "*").replace("÷", "/").replace("^", "**").strip(" .")
        if len(keys) == 1 and re.search(r"[\d)] *[-+*/%]+ *[-(]*[\d.]", wanted):
            return [("calculator", {keys[0]: wanted})], ""
    if "current_time" in schemas and _TIME.search(rest):
        return [("current_time", {})], ""
    return [], ""


def _tool_answers(messages: Messages) -> list[str]:
    """What the tools answered, a sentence each, where the last message brings their results."""
    used = messages[-2]["content"] if len(messages) > 1 else []
    names = {block["toolUse"]["toolUseId"]: block["toolUse"]["name"] for block in used if "toolUse" in block}
    sentences: list[str] = []
    for result in (block["toolResult"] for block in messages[-1]["content"] if "toolResult" in block):
        texts = [part["text"] for part in result["content"] if "text" in part]
        texts += [json.dumps(part["json"]) for part in result["content"] if "json" in part]
        said = "\n".join(texts)[:_LONGEST_RESULT] or "(no text)"
        verb = "failed" if result["status"] == "error" else "answered"
        sentences.append(f"The tool {names[result['toolUseId']]} {verb}: {said}")
    return sentences


def _text(blocks: Iterable[ContentBlock]) -> str:
    return "\n".join(block["text"] for block in blocks if "text" in block)


def _summary(messages: Messages, longest: int) -> str:
    """Every fact in `messages`, the name first and then the latest, in at most `longest` characters."""
    known = _known(messages)
    name = [f"{_SAID}{known.pop('name').said}."] if "name" in known else []
    lines = [_SUMMARY_HEAD, *name, _SUMMARY_FOOT]
    room = longest - len("\n".join(lines))
    for fact in reversed(known.values()):
        line = f"{_SAID}{fact.said}."
        room -= len(line) + 1
        if room < 0:
            break
        lines.insert(1 + len(name), line)  # in front of what was said later
    return "\n".join(lines)


def _reply(messages: Messages, prompt: str, injected: str) -> str:
    known = _known(messages, injected)
    answers = _answers(_read_orders(prompt)[1], known)
    new = set(read_facts(prompt)) - set(answers.values())
    noted = [fact.told() for fact in known.values() if fact in new]
    parts = [*_tool_answers(messages), *answers]
    if noted:
        parts.append(f"Noted. {' '.join(noted)} {_WHO}")
    if not parts:
        count = f"{len(messages)} message{'s' if len(messages) > 1 else ''}"
        quoted = _squeeze(prompt, _LONGEST_QUOTE) or "(no text)"
        parts.append(f'{_WHO} I saw {count} of this conversation, and your prompt begins: "{quoted}"')
    return "\n".join(parts)


def check_history(messages: Messages) -> None:
    """Raise ValueError where a real provider would refuse `messages`.

    The first and the last are the user's, roles alternate, no content is empty, and each toolUse is answered
    by a toolResult of the same toolUseId in the next message, and the other way round.
    """
    pending: list[str] = []
    for index, message in enumerate(messages):
        role = "assistant" if index % 2 else "user"
        blocks = message["content"]
        uses = [block["toolUse"]["toolUseId"] for block in blocks if "toolUse" in block]
        results = [block["toolResult"]["toolUseId"] for block in blocks if "toolResult" in block]
        problem = ""
        if message["role"] != role:
            problem = f"comes from the {message['role']}, must be the {role}'s: roles alternate, user first"
        elif not blocks or any("text" in block and not block["text"].strip() for block in blocks):
            problem = "has no content or an empty text"
        elif (role == "user" and uses) or len(set(uses)) < len(uses):
            problem = f"uses tools {uses}: only the assistant does, under an id of its own each"
        elif sorted(results) != sorted(pending):
            problem = f"has toolResults for {results}, must have them for {pending}"
        if problem:
            raise ValueError(f"Invalid history: message {index} {problem}.")
        pending = uses
    if len(messages) % 2 == 0:
        raise ValueError("Invalid history: it must end with a message from the user.")


class OfflineConfig(BaseModelConfig, total=False):
    """`model_id` (a key of CONTEXT_WINDOWS) and `context_window_limit` (tokens; by default the id's)."""

    model_id: str


class OfflineModel(Model):
    """A Strands model that runs in the process and answers by rule.

    Args:
        model_id: `basic` (a window of 100,000 tokens) or `small` (2,000, to watch a summary at work).
        chunk_delay: Seconds before each word of a reply, for demos.

    Raises:
        ValueError: The model id is unknown.
    """

    def __init__(self, model_id: str = "basic", *, chunk_delay: float = 0.0) -> None:
        self.config: OfflineConfig = {}
        self.chunk_delay = chunk_delay
        self.update_config(model_id=model_id)

    @override
    def update_config(self, **model_config: Unpack[OfflineConfig]) -> None:
        """Change the configuration; a new `model_id` brings its window. ValueError: the id is unknown."""
        if unknown := sorted(model_config.keys() - OfflineConfig.__annotations__.keys()):
            warnings.warn(f"The offline model has no {', '.join(unknown)}: ignored.", stacklevel=2)
        if "model_id" in model_config:
            model_id = model_config["model_id"]
            if model_id not in CONTEXT_WINDOWS:
                ids = " or ".join(CONTEXT_WINDOWS)
                raise ValueError(f"The offline model has no id {model_id!r}: use {ids}.")
            self.config.update(model_id=model_id, context_window_limit=CONTEXT_WINDOWS[model_id])
        if "context_window_limit" in model_config:
            self.config["context_window_limit"] = model_config["context_window_limit"]

    @override
    def get_config(self) -> OfflineConfig:
        """The configuration: `model_id`, and `context_window_limit` in tokens."""
        return self.config

    @override
    def structured_output(
        self, output_model: type[T], prompt: Messages, system_prompt: str | None = None, **kwargs: object
    ) -> AsyncGenerator[dict[str, T | Any], None]:
        """Raises NotImplementedError: there is no language model to fill a form."""
        raise NotImplementedError("The offline model has no structured output: use another model for that.")

    @override
    async def stream(
        self,
        messages: Messages,
        tool_specs: list[ToolSpec] | None = None,
        system_prompt: str | None = None,
        *,
        tool_choice: ToolChoice | None = None,
        system_prompt_content: list[SystemContentBlock] | None = None,
        cancel_signal: threading.Event | None = None,
        dynamic_trailing_blocks: int = 0,
        **kwargs: object,  # what else Strands passes to every model has no meaning here
    ) -> AsyncGenerator[StreamEvent, None]:
        """Answer the last of `messages` word by word.

        Once `cancel_signal` is set the stream ends before its next event, without `messageStop`.

        Raises:
            ValueError: A real provider would refuse the history.
            ContextWindowOverflowException: The input is longer than the model's window.
            NotImplementedError: A tool is forced, as for structured output.
        """
        if tool_choice and "auto" not in tool_choice:
            raise NotImplementedError("The offline model can't be forced to use a tool: use another one.")
        check_history(messages)
        used = await self.count_tokens(messages, tool_specs, system_prompt, system_prompt_content)
        window = self.context_window_limit or CONTEXT_WINDOWS["basic"]
        if used > window:
            raise ContextWindowOverflowException(f"The input has {used} tokens, the model's window {window}.")

        blocks = messages[-1]["content"]
        own = len(blocks) - dynamic_trailing_blocks  # what follows is injected and not the user's
        prompt, injected = _text(blocks[:own]), _text(blocks[own:])
        earlier: Messages = [*messages[:-1], {"role": "user", "content": blocks[:own]}]
        instructions = [system_prompt or "", *(part.get("text", "") for part in system_prompt_content or [])]
        calls: list[tuple[str, object]] = []
        if any(SUMMARY_MARKER in part for part in instructions):
            # In characters, so at most an eighth of the window.
            text = _summary(earlier, min(_LONGEST_SUMMARY, window // 2))
        elif any(LEARNING_MARKER in part for part in instructions):
            text = "\n".join(f"- {fact.said}" for fact in _known(earlier).values()) or "NONE"
        else:
            text = ""
            if not any("toolResult" in block for block in blocks):  # one round of tools, then an answer
                calls, text = _tool_calls(prompt, tool_specs or [])
            text = text or _reply(earlier, prompt, injected)
        reply = _message(messages, calls, text)
        for event in _events(reply):
            await asyncio.sleep(self.chunk_delay if "contentBlockDelta" in event else 0)
            if cancel_signal is not None and cancel_signal.is_set():
                return
            yield event
        said = await self.count_tokens([reply])
        usage = {"inputTokens": used, "outputTokens": said, "totalTokens": used + said}
        yield cast(StreamEvent, {"metadata": {"usage": usage, "metrics": {"latencyMs": 0}}})


def _message(messages: Messages, calls: list[tuple[str, object]], text: str) -> Message:
    # The number of messages alone would make an id twice: a summary makes it smaller again.
    state = hashlib.sha256(json.dumps(messages, sort_keys=True, default=repr).encode()).hexdigest()[:16]
    uses: list[ContentBlock] = [
        {"toolUse": {"toolUseId": f"offline-{state}-{number}", "name": name, "input": given}}
        for number, (name, given) in enumerate(calls)
    ]
    return {"role": "assistant", "content": uses or [{"text": text}]}


def _events(reply: Message) -> Iterator[StreamEvent]:
    """`reply` as a provider streams it, but for the metadata at the end."""
    stop_reason = "end_turn"
    yield {"messageStart": {"role": "assistant"}}
    for index, block in enumerate(reply["content"]):
        start, deltas = {}, [{"text": word} for word in re.findall(r"\s*\S+\s*", block.get("text", ""))]
        if "toolUse" in block:
            stop_reason = "tool_use"
            use = block["toolUse"]
            start = {"toolUse": {"toolUseId": use["toolUseId"], "name": use["name"]}}
            deltas = [{"toolUse": {"input": json.dumps(use["input"])}}]
        yield cast(StreamEvent, {"contentBlockStart": {"contentBlockIndex": index, "start": start}})
        for delta in deltas:
            yield cast(StreamEvent, {"contentBlockDelta": {"contentBlockIndex": index, "delta": delta}})
        yield {"contentBlockStop": {"contentBlockIndex": index}}
    yield cast(StreamEvent, {"messageStop": {"stopReason": stop_reason}})
