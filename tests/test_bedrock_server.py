"""The loopback Bedrock against the real boto3 client, `BedrockModel` and `Agent`."""

import gc
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, cast

import boto3  # pyright: ignore[reportMissingTypeStubs]  # boto3 ships no types
import pytest
from botocore.eventstream import EventStreamBuffer  # pyright: ignore[reportMissingTypeStubs]  # untyped
from botocore.exceptions import (  # pyright: ignore[reportMissingTypeStubs]  # untyped
    ClientError,
    EventStreamError,
)
from strands import (
    Agent,
    tool,  # pyright: ignore[reportUnknownVariableType]  # Strands types its schema argument as a bare dict
)
from strands.models import BedrockModel
from strands.types.exceptions import ContextWindowOverflowException, ModelThrottledException
from urllib3.exceptions import ProtocolError

from bedrock_server import (
    Answer,
    BedrockServer,
    CutOff,
    Gate,
    Json,
    Pause,
    Received,
    Reply,
    Script,
    StreamFault,
    Text,
    ToolUse,
    check_history,
    encode_frame,
    fail,
    in_turn,
    say,
    use_tool,
)

SESSION = boto3.Session()
"""Shared, since reading the service model takes a session longer than most of these tests."""
MODEL_ID = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"

Serve = Callable[[Script], BedrockServer]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts a server, and sends this process's Bedrock calls to it, once each."""
    with ExitStack() as stack:

        def start(script: Script) -> BedrockServer:
            server = stack.enter_context(BedrockServer(script))
            for name, value in (server.env | {"AWS_MAX_ATTEMPTS": "1"}).items():
                monkeypatch.setenv(name, value)
            return server

        yield start


@pytest.fixture
def failed_stream() -> Iterator[None]:
    """Strands leaves a stream that failed unread, and its socket to the garbage collector, which warns."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def agent(
    *, messages: Sequence[Json] = (), tools: Sequence[Any] = (), on_event: Callable[..., None] | None = None
) -> Agent:
    """An agent on the real model class, without a retry of its own."""
    return Agent(
        model=BedrockModel(model_id=MODEL_ID, boto_session=SESSION),
        messages=[*messages],  # pyright: ignore[reportArgumentType]  # some tests pass what Strands wouldn't
        tools=[*tools],
        system_prompt="Be brief.",
        callback_handler=on_event,
        retry_strategy=None,
    )


def client() -> Any:
    """The real client, whose methods are made at run time and so have no types."""
    return cast(Any, SESSION).client("bedrock-runtime")


def converse(messages: Sequence[Json], **parameters: Any) -> list[Json]:
    """One call through the real client: all events of its stream."""
    response = client().converse_stream(**{"modelId": MODEL_ID, "messages": [*messages], **parameters})
    return list(response["stream"])


def user(*content: Json) -> Json:
    return {"role": "user", "content": [*content]}


def assistant(*content: Json) -> Json:
    return {"role": "assistant", "content": [*content]}


def called(id: str) -> Json:
    return {"toolUse": {"toolUseId": id, "name": "double", "input": {}}}


def result(id: str, **rest: Any) -> Json:
    return {"toolResult": {"toolUseId": id, "content": [{"text": "4"}], **rest}}


TOOLS = {"tools": [{"toolSpec": {"name": "double", "inputSchema": {"json": {"type": "object"}}}}]}


@tool
def double(number: int) -> str:
    """Double a number."""
    return str(2 * number)


def test_text_is_streamed_in_pieces_with_its_usage(serve: Serve) -> None:
    server = serve(lambda received: say(f"You said {received.last_text}.", usage=(11, 7)))
    pieces: list[str] = []

    def listen(**event: Any) -> None:
        pieces.extend([event["data"]] if "data" in event else [])

    reply = agent(on_event=listen)("good morning")

    assert str(reply).strip() == "You said good morning."
    assert len(pieces) > 1
    assert "".join(pieces) == "You said good morning."
    assert reply.stop_reason == "end_turn"
    assert (
        reply.metrics.accumulated_usage["inputTokens"],
        reply.metrics.accumulated_usage["outputTokens"],
    ) == (11, 7)
    (received,) = server.requests
    assert (received.model_id, received.system, received.last_text) == (MODEL_ID, "Be brief.", "good morning")
    assert server.violations == []


def test_a_tool_call_makes_the_round_trip(serve: Serve) -> None:
    def script(received: Received) -> Reply:
        return (
            say(f"It is {received.tool_results[0]}.") if received.tool_results else use_tool("double", {"number": 21})
        )

    server = serve(script)

    reply = agent(tools=[double])("Double 21.")

    assert str(reply).strip() == "It is 42."
    first, second = server.requests
    assert first.tools == ["double"]
    assert (second.tool_results, second.last_text) == (["42"], "")
    assert server.violations == []


def test_an_answer_may_mix_text_and_several_tools(serve: Serve) -> None:
    both = Answer([Text("Let me see."), ToolUse("double", {"number": 1}), ToolUse("double", {"number": 2})])
    server = serve(in_turn(both, say("2 and 4.")))

    reply = agent(tools=[double])("Double 1 and 2.")

    assert str(reply).strip() == "2 and 4."
    assert server.requests[1].tool_results == ["2", "4"]


def test_the_stop_reason_can_be_chosen(serve: Serve) -> None:
    serve(in_turn(say("And then", stop_reason="max_tokens")))
    assert converse([user({"text": "Go on."})])[-2] == {"messageStop": {"stopReason": "max_tokens"}}


def test_usage_is_estimated_from_the_characters(serve: Serve) -> None:
    server = serve(lambda _: say("x" * 400))
    usage = converse([user({"text": "y" * 4000})])[-1]["metadata"]["usage"]
    assert usage["outputTokens"] == 100
    assert usage["inputTokens"] == server.requests[0].input_tokens > 1000


def test_a_model_may_be_named_by_its_arn(serve: Serve) -> None:
    """Colons and slashes arrive percent-encoded in the path."""
    server = serve(lambda _: say("hello"))
    arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-haiku-4-5-v1:0"
    converse([user({"text": "hi"})], modelId=arn)
    assert server.requests[0].model_id == arn
    assert server.violations == []


def test_throttling_reaches_the_agent(serve: Serve) -> None:
    server = serve(lambda _: fail("ThrottlingException", "Too many tokens, please wait."))
    with pytest.raises(ModelThrottledException, match="Too many tokens"):
        agent()("hi")
    assert len(server.requests) == 1


def test_the_client_retries_throttling_before_strands_hears_of_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(in_turn(fail("ThrottlingException"), say("hello")))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    assert str(agent()("hi")).strip() == "hello"
    assert len(server.requests) == 2


@pytest.mark.usefixtures("failed_stream")
def test_throttling_in_the_middle_of_a_stream_reaches_the_agent(serve: Serve) -> None:
    serve(lambda _: say("Well", StreamFault("throttlingException", "Slow down.")))
    with pytest.raises(ModelThrottledException, match=r"Slow down\."):
        agent()("hi")


def test_an_overflow_of_the_context_window_reaches_the_agent(serve: Serve) -> None:
    serve(lambda _: fail("ValidationException", "Input is too long for requested model."))
    """Strands first tries to trim the conversation, so the service's own message is the exception's cause."""
    with pytest.raises(ContextWindowOverflowException) as caught:
        agent()("hi")
    assert "Input is too long" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("AccessDeniedException", 403),
        ("ResourceNotFoundException", 404),
        ("ModelTimeoutException", 408),
        ("ModelErrorException", 424),
        ("InternalServerException", 500),
        ("ServiceUnavailableException", 503),
    ],
)
def test_other_faults_are_client_errors_of_their_code(serve: Serve, code: str, status: int) -> None:
    serve(lambda _: fail(code, "Not today."))
    with pytest.raises(ClientError, match=r"Not today\.") as caught:
        agent()("hi")
    assert type(caught.value).__name__ == code
    response = cast(Any, caught.value).response
    assert response["Error"]["Code"] == code
    assert response["ResponseMetadata"]["HTTPStatusCode"] == status


@pytest.mark.usefixtures("failed_stream")
@pytest.mark.parametrize(
    "code", ["modelStreamErrorException", "internalServerException", "serviceUnavailableException"]
)
def test_a_fault_in_the_middle_of_a_stream_is_an_event_stream_error(serve: Serve, code: str) -> None:
    serve(lambda _: say("Once upon", StreamFault(code, "The model stumbled.")))
    with pytest.raises(EventStreamError, match=rf"\({code}\).*The model stumbled\."):
        agent()("hi")


def test_a_stream_fault_that_the_service_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="modelStreamErrorException"):
        StreamFault("ThrottlingException")


def test_a_connection_cut_in_the_middle_of_a_stream_is_a_protocol_error(serve: Serve) -> None:
    """The error is urllib3's own: botocore wraps no error once the stream has begun."""
    server = serve(lambda _: say("Once upon", CutOff()))
    with pytest.raises(ProtocolError):
        agent()("hi")
    assert server.disconnects == 0


def test_a_stream_that_ends_early_but_in_order_raises_nothing(serve: Serve) -> None:
    """Strands takes a missing messageStop for end_turn, and the text so far, without a stop, for nothing."""
    serve(lambda _: say("Once upon", CutOff(orderly=True)))
    reply = agent()("hi")
    assert reply.stop_reason == "end_turn"
    assert reply.message["content"] == []


def test_a_gate_holds_the_answer_until_it_is_released(serve: Serve) -> None:
    gate = Gate()
    serve(lambda _: say("before ", gate, "after"))
    seen: list[str] = []
    first = threading.Event()

    def read() -> None:
        for event in client().converse_stream(modelId=MODEL_ID, messages=[user({"text": "hi"})])["stream"]:
            if delta := event.get("contentBlockDelta"):
                seen.append(delta["delta"]["text"])
                first.set()

    reader = threading.Thread(target=read)
    reader.start()
    gate.wait_until_reached()
    assert first.wait(30)
    assert seen == ["before "]
    gate.release()
    reader.join(30)
    assert seen == ["before ", "after"]


def test_a_gate_before_the_answer_holds_its_first_byte(serve: Serve) -> None:
    gate = Gate()
    server = serve(lambda _: Answer([Text("hello")], before=[gate]))
    replies: list[str] = []
    asking = threading.Thread(target=lambda: replies.append(str(agent()("hi"))))
    asking.start()
    gate.wait_until_reached()
    assert len(server.wait_for_requests(1)) == 1
    assert replies == []
    gate.release()
    asking.join(30)
    assert [reply.strip() for reply in replies] == ["hello"]


def test_two_gates_show_that_two_answers_overlap(serve: Serve) -> None:
    gates = [Gate(), Gate()]
    server = serve(in_turn(*(say("a", gate, "b") for gate in gates)))
    asking = [threading.Thread(target=converse, args=([user({"text": "hi"})],)) for _ in gates]
    for thread in asking:
        thread.start()
    for gate in gates:
        gate.wait_until_reached()
    for gate in gates:
        gate.release()
    for thread in asking:
        thread.join(30)
    assert len(server.requests) == 2
    assert server.violations == []


def test_pauses_spread_an_answer_over_time(serve: Serve) -> None:
    serve(lambda _: say(*[part for word in ("a", "b", "c") for part in (word, Pause(0.02))]))
    latency = converse([user({"text": "hi"})])[-1]["metadata"]["metrics"]["latencyMs"]
    assert latency >= 60


def test_closing_the_server_ends_an_answer_that_is_held(serve: Serve) -> None:
    gate = Gate()
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            agent()("hi")
        except ProtocolError as error:
            errors.append(error)

    server = serve(lambda _: say("a", gate, "b"))
    asking = threading.Thread(target=ask)
    asking.start()
    gate.wait_until_reached()
    server.close()
    asking.join(30)
    assert len(errors) == 1
    assert server.disconnects == 0


def test_a_client_that_goes_away_is_counted_even_while_its_answer_is_held(serve: Serve) -> None:
    gate = Gate()
    server = serve(lambda _: say("Once upon", gate, "a time"))
    stream = client().converse_stream(modelId=MODEL_ID, messages=[user({"text": "hi"})])["stream"]
    gate.wait_until_reached()
    stream.close()
    server.wait_for_disconnects(1)
    assert server.disconnects == 1
    assert server.violations == []


def test_two_user_messages_in_a_row_are_refused_and_recorded(serve: Serve) -> None:
    server = serve(lambda _: say("hello"))
    with pytest.raises(ClientError, match="roles must alternate") as caught:
        agent(messages=[user({"text": "one"})])("two")
    assert type(caught.value).__name__ == "ValidationException"
    (violation,) = server.violations
    assert violation == "messages.1: roles must alternate, starting with user; this one is user"
    assert [message["role"] for message in server.requests[0].messages] == ["user", "user"]


def test_a_request_out_of_shape_is_refused_and_recorded(serve: Serve) -> None:
    """botocore's client checks no pattern, but the service does."""
    server = serve(lambda _: say("hello"))
    tools = {"tools": [{"toolSpec": {"name": "a tool", "inputSchema": {"json": {"type": "object"}}}}]}
    with pytest.raises(ClientError, match="'a tool' does not match"):
        converse([user({"text": "hi"})], toolConfig=tools)
    assert server.violations[0].startswith("request.toolConfig.tools.0.toolSpec.name")


def test_an_operation_that_is_not_served_is_recorded(serve: Serve) -> None:
    server = serve(lambda _: say("hello"))
    with pytest.raises(ClientError, match="UnknownOperationException"):
        client().converse(modelId=MODEL_ID, messages=[user({"text": "hi"})])
    assert len(server.violations) == 1


def test_an_error_in_the_script_is_recorded(serve: Serve) -> None:
    server = serve(in_turn(say("hello")))
    agent()("one")
    with pytest.raises(ClientError, match="only 1 requests were expected"):
        agent()("two")
    assert "AssertionError: only 1 requests were expected" in server.violations[0]


def test_an_answer_out_of_shape_is_recorded(serve: Serve) -> None:
    server = serve(lambda _: say("hello", stop_reason="bored"))
    with pytest.raises(ClientError, match="'bored' is not one of"):
        agent()("hi")
    assert len(server.violations) == 1


HI, HELLO = user({"text": "hi"}), assistant({"text": "hello"})


@pytest.mark.parametrize(
    ("messages", "violation"),
    [
        ([], "must end with a user message"),
        ([HELLO, HI], "roles must alternate, starting with user"),
        ([HI, HELLO], "must end with a user message"),
        ([HI, HELLO, HELLO, HI], "messages.2: roles must alternate"),
        ([user()], "messages.0: the content is empty"),
        ([user({"text": " \n"})], "messages.0.content.0: the text is blank"),
        ([HI, assistant(called("a")), HI], "messages.2: no toolResult for a"),
        ([HI, assistant(called("a"), called("b")), user(result("a"))], "no toolResult for b"),
        ([user(result("a"))], "toolResult without a toolUse before it: a"),
        ([HI, assistant(called("a")), user(result("a"), result("a"))], "two toolResults for one toolUse"),
        ([HI, assistant(called("a")), user({"text": "so"}, result("a"))], "toolResults must come before"),
        ([HI, assistant(called("a"), {"text": "so"}), user(result("a"))], "toolUses must come after"),
        ([user(called("a"))], "toolUse outside an assistant message"),
        ([HI, assistant(result("a")), HI], "toolResult outside a user message"),
        ([HI, assistant(called("a")), user(result("a", status="error", content=[]))], "must have content"),
        (
            [HI, assistant(called("a")), user(result("a")), assistant(called("a")), user(result("a"))],
            "messages.3: toolUseId a was used before",
        ),
        (
            [
                HI,
                assistant({"toolUse": {"toolUseId": "a", "name": "double", "input": "4"}}),
                user(result("a")),
            ],
            "the input of double is no object",
        ),
    ],
)
def test_a_history_that_bedrock_refuses_is_a_violation(messages: list[Json], violation: str) -> None:
    assert any(violation in found for found in check_history({"messages": messages, "toolConfig": TOOLS}))


def test_tool_blocks_without_a_tool_config_are_a_violation() -> None:
    messages = [HI, assistant(called("a")), user(result("a"))]
    assert check_history({"messages": messages}) == ["toolConfig: missing, though messages use tools"]


def test_a_valid_history_with_tools_and_cache_points_has_no_violation() -> None:
    cache_point = {"cachePoint": {"type": "default"}}
    messages = [
        HI,
        assistant({"text": "Let me see."}, called("a"), called("b"), cache_point),
        user(result("b"), result("a", content=[{"text": ""}]), {"text": "Well?"}),
        assistant(called("c")),
        user(result("c"), cache_point),
    ]
    assert check_history({"messages": messages, "toolConfig": TOOLS, "system": [{"text": "Be brief."}]}) == []


def test_a_frame_is_read_back_by_botocores_own_decoder() -> None:
    buffer: Any = EventStreamBuffer()
    buffer.add_data(encode_frame({":message-type": "event", ":event-type": "Grüße"}, b'{"text": "hi"}'))
    (message,) = buffer
    assert message.headers == {":message-type": "event", ":event-type": "Grüße"}
    assert message.payload == b'{"text": "hi"}'


def test_another_process_reaches_the_server_through_its_environment(serve: Serve) -> None:
    server = serve(lambda received: say(f"pong {received.last_text}"))
    code = (
        "import boto3; c = boto3.client('bedrock-runtime');"
        "r = c.converse_stream(modelId='m', messages=[{'role': 'user', 'content': [{'text': 'ping'}]}]);"
        "print([e['contentBlockDelta']['delta'] for e in r['stream'] if 'contentBlockDelta' in e])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | server.env,
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    assert done.stdout.strip() == "[{'text': 'pong ping'}]"
