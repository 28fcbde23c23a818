"""A conversation as token ids, in the chat format of OpenAI's models."""

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
    """The prompt that OpenAI makes of `messages`, which are in OpenAI's form.

    Its length is what OpenAI reports as `prompt_tokens` for texts to models that do not reason (the formula is that of
    OpenAI's cookbook, "How to count tokens with tiktoken"), and close to it with tools. Which ids stand around the
    texts OpenAI does not publish. Images, audio and files count nothing here: that cannot be known locally.

    `add_generation_prompt` opens the response, unless `continue_final_message` leaves the last message open instead.
    """
    marks = encoding.chat_marks
    ids = list(_of_tools(encoding, tools)) if tools else []
    for message in messages:
        ids += [marks.start, *_of_message(encoding, message), marks.end]
    if continue_final_message and messages:
        ids.pop()
    elif add_generation_prompt:
        ids += [marks.start, *encoding.encode(MessageRole.ASSISTANT), marks.separator]
    return ids


def _of_message(encoding: Encoding, message: Mapping[str, Any]) -> Iterator[int]:
    yield from encoding.encode(message["role"])
    if message.get("name"):
        yield from encoding.encode(":")
        yield from encoding.encode(message["name"])
    yield encoding.chat_marks.separator
    for text in chain(_texts(message.get("content")), _called(message)):
        yield from encoding.encode(text)


def _texts(content: str | list[dict[str, Any]] | None) -> Iterator[str]:
    parts = [{"text": content}] if isinstance(content, str) else content or []
    return (part["text"] for part in parts if isinstance(part.get("text"), str))


def _called(message: Mapping[str, Any]) -> Iterator[str]:
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    for call in [*calls, message.get("function_call") or {}]:
        yield from (text for key in ("name", "arguments") if isinstance(text := call.get(key), str))


_FUNCTION: dict[EncodingName, int] = {"o200k_base": 7, "cl100k_base": 10}
_PROPERTIES = 3
_PROPERTY = 3
_ENUM_ITEM = 3
_END = 12


def _of_tools(encoding: Encoding, tools: Sequence[Tool]) -> Iterator[int]:
    """The descriptions' ids, and as many line feeds as the formula counts for the structure around them."""
    line_feed = encoding.encode("\n")
    for tool in tools:
        yield from line_feed * _FUNCTION[encoding.name]
        yield from encoding.encode(_described(tool.function.name, tool.function.description))
        properties = _properties(tool.function)
        yield from line_feed * (_PROPERTIES if properties else 0)
        for name, schema in properties.items():
            described = _described(name, str(schema.get("type", "")), schema.get("description"))
            items = [str(item) for item in schema["enum"]] if isinstance(schema.get("enum"), list) else None
            yield from line_feed * (_PROPERTY if items is None else _ENUM_ITEM * len(items))
            yield from chain.from_iterable(map(encoding.encode, [described, *(items or ())]))
    yield from line_feed * _END


def _described(*texts: str | None) -> str:
    return ":".join(str(text or "") for text in texts).removesuffix(".")


def _properties(function: FunctionDefinition) -> dict[str, dict[str, Any]]:
    properties = (function.parameters or {}).get("properties")
    found = properties.items() if isinstance(properties, dict) else ()
    return {name: schema for name, schema in found if isinstance(schema, dict)}
