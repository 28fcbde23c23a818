"""vLLM's messages converted to OpenAI's."""

from typing import Any

import pytest

from app.core.errors.request_errors import RequestError
from app.features.llm.to_openai.messages import Conversation


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def converted(*messages: Any) -> list[dict[str, Any]]:
    return Conversation(messages).messages


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"role": "system", "content": "Be brief."}, id="system"),
        pytest.param({"role": "developer", "content": "Be brief."}, id="developer"),
        pytest.param({"role": "user", "content": "hi", "name": "me"}, id="user with a name"),
        pytest.param({"role": "user", "content": [{"type": "text", "text": "hi"}, IMAGE]}, id="image"),
        pytest.param({"role": "assistant", "content": "hi", "refusal": "no"}, id="assistant"),
        pytest.param({"role": "assistant", "tool_calls": [CALL]}, id="tool calls"),
        pytest.param({"role": "tool", "content": "7", "tool_call_id": "call_1"}, id="tool"),
        pytest.param({"role": "function", "content": "7", "name": "f"}, id="function"),
        pytest.param({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, id="refusal part"),
        pytest.param({"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]}, id="file"),
    ],
)
def test_openais_own_messages_are_sent_unchanged(message: dict[str, Any]) -> None:
    assert converted(message) == [message]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param({"role": "assistant", "content": None}, {"role": "assistant", "content": ""}, id="empty"),
        pytest.param({"role": "user", "content": "hi", "name": None}, {"role": "user", "content": "hi"}, id="null"),
        pytest.param(
            {"role": "assistant", "content": "hi", "tool_calls": []}, {"role": "assistant", "content": "hi"},
            id="no tool calls",
        ),
        pytest.param(
            {"role": "assistant", "content": None, "tool_calls": [{**CALL, "index": 0, "function": {
                "name": "f", "arguments": {"a": 1}}}]},
            {"role": "assistant", "tool_calls": [CALL]},
            id="arguments as an object",
        ),
        pytest.param(
            {"role": "user", "content": ["hi"]}, {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            id="bare part",
        ),
        pytest.param(
            {"role": "user", "content": [{"image_url": "https://example.com/a.png", "uuid": "u"}]},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]},
            id="image without a type",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}, {"type": "thinking", "thinking": "x"}]},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            id="other names of text",
        ),
        pytest.param(
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "x"}]},
            {"role": "assistant", "content": ""},
            id="reasoning only",
        ),
        pytest.param(
            {"role": "assistant", "audio": {"id": "a", "data": "x"}}, {"role": "assistant", "audio": {"id": "a"}},
            id="audio",
        ),
        pytest.param(
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}", "id": "x"}},
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
            id="function call",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "file", "file": {"filename": "f", "file_data": "x", "size": 1}}]},
            {"role": "user", "content": [{"type": "file", "file": {"filename": "f", "file_data": "x"}}]},
            id="file",
        ),
    ],
)  # fmt: skip
def test_vllms_messages_are_converted_to_openais(message: dict[str, Any], expected: dict[str, Any]) -> None:
    assert converted(message) == [expected]


def test_an_unknown_role_is_sent_as_user_and_reported() -> None:
    conversation = Conversation([{"role": "user", "content": "a"}, {"role": "critic", "content": "b"}])

    assert conversation.messages[1] == {"role": "user", "content": "b"}
    assert conversation.adjusted == {"messages.1.role": "user"}


def test_vllms_keys_are_reported_and_unknown_keys_counted() -> None:
    vllms = {"reasoning_content": "b", "reasoning": "c", "tools": [], "task": "d"}
    message: Any = {"role": "assistant", "content": "a", **vllms, "foo": 1, "bar": 2}
    conversation = Conversation([message])

    assert conversation.messages == [{"role": "assistant", "content": "a"}]
    assert list(conversation.ignored) == [f"messages.{key}" for key in vllms]
    assert conversation.unknown_keys == 2


def test_unknown_keys_of_content_parts_are_counted() -> None:
    parts: Any = [
        {"type": "text", "text": "a", "foo": 1},
        {**IMAGE, "uuid": "u", "bar": 2},
        {"type": "image_url", "image_url": "x", "detail": "low"},
    ]
    conversation = Conversation([{"role": "user", "content": parts}])

    assert conversation.unknown_keys == 3


def test_a_dropped_reasoning_part_is_reported() -> None:
    reasoning = {"type": "thinking", "thinking": "x"}

    assert list(Conversation([{"role": "assistant", "content": [reasoning]}]).ignored) == ["messages.thinking"]


@pytest.mark.parametrize("text", [5, None])
def test_a_text_part_without_a_string_mentions_nothing(text: object) -> None:
    part = {"type": "text", "text": text}

    assert not Conversation([{"role": "user", "content": [part]}]).mentions("json")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "user", "content": [{"type": "video_url", "video_url": {"url": "x"}}]}, "'video_url'"),
        ({"role": "user", "content": [{"foo": 1}]}, "None"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "`image_url`"),
        ({"role": "assistant", "tool_calls": [{"id": "x"}]}, "`function`"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": nested(300)}}]}, "too deep"),
    ],
)
def test_messages_that_openai_cannot_accept_are_rejected(message: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        converted(message)

    assert caught.value.response.param == "messages"
