"""Conversations as OpenAI takes them."""

from typing import Any

import pytest

from app.core.errors import Refusal
from app.features.llm.messages import Conversation


def sent(*messages: Any) -> list[dict[str, Any]]:
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
    ],
)
def test_what_openai_takes_stays_as_it_is(message: dict[str, Any]) -> None:
    assert sent(message) == [message]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
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
    ],
)  # fmt: skip
def test_vllms_forms_become_openais(message: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent(message) == [expected]


def test_an_unknown_role_is_a_user_and_told() -> None:
    conversation = Conversation([{"role": "user", "content": "a"}, {"role": "critic", "content": "b"}])

    assert conversation.messages[1] == {"role": "user", "content": "b"}
    assert conversation.adjusted == {"messages.1.role": "user"}


def test_keys_without_a_place_are_told_or_counted() -> None:
    message: Any = {"role": "assistant", "content": "a", "reasoning_content": "b", "reasoning": "c", "foo": 1, "bar": 2}
    conversation = Conversation([message])

    assert conversation.messages == [{"role": "assistant", "content": "a"}]
    assert list(conversation.ignored) == ["messages.reasoning_content", "messages.reasoning"]
    assert conversation.unknown_keys == 2


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "user", "content": [{"type": "video_url", "video_url": {"url": "x"}}]}, "'video_url'"),
        ({"role": "user", "content": [{"foo": 1}]}, "None"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "`image_url`"),
        ({"role": "assistant", "tool_calls": [{"id": "x"}]}, "`function`"),
    ],
)
def test_what_openai_cannot_read_is_refused(message: dict[str, Any], words: str) -> None:
    with pytest.raises(Refusal, match=words) as caught:
        sent(message)

    assert caught.value.answer.param == "messages"
