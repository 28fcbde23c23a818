"""Prompts encoded as token ids, in OpenAI's number."""

from typing import Any

import pytest

from app.core.errors.request_errors import RequestError
from app.core.tokenization import EncodingName, encoding
from app.features.llm.schema import Tool
from app.features.llm.to_openai.messages import Conversation
from app.features.llm.to_openai.prompt_tokens import prompt_ids

O200K = encoding("o200k_base")

# The example of OpenAI's cookbook, whose token counts are those that the API reported.
TRANSCRIPT = """\
system: You are a helpful, pattern-following assistant that translates corporate jargon into plain English.
system example_user: New synergies will help drive top-line growth.
system example_assistant: Things working well together will increase revenue.
system example_user: Let's circle back when we have more bandwidth to touch base on opportunities for increased \
leverage.
system example_assistant: Let's talk later when we're less busy about how to do better.
user: This late pivot means we don't have time to boil the ocean for the client deliverable."""
COOKBOOK = [
    {**dict(zip(("role", "name"), speaker.split(), strict=False)), "content": content}
    for speaker, content in (line.split(": ", 1) for line in TRANSCRIPT.splitlines())
]
WEATHER = [
    {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
GET_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                "unit": {
                    "type": "string",
                    "description": "The unit of temperature to return",
                    "enum": ["celsius", "fahrenheit"],
                },
            },
            "required": ["location"],
        },
    },
}


def ids(messages: list[Any], tools: list[Any] | None = None, **options: Any) -> list[int]:
    return prompt_ids(O200K, Conversation(messages).messages, tools and [Tool(**tool) for tool in tools], **options)


def text(messages: list[Any], **options: Any) -> str:
    return O200K.decode(ids(messages, **options))


def message_of(content: object, role: str = "user", **keys: object) -> dict[str, object]:
    return {"role": role, "content": content, **keys}


@pytest.mark.parametrize(("name", "expected"), [("o200k_base", 124), ("cl100k_base", 129)])
def test_the_cookbooks_conversation_has_openais_token_count(name: EncodingName, expected: int) -> None:
    assert len(prompt_ids(encoding(name), COOKBOOK)) == expected


@pytest.mark.parametrize(("name", "expected"), [("o200k_base", 101), ("cl100k_base", 105)])
def test_the_cookbooks_tools_have_openais_token_count(name: EncodingName, expected: int) -> None:
    assert len(prompt_ids(encoding(name), WEATHER, [Tool(**GET_WEATHER)])) == expected


def test_messages_are_enclosed_in_marks_and_the_response_is_opened() -> None:
    assert text([message_of("Hi 🦩", name="ann"), message_of("Hello", "assistant")]) == (
        "<|im_start|>user:ann<|im_sep|>Hi 🦩<|im_end|><|im_start|>assistant<|im_sep|>Hello<|im_end|>"
        "<|im_start|>assistant<|im_sep|>"
    )


def test_without_a_generation_prompt_the_prompt_ends_after_the_last_message() -> None:
    assert text([message_of("Hi")], add_generation_prompt=False).endswith("Hi<|im_end|>")


@pytest.mark.parametrize("opened", [True, False])
def test_a_continued_message_is_left_open(opened: bool) -> None:
    prompt = text([message_of("Once", "assistant")], add_generation_prompt=opened, continue_final_message=True)

    assert prompt.endswith("<|im_sep|>Once")


CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": {"at": "海"}}}


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (message_of([{"type": "text", "text": "a"}, "b"]), "user<|im_sep|>ab"),
        (
            message_of([{"type": "image_url", "image_url": "https://a.b"}, {"type": "text", "text": "c"}]),
            "user<|im_sep|>c",
        ),
        (message_of("x", "critic"), "user<|im_sep|>x"),
        (message_of("x", "tool", tool_call_id="call_1", name="look"), "tool<|im_sep|>x"),
        (message_of(None, "assistant", tool_calls=[CALL]), 'assistant<|im_sep|>look{"at":"海"}'),
        (message_of(None, "assistant", function_call={"name": "f", "arguments": "{}"}), "assistant<|im_sep|>f{}"),
        (message_of(None, "assistant"), "assistant<|im_sep|>"),
        (message_of("<|im_end|>"), "user<|im_sep|><|im_end|>"),
    ],
    ids=["parts", "image", "unknown role", "tool", "call", "legacy function call", "nothing", "a special token's name"],
)
def test_a_message_is_encoded_as_it_is_sent(message: dict[str, Any], shown: str) -> None:
    assert text([message], add_generation_prompt=False) == f"<|im_start|>{shown}<|im_end|>"


def test_content_parts_are_encoded_separately() -> None:
    assert len(ids([message_of(["hel", "lo"])])) == len(ids([message_of("hel")])) + len(O200K.encode("lo"))


def test_the_name_of_a_special_token_in_a_text_is_plain_text() -> None:
    assert ids([message_of("<|im_end|>")]).count(O200K.chat_marks.end) == 1


@pytest.mark.parametrize(
    "parameters",
    [None, {}, {"properties": {}}, {"properties": None}, {"properties": {"a": True}}],
    ids=["none", "empty", "no properties", "null", "no schema"],
)
def test_a_function_without_properties_counts_its_name_and_structure(parameters: object) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}

    assert len(ids([message_of("x")], [tool])) - len(ids([message_of("x")])) == 7 + len(O200K.encode("f:")) + 12


@pytest.mark.parametrize(
    "schema",
    [{"enum": [1, None]}, {"type": ["string", "null"]}, {"description": 3}, {"enum": "x"}, {"$ref": "#/a"}],
    ids=["no texts", "types", "no text", "no list", "reference"],
)
def test_unusual_property_schemas_are_counted(schema: object) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"p": schema}}}}

    assert len(ids([message_of("x")], [tool])) > len(ids([message_of("x")])) + 7 + 12 + 3


def test_an_unsupported_content_part_is_rejected() -> None:
    with pytest.raises(RequestError, match="video_url"):
        ids([message_of([{"type": "video_url", "video_url": {"url": "https://a.b"}}])])
