"""Settling, as laws: however a history was cut off, what it leaves is valid, final, and keeps every whole turn."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings, strategies as st
from strands import Agent
from strands.session.file_session_manager import FileSessionManager
from strands.types.content import ContentBlock, Message, Messages
from strands.types.session import SessionMessage

from agent_mcp.domain import AgentId, SessionId
from agent_mcp.offline import OfflineModel, check_history
from agent_mcp.settle import INTERRUPTED, settle
from agent_mcp.storage.history import OWN_STATE, History
from agent_mcp.storage.layout import Layout

SESSION, AGENT = SessionId("s"), AgentId("a")
NEXT: Message = {"role": "user", "content": [{"text": "And now?"}]}


def turn(number: int, rounds: list[int]) -> Messages:
    """A whole turn: a prompt, rounds of so many tool calls each, and a reply."""
    messages: Messages = [{"role": "user", "content": [{"text": f"prompt {number}"}]}]
    for index, calls in enumerate(rounds):
        ids = [f"{number}-{index}-{call}" for call in range(calls)]
        uses: list[ContentBlock] = [{"toolUse": {"toolUseId": i, "name": "calculator", "input": {}}} for i in ids]
        results: list[ContentBlock] = [
            {"toolResult": {"toolUseId": i, "status": "success", "content": [{"text": "1"}]}} for i in ids
        ]
        messages.append({"role": "assistant", "content": uses})
        messages.append({"role": "user", "content": results})
    messages.append({"role": "assistant", "content": [{"text": f"reply {number}"}]})
    return messages


@st.composite
def cut_off(draw: st.DrawFn, *, by_others: bool = True) -> tuple[Messages, int, int]:
    """A history that ends anywhere; how many of its messages are whole turns; how many its state counts as removed.

    `by_others`: it may also end as programs without locks and settling leave it.
    """
    turns = draw(st.lists(st.lists(st.integers(1, 3), max_size=2), max_size=3))
    whole = [message for number, rounds in enumerate(turns) for message in turn(number, rounds)]
    last = turn(len(turns), draw(st.lists(st.integers(1, 3), max_size=2)))
    messages = [*whole, *last[: draw(st.integers(0, len(last)))]]
    kept = len(whole) if len(messages) < len(whole) + len(last) else len(messages)
    if by_others and len(messages) == kept and draw(st.booleans()):
        messages.append({"role": "user", "content": [{"text": "nobody answered"}]})
    if by_others and draw(st.booleans()) and messages and messages[-1]["role"] == "user":
        messages.append({"role": "assistant", "content": []})  # a stream that ended without a word
    elif by_others and draw(st.booleans()) and messages and messages[-1]["role"] == "user":
        messages.append({"role": "user", "content": [{"text": "asked again by a program without a lock"}]})
    return messages, kept, draw(st.integers(0, len(messages) + 2))


@contextmanager
def kept(messages: Messages, *, removed: int = 0, kind: type[History] = History) -> Generator[History]:
    """A session on disk with these messages, as a killed Strands program leaves it."""
    with tempfile.TemporaryDirectory() as directory:
        layout = Layout(Path(directory))
        manager = FileSessionManager(SESSION, storage_dir=directory)
        agent = Agent(model=OfflineModel(), agent_id=AGENT, session_manager=manager, callback_handler=None)
        agent.conversation_manager.removed_message_count = removed
        manager.sync_agent(agent)
        for index, message in enumerate(messages):
            manager.create_message(SESSION, AGENT, SessionMessage.from_message(message, index))
        yield kind(layout, SESSION, AGENT, sync=False)


def messages_of(history: History) -> Messages:
    """Everything, through Strands' own repository."""
    return [m.to_message() for m in history.manager().list_messages(SESSION, AGENT)]


def files(history: History) -> dict[str, bytes]:
    root = history._layout.root  # pyright: ignore[reportPrivateUsage] the files are what this test is about
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.json")}


def message_files(history: History, count: int) -> list[bytes]:
    found = files(history)
    return [found[f"session_s/agents/agent_a/messages/message_{index}.json"] for index in range(count)]


@settings(max_examples=60, deadline=None)
@given(cut_off() | cut_off(by_others=False), st.sampled_from(["", "  "]))
def test_a_settled_history_is_valid_final_and_keeps_every_whole_turn(
    case: tuple[Messages, int, int], partial: str
) -> None:
    check_settled(case, partial)


@settings(max_examples=40, deadline=None)
@given(cut_off(by_others=False))
def test_a_turn_that_wrote_some_text_is_closed_validly(case: tuple[Messages, int, int]) -> None:
    check_settled(case, "as far as it had come")


def check_settled(case: tuple[Messages, int, int], partial: str) -> None:
    messages, whole, _ = case
    with kept(messages) as history:
        before = message_files(history, whole)
        changed = settle(history, partial=partial)
        check_history([*messages_of(history), NEXT])
        assert message_files(history, whole) == before
        settled = files(history)
        assert changed == (messages != messages_of(history))
        assert settle(history, partial=partial) is False
        assert files(history) == settled


@settings(max_examples=40, deadline=None)
@given(cut_off(), st.booleans())
def test_whatever_a_state_counts_as_removed_the_next_message_gets_the_next_number(
    case: tuple[Messages, int, int], has_saved: bool
) -> None:
    messages, _, removed = case
    saved = {"__name__": "SlidingWindowConversationManager", "removed_message_count": 0, "model_call_count": 7}
    with kept(messages, removed=removed) as history:
        settle(history, saved=saved if has_saved else None)
        count = history.count()
        state = history.conversation()
        assert state is not None
        assert state["removed_message_count"] < max(count, 1)
        assert removed >= max(count, 1) or state["removed_message_count"] == removed  # left alone where it fits
        before = message_files(history, count)
        root = str(history._layout.root)  # pyright: ignore[reportPrivateUsage] a plain program opens the directory
        manager = FileSessionManager(SESSION, storage_dir=root)
        agent = Agent(model=OfflineModel(), agent_id=AGENT, session_manager=manager, callback_handler=None)
        manager.append_message(NEXT, agent)
        assert history.count() == count + 1
        assert message_files(history, count) == before


def test_our_own_count_of_removed_messages_is_settled_too() -> None:
    with kept(turn(0, [])) as history:
        state = history.conversation()
        assert state is not None
        history.restore_conversation(
            {**state, OWN_STATE: {"prefix": [NEXT], "removed_message_count": 2, "reduced_before": -1}}
        )
        assert settle(history)
        assert OWN_STATE not in (history.conversation() or {})


@pytest.mark.parametrize(
    ("cut", "partial", "expected"),
    [
        (1, "", []),
        (1, "It is", ["prompt 0", f"It is\n\n{INTERRUPTED}"]),
        (2, "", ["prompt 0", "calculator", "result", INTERRUPTED]),
        (3, "", ["prompt 0", "calculator", "result", INTERRUPTED]),
        (3, "So", ["prompt 0", "calculator", "result", f"So\n\n{INTERRUPTED}"]),
        (4, "", ["prompt 0", "calculator", "result", "reply 0"]),
    ],
)
def test_a_prompt_without_an_answer_is_withdrawn_and_what_got_further_is_closed_with_a_note(
    cut: int, partial: str, expected: list[str]
) -> None:
    def shown(block: ContentBlock) -> str:
        return block.get("text", "calculator" if "toolUse" in block else "result")

    with kept(turn(0, [1])[:cut]) as history:
        settle(history, partial=partial)
        assert [shown(message["content"][0]) for message in messages_of(history)] == expected


class Killed(BaseException):
    """The process dies here."""


class Mortal(History):
    """A history whose process dies before, or right after, its n-th write."""

    lives = 1_000
    after = False

    def _write(self) -> None:
        self.lives -= 1
        if self.lives < 0:
            raise Killed

    def append(self, role: Literal["user", "assistant"], content: list[ContentBlock]) -> None:
        if not self.after:
            self._write()
        super().append(role, content)
        if self.after:
            self._write()

    def drop_last(self) -> None:
        if not self.after:
            self._write()
        super().drop_last()
        if self.after:
            self._write()

    def restore_conversation(self, state: dict[str, Any]) -> None:
        if not self.after:
            self._write()
        super().restore_conversation(state)
        if self.after:
            self._write()


@settings(max_examples=80, deadline=None)
@given(cut_off(), st.integers(0, 4), st.booleans())
def test_killed_at_any_write_of_settling_the_next_settling_ends_it(
    case: tuple[Messages, int, int], lives: int, after: bool
) -> None:
    messages, whole, removed = case
    with kept(messages, removed=removed, kind=Mortal) as history:
        assert isinstance(history, Mortal)
        before = message_files(history, whole)
        history.lives, history.after = lives, after
        try:
            settle(history)
        except Killed:
            history.lives = 1_000
            settle(history)
        check_history([*messages_of(history), NEXT])
        state = history.conversation()
        assert state is not None
        assert state["removed_message_count"] < max(history.count(), 1)
        assert message_files(history, whole) == before
        assert settle(history) is False


def test_settling_a_session_that_was_never_asked_changes_nothing() -> None:
    with tempfile.TemporaryDirectory() as directory:
        FileSessionManager(SESSION, storage_dir=directory)
        history = History(Layout(Path(directory)), SESSION, AGENT, sync=False)
        before = files(history)
        assert settle(history) is False
        assert files(history) == before
