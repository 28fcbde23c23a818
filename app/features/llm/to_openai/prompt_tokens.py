"""A conversation encoded as token ids, in the chat format of OpenAI's models."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from app.core.tokenization import Encoding, EncodingName
from app.features.llm.schema import FunctionDefinition, JSONObject, MessageRole, Tool


def prompt_ids(
    encoding: Encoding,
    messages: Sequence[JSONObject],
    tools: Sequence[Tool] | None = None,
    *,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
) -> list[int]:
    """Return the token ids of the prompt that OpenAI builds from `messages`, which are in OpenAI's format.

    For text and models that do not reason, the length equals OpenAI's `prompt_tokens` (formula: OpenAI's cookbook,
    "How to count tokens with tiktoken"); with tools it is close. OpenAI does not publish the ids around the texts.
    Images, audio and files count as zero, since their tokens cannot be counted locally.

    `add_generation_prompt` opens the response, unless `continue_final_message` leaves the last message open instead.
    """
    marks = encoding.chat_marks
    ids = list(_tool_ids(encoding, tools)) if tools else []
    for message in messages:
        ids += [marks.start, *_message_ids(encoding, message), marks.end]
    if continue_final_message and messages:
        ids.pop()
    elif add_generation_prompt:
        ids += [marks.start, *encoding.encode(MessageRole.ASSISTANT), marks.separator]
    return ids


def _message_ids(encoding: Encoding, message: Mapping[str, Any]) -> Iterator[int]:
    yield from encoding.encode(message["role"])
    if message.get("name"):
        yield from encoding.encode(":")
        yield from encoding.encode(message["name"])
    yield encoding.chat_marks.separator
    for text in chain(_texts(message.get("content")), _call_texts(message)):
        yield from encoding.encode(text)


def _texts(content: str | list[dict[str, Any]] | None) -> Iterator[str]:
    parts = [{"text": content}] if isinstance(content, str) else content or []
    return (part["text"] for part in parts if isinstance(part.get("text"), str))


def _call_texts(message: Mapping[str, Any]) -> Iterator[str]:
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    for call in [*calls, message.get("function_call") or {}]:
        yield from (text for key in ("name", "arguments") if isinstance(text := call.get(key), str))


_FUNCTION_TOKENS: dict[EncodingName, int] = {"o200k_base": 7, "cl100k_base": 10}
_PROPERTIES_TOKENS = 3
_PROPERTY_TOKENS = 3
_ENUM_ITEM_TOKENS = 3
_END_TOKENS = 12


def _tool_ids(encoding: Encoding, tools: Sequence[Tool]) -> Iterator[int]:
    """Return the ids of the descriptions, with one line feed for each token that the formula adds for structure."""
    line_feed = encoding.encode("\n")
    for tool in tools:
        yield from line_feed * _FUNCTION_TOKENS[encoding.name]
        yield from encoding.encode(_description(tool.function.name, tool.function.description))
        properties = _properties(tool.function)
        yield from line_feed * (_PROPERTIES_TOKENS if properties else 0)
        for name, schema in properties.items():
            description = _description(name, str(schema.get("type", "")), schema.get("description"))
            items = [str(item) for item in schema["enum"]] if isinstance(schema.get("enum"), list) else None
            yield from line_feed * (_PROPERTY_TOKENS if items is None else _ENUM_ITEM_TOKENS * len(items))
            yield from chain.from_iterable(map(encoding.encode, [description, *(items or ())]))
    yield from line_feed * _END_TOKENS


def _description(*texts: str | None) -> str:
    return ":".join(str(text or "") for text in texts).removesuffix(".")


def _properties(function: FunctionDefinition) -> dict[str, dict[str, Any]]:
    properties = (function.parameters or {}).get("properties")
    items = properties.items() if isinstance(properties, dict) else ()
    return {name: schema for name, schema in items if isinstance(schema, dict)}
