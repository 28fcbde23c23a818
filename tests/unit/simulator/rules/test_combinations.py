"""Requests with invalid combinations of valid members, and bodies that are not JSON."""

from typing import Any

import httpx
import pytest

from tests.unit.simulator.bodies import CALLING, FUNCTION, IMAGE, USER, chat, saying

URL = "/chat/completions"
RESPONSE = {"role": "tool", "tool_call_id": "call_x", "content": "done"}

BODY_NOT_PARSED = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library "
    "correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON. If you have trouble "
    "figuring out how to fix this, please contact us through our help center at help.openai.com.)"
)
NOT_A_RESPONSE = (
    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
)
NOT_ANSWERED = (
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
    "The following tool_call_ids did not have response messages: call_x"
)


def parts(*content: Any, role: str = "user") -> dict[str, Any]:
    return saying({"role": role, "content": list(content)})


def plain(message: str, param: str | None = None, code: str | None = None) -> tuple[str, str | None, str | None]:
    return message, param, code


CONVERSATIONS = [
    pytest.param(saying(USER, RESPONSE), plain(NOT_A_RESPONSE, "messages.[1].role"), id="no call before"),
    pytest.param(
        saying(CALLING, RESPONSE, USER, RESPONSE), plain(NOT_A_RESPONSE, "messages.[3].role"), id="call too long ago"
    ),
    pytest.param(
        saying(CALLING, RESPONSE | {"tool_call_id": "call_y"}),
        plain(
            "Invalid parameter: 'tool_call_id' of 'call_y' not found in 'tool_calls' of previous message.",
            "messages.[1].tool_call_id",
        ),
        id="another call",
    ),
    pytest.param(saying(USER, CALLING), plain(NOT_ANSWERED, "messages"), id="no response"),
    pytest.param(saying(CALLING, USER), plain(NOT_ANSWERED, "messages.[1].role"), id="response too late"),
    pytest.param(
        saying(USER, {"role": "assistant", "content": None}),
        plain("Invalid value for 'content': expected a string, got null.", "messages.[1].content"),
        id="assistant says null",
    ),
    pytest.param(
        saying({"role": "assistant"}),
        plain("Invalid value for 'content': expected a string, got null.", "messages.[0].content"),
        id="assistant says nothing",
    ),
    pytest.param(
        parts({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}),
        plain(
            "Invalid image URL. Expected an http or https URL, or a data URL with an image in base64.",
            "messages[0].content[0].image_url.url",
            "invalid_image_url",
        ),
        id="image",
    ),
]

TWO_LIMITS = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
WORD_JSON = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
NOT_FOUND = "Tool choice 'function' not found in 'tools' parameter."
COMBINATIONS = [
    pytest.param(
        chat(tool_choice="auto"),
        plain("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice"),
        id="tool_choice",
    ),
    pytest.param(
        chat(parallel_tool_calls=False),
        plain("'parallel_tool_calls' is only allowed when 'tools' are specified.", "parallel_tool_calls"),
        id="parallel_tool_calls",
    ),
    pytest.param(
        chat(tools=[FUNCTION], tool_choice={"type": "function", "function": {"name": "g"}}),
        plain(NOT_FOUND, "tool_choice"),
        id="named tool",
    ),
    pytest.param(
        chat(
            tools=[FUNCTION],
            tool_choice={
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}]},
            },
        ),
        plain(NOT_FOUND, "tool_choice"),
        id="allowed tool",
    ),
    pytest.param(
        chat(stream_options={"include_usage": True}),
        plain("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options"),
        id="stream_options",
    ),
    pytest.param(
        chat(top_logprobs=0),
        plain("The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", "top_logprobs"),
        id="top_logprobs",
    ),
    pytest.param(
        chat(metadata={"a": "b"}),
        plain("The 'metadata' parameter is only allowed when 'store' is enabled.", "metadata"),
        id="metadata",
    ),
    pytest.param(
        chat(max_tokens=5, max_completion_tokens=5),
        plain(TWO_LIMITS, "max_tokens", "invalid_parameter_combination"),
        id="two limits",
    ),
    pytest.param(chat(response_format={"type": "json_object"}), plain(WORD_JSON, "messages"), id="the word json"),
]

DIRECTIVES = [
    pytest.param(
        f"[sim {word}]", plain(f"The simulator does not know '{word}'.", "messages", "unknown_directive"), id=word
    )
    for word in (
        "fault=meteor",
        "speed=5",
        "tokens=-1",
        "ttft=nan",
        "seconds=soon",
        "seconds=1e9",
        "status=99",
        "after=1.5",
        "fault",
    )
]


@pytest.mark.parametrize(
    ("body", "expected"),
    [*CONVERSATIONS, *COMBINATIONS],
)
async def test_invalid_combinations_get_openais_message(
    client: httpx.AsyncClient, body: dict[str, Any], expected: tuple[str, str | None, str | None]
) -> None:
    message, param, code = expected
    response = await client.post(URL, json=body)

    assert response.status_code == 400
    assert response.json() == {
        "error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    }


@pytest.mark.parametrize(("text", "expected"), DIRECTIVES)
async def test_an_unknown_directive_is_named(
    client: httpx.AsyncClient, text: str, expected: tuple[str, str | None, str | None]
) -> None:
    response = await client.post(URL, json=saying({"role": "user", "content": text}))
    error = response.json()["error"]
    assert (response.status_code, error["message"], error["param"], error["code"]) == (400, *expected)


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        pytest.param(b'{"model": "gpt-4o-mini"', "application/json", id="cut"),
        pytest.param(b"", "application/json", id="empty"),
        pytest.param(b"[]", "application/json", id="no object"),
        pytest.param(b'{"temperature": NaN}', "application/json", id="NaN"),
        pytest.param(b'{"temperature": Infinity}', "application/json", id="Infinity"),
        pytest.param(b'{"model": "\xff"}', "application/json", id="not UTF-8"),
        pytest.param(b"{}", "text/plain", id="content type"),
    ],
)
async def test_a_body_that_is_not_json_is_rejected(
    client: httpx.AsyncClient, content: bytes, content_type: str
) -> None:
    response = await client.post(URL, content=content, headers={"Content-Type": content_type})
    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": BODY_NOT_PARSED,
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            chat(temperature=None, top_p=None, n=None, stop=None, seed=None, stream=None, logprobs=None), id="nulls"
        ),
        pytest.param(chat(temperature=2, top_p=0, n=1, presence_penalty=-2, seed=-(2**63)), id="limits"),
        pytest.param(chat(top_logprobs=20, logprobs=True, stop=list("abcd")), id="most"),
        pytest.param(chat(response_format={"type": "text"}, store=True, metadata={"a": "b"}), id="others"),
        pytest.param(saying(USER, CALLING, RESPONSE, USER), id="tools"),
        pytest.param(saying(USER, {"role": "assistant", "refusal": "No."}), id="refusal"),
        pytest.param(parts(IMAGE, {"type": "text", "text": "JSON?"}), id="image"),
        pytest.param(
            saying({"role": "developer", "content": "Use Json"}, response_format={"type": "json_object"}), id="json"
        ),
    ],
)
async def test_a_request_that_openai_accepts_is_accepted(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    response = await client.post(URL, json=body)
    assert response.status_code == 200, response.text
