"""Invalid members of a chat request, and OpenAI's messages."""

from typing import Any

import httpx
import pytest

from tests.unit.simulator.bodies import CALL, CALLING, FUNCTION, IMAGE, USER, chat, saying

URL = "/chat/completions"

NO_PATTERN = "string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
TOO_LONG = "string too long. Expected a string with maximum length 64, but got a string with length 65 instead."
EFFORTS = "'none', 'minimal', 'low', 'medium', 'high', 'xhigh', and 'max'"


def parts(*content: Any, role: str = "user") -> dict[str, Any]:
    return saying({"role": role, "content": list(content)})


def function(**members: Any) -> dict[str, Any]:
    return chat(tools=[{"type": "function", "function": members}])


def wrong_type(path: str, expected: str, got: str) -> tuple[str, str, str]:
    return f"Invalid type for '{path}': expected {expected}, but got {got} instead.", path, "invalid_type"


def wrong_value(path: str, value: str, supported: str) -> tuple[str, str, str]:
    return f"Invalid value: '{value}'. Supported values are: {supported}.", path, "invalid_value"


def out_of_range(path: str, noun: str, limit: str, got: str) -> tuple[str, str, str]:
    side, sign = ("above_max", "above maximum") if limit.startswith("<=") else ("below_min", "below minimum")
    message = f"Invalid '{path}': {noun} {sign} value. Expected a value {limit}, but got {got} instead."
    return message, path, f"{noun}_{side}_value"


def empty(path: str) -> tuple[str, str, str]:
    message = f"Invalid '{path}': empty array. Expected an array with minimum length 1, but got an empty array instead."
    return message, path, "empty_array"


def too_many(path: str, maximum: int) -> tuple[str, str, str]:
    expected, got = f"an array with maximum length {maximum}", f"an array with length {maximum + 1}"
    message = f"Invalid '{path}': array too long. Expected {expected}, but got {got} instead."
    return message, path, "array_above_max_length"


def unknown(path: str) -> tuple[str, str, str]:
    return f"Unknown parameter: '{path}'.", path, "unknown_parameter"


def missing(path: str) -> tuple[str, str, str]:
    return f"Missing required parameter: '{path}'.", path, "missing_required_parameter"


def invalid(path: str, problem: str, code: str) -> tuple[str, str, str]:
    return f"Invalid '{path}': {problem}", path, code


def plain(message: str, param: str | None = None, code: str | None = None) -> tuple[str, str | None, str | None]:
    return message, param, code


UNKNOWN_AND_MISSING = [
    pytest.param(chat(top_k=1), plain("Unrecognized request argument supplied: top_k"), id="unknown"),
    pytest.param(chat(top_k=1, min_p=0), plain("Unrecognized request arguments supplied: min_p, top_k"), id="unknowns"),
    pytest.param({"messages": [USER], "top_k": 1}, plain("Unrecognized request argument supplied: top_k"), id="first"),
    pytest.param({"messages": [USER]}, plain("you must provide a model parameter"), id="no model"),
    pytest.param(chat(model=""), plain("you must provide a model parameter"), id="empty model"),
    pytest.param({"model": "gpt-4o-mini"}, missing("messages"), id="no messages"),
    pytest.param(saying({"content": "Hi"}), missing("messages[0].role"), id="no role"),
    pytest.param(saying({"role": "user"}), missing("messages[0].content"), id="no content"),
    pytest.param(saying(USER | {"reasoning": "x"}), unknown("messages[0].reasoning"), id="message"),
    pytest.param(parts({"type": "text", "text": "x", "uuid": 1}), unknown("messages[0].content[0].uuid"), id="part"),
    pytest.param(function(name="f", defer=1), unknown("tools[0].function.defer"), id="function"),
    pytest.param(chat(tools=[FUNCTION | {"x": 1}]), unknown("tools[0].x"), id="tool"),
    pytest.param(
        chat(tools=[FUNCTION], tool_choice=FUNCTION | {"x": 1}), unknown("tool_choice.x"), id="unknown in tool_choice"
    ),
    pytest.param(
        chat(response_format={"type": "text", "x": 1}), unknown("response_format.x"), id="unknown in response_format"
    ),
    pytest.param(
        chat(response_format={"type": "json_schema", "json_schema": {"name": "n", "x": 1}}),
        unknown("response_format.json_schema.x"),
        id="unknown in json_schema",
    ),
    pytest.param(
        chat(stream=True, stream_options={"continuous_usage_stats": True}),
        unknown("stream_options.continuous_usage_stats"),
        id="unknown in stream_options",
    ),
    pytest.param(
        saying(CALLING | {"tool_calls": [CALL | {"index": 0}]}),
        unknown("messages[0].tool_calls[0].index"),
        id="unknown in tool_calls",
    ),
    pytest.param(
        chat(response_format={"type": "json_schema", "json_schema": {}}),
        missing("response_format.json_schema.name"),
        id="no schema name",
    ),
    pytest.param(chat(tools=[{"type": "function"}]), missing("tools[0].function"), id="no function"),
]

TEXT_OR_PARTS = "one of a string or array of objects"
TYPES = [
    pytest.param(chat(temperature="hot"), wrong_type("temperature", "a decimal", "a string"), id="temperature"),
    pytest.param(chat(temperature=True), wrong_type("temperature", "a decimal", "a boolean"), id="true"),
    pytest.param(chat(max_tokens=1.5), wrong_type("max_tokens", "an integer", "a decimal"), id="max_tokens"),
    pytest.param(chat(n="2"), wrong_type("n", "an integer", "a string"), id="n"),
    pytest.param(chat(stream="yes"), wrong_type("stream", "a boolean", "a string"), id="stream"),
    pytest.param(chat(model=5), wrong_type("model", "a string", "an integer"), id="model"),
    pytest.param(chat(stop=5), wrong_type("stop", "one of a string or array of strings", "an integer"), id="stop"),
    pytest.param(chat(stop=["a", 5]), wrong_type("stop[1]", "a string", "an integer"), id="one stop"),
    pytest.param(chat(seed=1.5), wrong_type("seed", "an integer", "a decimal"), id="seed"),
    pytest.param(chat(logit_bias={"5": 1.5}), wrong_type("logit_bias.5", "an integer", "a decimal"), id="logit_bias"),
    pytest.param(chat(messages="Hi"), wrong_type("messages", "an array of objects", "a string"), id="messages"),
    pytest.param(chat(messages=["Hi"]), wrong_type("messages[0]", "an object", "a string"), id="message"),
    pytest.param(
        saying({"role": "user", "content": {}}),
        wrong_type("messages[0].content", TEXT_OR_PARTS, "an object"),
        id="content",
    ),
    *(
        pytest.param(chat(**{name: None}), wrong_type(name, expected, "null"), id=f"{name} null")
        for name, expected in (
            ("messages", "an array of objects"),
            ("tools", "an array of objects"),
            ("functions", "an array of objects"),
            ("tool_choice", "one of a string or object"),
            ("parallel_tool_calls", "a boolean"),
            ("response_format", "an object"),
            ("user", "a string"),
        )
    ),
    *(
        pytest.param(
            saying({"role": role, "content": None, **more}),
            wrong_type("messages[0].content", TEXT_OR_PARTS, "null"),
            id=f"{role} content null",
        )
        for role, more in (("user", {}), ("system", {}), ("developer", {}), ("tool", {"tool_call_id": "x"}))
    ),
    pytest.param(
        chat(stream=True, stream_options={"include_usage": None}),
        wrong_type("stream_options.include_usage", "a boolean", "null"),
        id="include_usage null",
    ),
    pytest.param(
        saying(CALLING | {"tool_calls": [CALL | {"function": {"name": "f", "arguments": {}}}]}),
        wrong_type("messages[0].tool_calls[0].function.arguments", "a string", "an object"),
        id="arguments not text",
    ),
]

RANGES = [
    pytest.param(chat(temperature=2.5), out_of_range("temperature", "decimal", "<= 2", "2.5"), id="temperature"),
    pytest.param(chat(temperature=-1), out_of_range("temperature", "decimal", ">= 0", "-1"), id="cold"),
    pytest.param(chat(top_p=1.1), out_of_range("top_p", "decimal", "<= 1", "1.1"), id="top_p"),
    pytest.param(chat(top_p=-0.1), out_of_range("top_p", "decimal", ">= 0", "-0.1"), id="top_p low"),
    pytest.param(
        chat(presence_penalty=2.5), out_of_range("presence_penalty", "decimal", "<= 2", "2.5"), id="presence_penalty"
    ),
    pytest.param(
        chat(frequency_penalty=-3), out_of_range("frequency_penalty", "decimal", ">= -2", "-3"), id="frequency_penalty"
    ),
    pytest.param(chat(n=129), out_of_range("n", "integer", "<= 128", "129"), id="n"),
    pytest.param(chat(n=0), out_of_range("n", "integer", ">= 1", "0"), id="n zero"),
    pytest.param(
        chat(logprobs=True, top_logprobs=21), out_of_range("top_logprobs", "integer", "<= 20", "21"), id="top_logprobs"
    ),
    pytest.param(
        chat(logprobs=True, top_logprobs=-1), out_of_range("top_logprobs", "integer", ">= 0", "-1"), id="no logprobs"
    ),
    pytest.param(
        chat(max_completion_tokens=0), out_of_range("max_completion_tokens", "integer", ">= 1", "0"), id="no tokens"
    ),
    pytest.param(chat(max_tokens=0), out_of_range("max_tokens", "integer", ">= 1", "0"), id="max_tokens"),
    pytest.param(
        chat(logit_bias={"5": 101}), out_of_range("logit_bias.5", "integer", "<= 100", "101"), id="logit_bias"
    ),
    pytest.param(
        chat(logit_bias={"5": -101}), out_of_range("logit_bias.5", "integer", ">= -100", "-101"), id="logit_bias low"
    ),
    pytest.param(
        chat(seed=2**63),
        out_of_range("seed", "integer", "<= 9223372036854775807", "9223372036854775808"),
        id="seed",
    ),
    pytest.param(
        chat(seed=-(2**63) - 1),
        out_of_range("seed", "integer", ">= -9223372036854775808", "-9223372036854775809"),
        id="seed low",
    ),
]

LENGTHS = [
    pytest.param(chat(messages=[]), empty("messages"), id="messages"),
    pytest.param(chat(tools=[]), empty("tools"), id="tools"),
    pytest.param(chat(stop=[]), empty("stop"), id="stop"),
    pytest.param(parts(), empty("messages[0].content"), id="parts"),
    pytest.param(saying(CALLING | {"tool_calls": []}), empty("messages[0].tool_calls"), id="tool_calls"),
    pytest.param(chat(stop=list("abcde")), too_many("stop", 4), id="stops"),
    pytest.param(chat(tools=[FUNCTION] * 129), too_many("tools", 128), id="many tools"),
    pytest.param(function(name="a b"), invalid("tools[0].function.name", NO_PATTERN, "invalid_value"), id="name"),
    pytest.param(
        function(name="a" * 65), invalid("tools[0].function.name", TOO_LONG, "string_above_max_length"), id="long name"
    ),
    pytest.param(
        function(name=""),
        invalid(
            "tools[0].function.name",
            "empty string. Expected a string with minimum length 1, but got an empty string instead.",
            "empty_string",
        ),
        id="empty name",
    ),
    pytest.param(
        chat(response_format={"type": "json_schema", "json_schema": {"name": "a b"}}),
        invalid("response_format.json_schema.name", NO_PATTERN, "invalid_value"),
        id="schema name",
    ),
    pytest.param(
        chat(safety_identifier="a" * 65),
        invalid("safety_identifier", TOO_LONG, "string_above_max_length"),
        id="safety_identifier",
    ),
]

ENUMS = [
    pytest.param(
        chat(response_format={"type": "xml"}),
        wrong_value("response_format.type", "xml", "'json_object', 'json_schema', and 'text'"),
        id="response_format",
    ),
    pytest.param(
        saying(USER | {"role": "model"}),
        wrong_value("messages[0].role", "model", "'system', 'assistant', 'user', 'function', 'tool', and 'developer'"),
        id="role",
    ),
    pytest.param(
        chat(reasoning_effort="huge"), wrong_value("reasoning_effort", "huge", EFFORTS), id="reasoning_effort"
    ),
    pytest.param(
        chat(verbosity="mute"), wrong_value("verbosity", "mute", "'low', 'medium', and 'high'"), id="verbosity"
    ),
    pytest.param(
        chat(service_tier="slow"),
        wrong_value("service_tier", "slow", "'auto', 'default', 'flex', 'scale', 'priority', and 'fast'"),
        id="service_tier",
    ),
    pytest.param(
        chat(modalities=["video"]), wrong_value("modalities[0]", "video", "'text' and 'audio'"), id="modalities"
    ),
    pytest.param(
        parts({"type": "video_url"}),
        wrong_value("messages[0].content[0].type", "video_url", "'text', 'image_url', 'input_audio', and 'file'"),
        id="part",
    ),
    pytest.param(
        parts(IMAGE, role="system"), wrong_value("messages[0].content[0].type", "image_url", "'text'"), id="image"
    ),
    pytest.param(
        chat(tools=[{"type": "retrieval"}]),
        wrong_value("tools[0].type", "retrieval", "'function' and 'custom'"),
        id="tool",
    ),
    pytest.param(
        chat(tools=[FUNCTION], tool_choice="any"),
        wrong_value("tool_choice", "any", "'none', 'auto', and 'required'"),
        id="tool_choice",
    ),
]


@pytest.mark.parametrize(
    ("body", "expected"),
    [*UNKNOWN_AND_MISSING, *TYPES, *RANGES, *LENGTHS, *ENUMS],
)
async def test_an_invalid_member_gets_openais_message(
    client: httpx.AsyncClient, body: dict[str, Any], expected: tuple[str, str | None, str | None]
) -> None:
    message, param, code = expected
    response = await client.post(URL, json=body)

    assert response.status_code == 400
    assert response.json() == {
        "error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    }
