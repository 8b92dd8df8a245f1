# ruff: noqa: RUF001 (people type curly quotes and signs of arithmetic)
"""The embedded model, through a real Strands agent: it knows what the messages carry, and nothing else."""

import asyncio
import threading
from collections.abc import AsyncIterable, Sequence
from typing import Any, cast

import pytest
from hypothesis import assume, given, settings, strategies as st
from pydantic import BaseModel
from strands import (
    Agent,
    tool,  # pyright: ignore[reportUnknownVariableType] (a bare dict in Strands' own annotation)
)
from strands.types.content import Message, Messages
from strands.types.exceptions import ContextWindowOverflowException, EventLoopException
from strands.types.streaming import StreamEvent

from agent_mcp.offline import CONTEXT_WINDOWS, SUMMARY_MARKER, OfflineModel, check_history, read_facts

DISCLAIMER = "not a language model"


@tool
def calculator(expression: str) -> str:
    """Work out a sum of two numbers, or fail.

    Args:
        expression: For example "3 + 4".
    """
    left, sign, right = expression.partition("*")
    return str(int(left) * int(right)) if sign else f"worked out {expression}"


@tool
def current_time(timezone: str = "UTC") -> str:
    """The time.

    Args:
        timezone: A name such as "UTC".
    """
    return f"noon in {timezone}"


@tool
def echo(value: str, times: int = 1) -> str:
    """Repeat a text.

    Args:
        value: The text.
        times: How often.
    """
    return " ".join([value] * times)


def new_agent(*, model_id: str = "basic", messages: Messages | None = None, tools: Sequence[Any] = ()) -> Agent:
    return Agent(model=OfflineModel(model_id), messages=list(messages or []), tools=list(tools), callback_handler=None)


def talk(*prompts: str, agent: Agent | None = None) -> str:
    """The reply to the last of `prompts`, which are asked one after the other."""
    agent = agent or new_agent()
    replies = [str(agent(prompt)).strip() for prompt in prompts]
    return replies[-1]


def text(role: str, words: str) -> Message:
    return cast(Message, {"role": role, "content": [{"text": words}]})


def tool_use(use_id: str) -> Message:
    return {"role": "assistant", "content": [{"toolUse": {"toolUseId": use_id, "name": "echo", "input": {}}}]}


def tool_result(use_id: str) -> Message:
    return {
        "role": "user",
        "content": [{"toolResult": {"toolUseId": use_id, "status": "success", "content": [{"text": "done"}]}}],
    }


def tool_uses(agent: Agent) -> list[dict[str, Any]]:
    blocks = [block for message in agent.messages for block in message["content"]]
    return [cast(dict[str, Any], block["toolUse"]) for block in blocks if "toolUse" in block]


async def collect(stream: AsyncIterable[StreamEvent]) -> list[StreamEvent]:
    return [event async for event in stream]


def events_for(messages: Messages, **kwargs: Any) -> list[StreamEvent]:
    return asyncio.run(collect(OfflineModel().stream(messages, **kwargs)))


def summary_of(transcript: str, *, model_id: str = "basic") -> str:
    agent = Agent(
        model=OfflineModel(model_id),
        system_prompt=f"{SUMMARY_MARKER} that you are given. Keep every fact.",
        callback_handler=None,
    )
    return talk(transcript, agent=agent)


# ---- what it was told ----


@pytest.mark.parametrize(
    ("told", "asked", "answer"),
    [
        ("My name is John", "What's my name?", "Your name is John."),
        ("my name is john.", "do you remember my name", "Your name is john."),
        ("Hello! My name’s John, nice to meet you.", "What is my name?", "Your name is John."),
        ("MY NAME IS JOHN!", "WHAT IS MY NAME?", "Your NAME IS JOHN."),
        ("My name: John", "Tell me what my name is.", "Your name is John."),
        ("I am called Ana", "Who am I?", "Your name is Ana."),
        ("I'm called Ana María and I like tea", "hi, what's my name please", "Your name is Ana María."),
        ("You can call me Bo from now on.", "What do you call me?", "Your name is Bo."),
        ("My name is 李小龙", "what's my name", "Your name is 李小龙."),
        ("My name is Þórður O’Brien-Ñ", "my dear, what is my name?", "Your name is Þórður O’Brien-Ñ."),
        ("My name is J. R. R. Tolkien. What a day.", "what's my name?", "Your name is J. R. R. Tolkien."),
        ("my favourite colour is blue", "what is my favorite color?", "Your favourite colour is blue."),
        ("My cats are Tom and Tim", "what are my cats called?", "Your cats are Tom and Tim."),
        ("I live in Lisbon, Portugal.", "where do I live?", "You live in Lisbon, Portugal."),
        ("I work at Acme", "Where do I work?", "You work at Acme."),
        ("I'm from Peru", "Where am I from?", "You are from Peru."),
        ("I love rain", "What do I love?", "You love rain."),
        ("My dog is called Rex", "What is my dog called?", "Your dog is called Rex."),
        ("remember that the door code is 4711", "What's the door code?", "The door code is 4711."),
        ("The code word is banana.", "Tell me the code word", "The code word is banana."),
        ("Remember the number 42.", "What was the number?", "You asked me to remember: the number 42."),
        ('My name is "Ann. And my name is..."', "what's my name?", "Your name is Ann. And my name is..."),
        ("Hi\nmy name is Ana\nthanks", "what's my name?", "Your name is Ana."),
    ],
)  # fmt: skip
def test_what_was_told_is_the_answer(told: str, asked: str, answer: str) -> None:
    assert talk(told, "How are you?", asked) == answer


WORD = st.text(st.characters(categories=["L", "M", "Nd"]), min_size=1, max_size=12).filter(str.isprintable)
NAME = st.lists(WORD, min_size=1, max_size=4).map(" ".join)


@given(name=NAME)
@settings(deadline=None)
def test_any_name_told_is_the_name_answered(name: str) -> None:
    assume(name[0].isalpha())
    assert talk(f"My name is {name}", "What's my name?") == f"Your name is {name}."


@given(name=st.text(min_size=1, max_size=60).filter(str.isprintable))
@settings(deadline=None)
def test_any_printable_name_in_quotes_is_answered_also_after_a_summary(name: str) -> None:
    name = " ".join(name.replace('"', "").split())
    assume(name)
    told = f'user: My name is "{name}"\nassistant: Noted.'
    again = summary_of(f"Summary so far:\n{summary_of(told)}\nuser: hello")
    reply = talk("What's my name?", agent=new_agent(messages=[text("user", again), text("assistant", "Fine.")]))
    assert reply == f"Your name is {name}" + ("" if name.endswith(".") else ".")


def test_the_latest_statement_wins() -> None:
    assert talk("My name is John", "My name is Ana", "call me Bo", "What's my name?") == "Your name is Bo."


def test_a_statement_is_acknowledged() -> None:
    reply = talk("My name is John and I live in Lisbon")
    assert reply.startswith("Noted. Your name is John. You live in Lisbon.")
    assert DISCLAIMER in reply


def test_a_statement_and_a_question_fit_in_one_prompt() -> None:
    assert talk("My name is John. What's my name?") == "Your name is John."
    reply = talk("My name is John, I live in Oslo; where do I live?")
    assert reply.startswith("You live in Oslo.\nNoted. Your name is John.")


def test_several_questions_are_answered_in_their_order() -> None:
    reply = talk("My name is John. I live in Oslo.", "Where do I live and what's my name?")
    assert reply == "You live in Oslo.\nYour name is John."


def test_what_was_never_told_is_not_known() -> None:
    reply = talk("What's my name?")
    assert reply.startswith("I don't know your name: you have not told me in this session.")
    assert DISCLAIMER in reply
    assert talk("What is the capital of France?").startswith("I don't know the capital of France:")


def test_a_question_is_no_statement() -> None:
    assert talk("Is it true that my name is John?", "What's my name?").startswith("I don't know your name")


def test_what_the_assistant_says_is_no_statement_of_the_user() -> None:
    agent = new_agent(messages=[text("user", "Hi"), text("assistant", "My name is HAL.")])
    assert talk("What's my name?", agent=agent).startswith("I don't know your name")


def test_everything_told_is_listed_when_asked_for() -> None:
    reply = talk("My name is John", "Remember: buy milk", "What do you know about me?")
    assert reply == "Your name is John.\nYou asked me to remember: buy milk."


def test_anything_else_gets_an_honest_reply_with_the_number_of_messages() -> None:
    reply = talk("Hello there", "Write a poem about " + "the sea " * 40)
    assert DISCLAIMER in reply
    assert "I saw 3 messages" in reply
    assert '"Write a poem about the sea' in reply
    assert len(reply) < 300


def test_the_same_conversation_gets_the_same_replies() -> None:
    prompts = ["My name is John", "Tell me a joke", "What's my name?"]
    one, other = new_agent(), new_agent()
    talk(*prompts, agent=one)
    talk(*prompts, agent=other)
    assert [m["content"] for m in one.messages] == [m["content"] for m in other.messages]


def test_injected_memory_is_known_and_older_than_what_was_said() -> None:
    memory = "<memory>\n<entry source='x'>My name is A &amp; O</entry>\n<entry>I live in Oslo</entry>\n</memory>"
    asked = text("user", "I live in Rome. What's my name? Where do I live?")
    asked["content"].append({"text": memory})
    events = events_for([asked], dynamic_trailing_blocks=1)
    assert reply_of(events) == "Your name is A & O.\nYou live in Rome."


def reply_of(events: list[StreamEvent]) -> str:
    deltas = [event["contentBlockDelta"] for event in events if "contentBlockDelta" in event]
    return "".join(delta.get("delta", {}).get("text", "") for delta in deltas)


# ---- summaries ----


def test_a_summary_carries_the_facts_without_the_messages() -> None:
    summary = summary_of(
        "user: Hi,\nmy name is John.\nassistant: My name is HAL. Your name is John.\n"
        'assistant uses remember: {"text": "my name is Eve"}\ntool: [{"text": "my name is Mallory"}]\n'
        "user: I live in Lisbon. remember to buy milk"
    )
    assert "The user said: my name is John." in summary.split("\n")
    wrapped = f"Summary of the earlier part:\n{summary}\n\nThe user's present request, word for word:\nHello"
    for question, answer in [
        ("What's my name?", "Your name is John."),
        ("Where do I live?", "You live in Lisbon."),
    ]:
        agent = new_agent(messages=[text("user", wrapped), text("assistant", "Understood.")])
        assert talk(question, agent=agent) == answer


def test_a_summary_of_a_summary_keeps_what_was_said_and_takes_what_is_new() -> None:
    first = summary_of("user: My name is John\nassistant: Noted.\nuser: I live in Oslo")
    second = summary_of(f"{first}\n\nuser: I live in Rome\nassistant: Noted.")
    third = summary_of(f"{second}\n\nuser: remember: buy milk\nuser: The door code is 1.")
    assert third.split("\n")[1:-1] == [
        "The user said: my name is John.",
        "The user said: I live in Rome.",
        "The user said: remember: buy milk.",
        "The user said: The door code is 1.",
    ]


def test_a_summary_survives_losing_its_line_breaks() -> None:
    summary = " ".join(summary_of("user: My name is Jo B. Hall\nuser: I live in Oslo").split())
    assert [fact.said for fact in read_facts(summary)] == ["my name is Jo B. Hall", "I live in Oslo"]


def test_a_summary_is_bounded_and_keeps_the_name_and_the_latest() -> None:
    lines = ["user: My name is John", *(f"user: remember that the code {n} is {n * n}" for n in range(1000))]
    for model_id, longest in [("basic", 4000), ("small", 1000)]:
        agent_lines = lines if model_id == "basic" else lines[:100]
        summary = summary_of("\n".join(agent_lines), model_id=model_id)
        assert len(summary) <= longest
        assert summary.split("\n")[1] == "The user said: my name is John."
        last = len(agent_lines) - 2
        assert summary.split("\n")[-2] == f"The user said: the code {last} is {last * last}."


@pytest.mark.timeout(30)  # seconds; about 2 where time grows with the length, about 50 where with its square
def test_a_long_text_is_read_in_time_in_proportion_to_its_length() -> None:
    for phrase in ["I am called ", "what is my a ", "\n"]:
        events = events_for([text("user", "x" + phrase * (390_000 // len(phrase)))])
        assert "metadata" in events[-1]


def test_without_the_marker_no_summary_is_made() -> None:
    agent = Agent(model=OfflineModel(), system_prompt="Be brief.", callback_handler=None)
    assert "Summary" not in talk("user: My name is John", agent=agent)


# ---- tools ----


@pytest.mark.parametrize(
    ("prompt", "expression", "result"),
    [
        ("what is 12*7?", "12*7", "84"),
        ("What's 12 × 7 ?", "12 * 7", "84"),
        ("calculate 3 + 4", "3 + 4", "worked out 3 + 4"),
        ("Hello. How much is (1+2)/3? Thanks", "(1+2)/3", "worked out (1+2)/3"),
        ("2^10", "2**10", None),
        ("calculate 3.5 - -1.", "3.5 - -1", "worked out 3.5 - -1"),
    ],
)
def test_a_sum_is_given_to_the_calculator(prompt: str, expression: str, result: str | None) -> None:
    agent = new_agent(tools=[calculator])
    reply = talk(prompt, agent=agent)
    assert [use["input"] for use in tool_uses(agent)] == [{"expression": expression}]
    assert reply == f"The tool calculator answered: {result}" if result else "failed" in reply


@pytest.mark.parametrize("prompt", ["My number is 4711", "what is 12?", "What is the plan for 3 - 4 people?", "-"])
def test_what_is_no_sum_is_not_given_to_the_calculator(prompt: str) -> None:
    agent = new_agent(tools=[calculator])
    talk(prompt, agent=agent)
    assert tool_uses(agent) == []


def test_the_time_comes_from_the_tool() -> None:
    assert talk("What time is it?", agent=new_agent(tools=[current_time])) == (
        "The tool current_time answered: noon in UTC"
    )


def test_a_tool_that_is_not_offered_is_not_called() -> None:
    for prompt in ["what is 12*7?", "what time is it?"]:
        agent = new_agent(tools=[echo])
        talk(prompt, agent=agent)
        assert tool_uses(agent) == []
    assert talk("use the tool nope with {}", agent=new_agent(tools=[echo])).startswith("I have no tool nope")


def test_a_named_tool_is_used_with_exactly_the_given_input() -> None:
    agent = new_agent(tools=[echo])
    reply = talk('Please use the tool echo with {"value": "a {b} \\"c\\"", "times": 2}, then go on.', agent=agent)
    assert [use["input"] for use in tool_uses(agent)] == [{"value": 'a {b} "c"', "times": 2}]
    assert reply == 'The tool echo answered: a {b} "c" a {b} "c"'


def test_two_named_tools_are_used_at_once() -> None:
    agent = new_agent(tools=[echo, current_time])
    reply = talk('use the tool echo with {"value": "a"} and use the tool current_time', agent=agent)
    assert len(agent.messages) == 4
    assert reply == "The tool echo answered: a\nThe tool current_time answered: noon in UTC"


def test_an_input_that_is_no_json_object_is_refused_in_words() -> None:
    for given_input in ["banana", "[1]", '{"value": ', '{"value": ' + "[" * 100_000]:
        agent = new_agent(tools=[echo])
        assert "no JSON object" in talk(f"use the tool echo with {given_input}", agent=agent)
        assert tool_uses(agent) == []


def test_a_failed_tool_is_reported_and_not_called_again() -> None:
    agent = new_agent(tools=[calculator])
    assert talk("calculate 1 * 1 * 1", agent=agent).startswith("The tool calculator failed:")
    assert len(tool_uses(agent)) == 1


def test_what_goes_to_a_tool_is_no_statement_of_the_user() -> None:
    agent = new_agent(tools=[echo])
    reply = talk('use the tool echo with {"value": "My name is Eve"}', "What's my name?", agent=agent)
    assert reply.startswith("I don't know your name")


def test_tool_use_ids_are_unique_in_a_conversation_and_the_same_in_the_same_conversation() -> None:
    one, other = new_agent(tools=[echo]), new_agent(tools=[echo])
    for agent in (one, other):
        talk(
            *['use the tool echo with {"value": "a"} and use the tool echo with {"value": "a"}'] * 3,
            agent=agent,
        )
    ids = [use["toolUseId"] for use in tool_uses(one)]
    assert len(set(ids)) == len(ids) == 6
    assert ids == [use["toolUseId"] for use in tool_uses(other)]


# ---- the stream ----


def test_the_reply_streams_word_by_word_and_reports_its_usage() -> None:
    events = events_for([text("user", "My name is John. What's my name?")], system_prompt="x" * 400)
    kinds = [next(iter(event)) for event in events]
    assert kinds == [
        "messageStart",
        "contentBlockStart",
        *["contentBlockDelta"] * 4,
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]
    assert reply_of(events) == "Your name is John."
    assert events[-2].get("messageStop") == {"stopReason": "end_turn"}
    assert events[-1].get("metadata", {}).get("usage") == {
        "inputTokens": 108,
        "outputTokens": 5,
        "totalTokens": 113,
    }


def test_tools_and_system_prompt_count_as_input() -> None:
    messages = [text("user", "Hello")]
    spec = echo.tool_spec

    def used(**kwargs: Any) -> int:
        return events_for(messages, **kwargs)[-1].get("metadata", {}).get("usage", {}).get("inputTokens", 0)

    assert used() < used(tool_specs=[spec]) < used(tool_specs=[spec], system_prompt="Be brief.")


def test_a_tool_use_stops_for_the_tool() -> None:
    events = events_for([text("user", "what is 1+1?")], tool_specs=[calculator.tool_spec])
    assert events[-2].get("messageStop") == {"stopReason": "tool_use"}


def test_other_tasks_run_between_the_words() -> None:
    async def run() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        events = await collect(OfflineModel().stream([text("user", "Hello")]))
        counting.cancel()
        return turns - len(events)

    assert asyncio.run(run()) >= -2


def test_a_cancelled_stream_ends_without_a_message_stop() -> None:
    async def run() -> list[str]:
        cancel = threading.Event()
        kinds: list[str] = []
        async for event in OfflineModel().stream([text("user", "Hello")], cancel_signal=cancel):
            kinds.append(next(iter(event)))
            if len(kinds) == 5:
                cancel.set()
        return kinds

    assert asyncio.run(run()) == ["messageStart", "contentBlockStart", *["contentBlockDelta"] * 3]


def test_a_cancelled_agent_reports_it() -> None:
    cancel = threading.Event()
    cancel.set()
    result = asyncio.run(new_agent().invoke_async("Hello", cancel_signal=cancel))
    assert result.stop_reason == "cancelled"


# ---- model ids and limits ----


def test_an_unknown_model_id_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="basic or small"):
        OfflineModel("large")
    model = OfflineModel()
    with pytest.raises(ValueError, match="basic or small"):
        model.update_config(model_id="large")
    assert model.get_config().get("model_id") == "basic"


def test_the_configuration_holds_the_id_and_its_window() -> None:
    model = OfflineModel("small")
    assert model.get_config() == {"model_id": "small", "context_window_limit": CONTEXT_WINDOWS["small"]}
    model.update_config(context_window_limit=50)
    assert model.context_window_limit == 50
    model.update_config(model_id="basic")
    assert model.context_window_limit == CONTEXT_WINDOWS["basic"]


def test_an_unknown_setting_is_warned_about_as_other_models_do() -> None:
    with pytest.warns(UserWarning, match="temperature"):
        OfflineModel().update_config(**cast(Any, {"temperature": 1}))


def test_more_than_the_window_overflows_it() -> None:
    fits, too_long = "a" * 4 * 2_000, "a" * (4 * 2_000 + 1)
    model = OfflineModel("small")
    assert asyncio.run(collect(model.stream([text("user", fits)])))
    with pytest.raises(ContextWindowOverflowException, match="2001 tokens"):
        asyncio.run(collect(model.stream([text("user", too_long)])))


class Person(BaseModel):
    """A form."""

    name: str


def test_structured_output_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="no structured output"):
        OfflineModel().structured_output(Person, [text("user", "Hello")])
    with pytest.raises(EventLoopException, match="can't be forced"):
        new_agent()("Hello", structured_output_model=Person)


# ---- the history ----


REFUSED: list[tuple[Messages, str]] = [
    ([], "must end with a message from the user"),
    ([text("assistant", "Hi")], "message 0 comes from the assistant"),
    ([text("user", "Hi"), text("user", "Hi")], "message 1 comes from the user"),
    ([text("user", "Hi"), text("assistant", "Hi")], "must end with a message from the user"),
    ([text("user", " \n")], "message 0 has no content or an empty text"),
    ([{"role": "user", "content": []}], "message 0 has no content or an empty text"),
    ([tool_result("a")], r"message 0 has toolResults for \['a'\]"),
    ([text("user", "Hi"), tool_use("a"), text("user", "Hi")], r"must have them for \['a'\]"),
    ([text("user", "Hi"), tool_use("a"), tool_result("b")], r"for \['b'\], must have them for \['a'\]"),
    ([text("user", "Hi"), text("assistant", "Hi"), tool_result("a")], "message 2 has toolResults"),
    ([{**tool_use("a"), "role": "user"}], "only the assistant"),
    ([text("user", "Hi"), {**tool_result("a"), "role": "assistant"}], "message 1 has toolResults"),
]


@pytest.mark.parametrize(("messages", "problem"), REFUSED)
def test_a_history_that_a_provider_refuses_is_refused(messages: Messages, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        events_for(messages)


def test_a_history_with_tools_is_accepted() -> None:
    check_history([text("user", "Hi"), tool_use("a"), tool_result("a"), text("assistant", "Hi"), text("user", "Hi")])


def test_after_a_tool_the_model_answers_even_where_the_prompt_is_repeated() -> None:
    asked = text("user", "what is 1+1?")
    answered = tool_result("a")
    answered["content"].append({"text": "what is 1+1?"})
    events = events_for([asked, tool_use("a"), answered], tool_specs=[calculator.tool_spec])
    assert reply_of(events).startswith("The tool echo answered: done")
    assert events[-2].get("messageStop") == {"stopReason": "end_turn"}
