"""vLLM's messages converted to OpenAI's."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from app.core.errors.request_errors import RequestError
from app.core.json_encoding import encode_json
from app.features.llm.schema import JSONObject, MessageRole, RequestMessage

_COMMON_KEYS = frozenset({"role", "content", "name"})

# The message keys that OpenAI knows for each role; it rejects all others.
_ROLE_KEYS: dict[str, frozenset[str]] = {
    MessageRole.DEVELOPER: _COMMON_KEYS,
    MessageRole.SYSTEM: _COMMON_KEYS,
    MessageRole.USER: _COMMON_KEYS,
    MessageRole.ASSISTANT: _COMMON_KEYS | {"refusal", "audio", "tool_calls", "function_call"},
    MessageRole.TOOL: frozenset({"role", "content", "tool_call_id"}),
    MessageRole.FUNCTION: _COMMON_KEYS,
}
_ASSISTANT_CONTENT = frozenset({"content", "tool_calls", "function_call", "refusal", "audio"})
_VLLM_KEYS = frozenset({"reasoning", "reasoning_content", "tools", "task"})

_MEDIA_KEYS = {
    "image_url": frozenset({"url", "detail"}),
    "input_audio": frozenset({"data", "format"}),
    "file": frozenset({"filename", "file_data", "file_id"}),
}


class Conversation:
    """The messages for OpenAI, with a record of what was dropped or changed."""

    def __init__(self, messages: Iterable[RequestMessage]) -> None:
        self.ignored: dict[str, None] = {}
        """vLLM's message keys without an equivalent at OpenAI, as `messages.KEY`."""
        self.unknown_keys = 0
        """The number of unknown keys that were dropped."""
        self.adjusted: dict[str, object] = {}
        """`messages.INDEX.role` mapped to the role that was sent instead."""
        self.messages = [self._convert_message(index, message) for index, message in enumerate(messages)]

    def mentions(self, word: str) -> bool:
        """Whether any text of the conversation contains `word`, which must be lower case, in any case."""
        return any(word in plain_text(message.get("content")).lower() for message in self.messages)

    def _convert_message(self, index: int, message: Mapping[str, Any]) -> JSONObject:
        role = message["role"]
        if role not in _ROLE_KEYS:
            role = MessageRole.USER.value
            self.adjusted[f"messages.{index}.role"] = role
        sent: JSONObject = {"role": role}
        for key, value in message.items():
            if key in _ROLE_KEYS[role]:
                if key != "role" and value is not None:
                    sent[key] = value
            else:
                self._record_dropped(key)
        if role == MessageRole.ASSISTANT and not sent.keys() & _ASSISTANT_CONTENT:
            # vLLM accepts an empty assistant message; OpenAI requires at least a text.
            sent["content"] = ""
        return self._convert_values(sent)

    def _record_dropped(self, key: str) -> None:
        if key in _VLLM_KEYS:
            self.ignored[f"messages.{key}"] = None
        else:
            self.unknown_keys += 1

    def _convert_values(self, message: JSONObject) -> JSONObject:
        if isinstance(message.get("content"), list):
            parts = [converted for part in message["content"] if (converted := self._convert_part(part))]
            # OpenAI rejects an empty list, which is left of a message with reasoning only.
            message["content"] = parts or ""
        for key, convert in _VALUE_CONVERTERS.items():
            if key in message and (value := convert(message.pop(key))) != []:
                message[key] = value
        return message

    def _convert_part(self, part: str | JSONObject) -> JSONObject | None:
        if isinstance(part, str):
            return _text_part(part)
        type_ = str(part.get("type") or next((media for media in _MEDIA_KEYS if media in part), None))
        if type_ in _REASONING_PARTS:
            self.ignored[f"messages.{type_}"] = None
            return None
        convert = _PART_CONVERTERS.get(type_)
        if convert is None:
            raise RequestError(
                f"Content parts of type {type_[:50]!r} are not supported by the upstream.", param="messages"
            )
        converted = convert(part)
        self.unknown_keys += len(set(part) - set(converted) - _BARE_URL_KEYS)
        return converted


def plain_text(content: object) -> str:
    """Return the text of a message's content: a string, or the text parts of a list."""
    return "".join(text for part in _parts(content) if isinstance(text := _text_of(part), str))


def media_characters(messages: Iterable[Mapping[str, Any]]) -> int:
    """Return the number of characters in the data and URLs of images, audio and files."""
    parts = (part for message in messages for part in _parts(message.get("content")) if isinstance(part, dict))
    return sum(_media_length(part[key]) for part in parts for key in _MEDIA_KEYS if key in part)


def has_media(messages: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a conversation has images, audio or files."""
    return media_characters(messages) > 0


def _media_length(media: object) -> int:
    values = media.values() if isinstance(media, dict) else (media,)
    return sum(len(value) for value in values if isinstance(value, str))


def _text_of(part: Any) -> object:
    return part.get("text") if isinstance(part, dict) else part


def _parts(content: object) -> list[Any]:
    if isinstance(content, list):
        return content
    return [content] if isinstance(content, str) else []


def _tool_call(call: Mapping[str, Any]) -> JSONObject:
    function = call.get("function")
    if call.get("type", "function") != "function" or not isinstance(function, dict):
        raise RequestError(
            "Each of a message's `tool_calls` must be of type 'function' and have a `function`.", param="messages"
        )
    arguments = function.get("arguments", "")
    if not isinstance(arguments, str):
        arguments = encode_json(arguments, param="messages").decode()
    return {
        **({"id": call["id"]} if call.get("id") is not None else {}),
        "type": "function",
        "function": {"name": function.get("name"), "arguments": arguments},
    }


def _text_part(text: object) -> JSONObject:
    return {"type": "text", "text": text}


def _media_part(type_: str) -> Callable[[JSONObject], JSONObject]:
    def convert(part: JSONObject) -> JSONObject:
        media = part.get(type_)
        if isinstance(media, str) and type_ == "image_url":
            media = {"url": media, "detail": part.get("detail")}
        if not isinstance(media, dict):
            raise RequestError(f"A content part of type {type_!r} must have an object `{type_}`.", param="messages")
        return {"type": type_, type_: {key: media[key] for key in _MEDIA_KEYS[type_] if media.get(key) is not None}}

    return convert


# Keys that may accompany an image given as a bare URL.
_BARE_URL_KEYS = frozenset({"detail"})

# OpenAI does not accept reasoning in a conversation.
_REASONING_PARTS = frozenset({"thinking", "tool_reference"})

_PART_CONVERTERS: dict[str, Callable[[JSONObject], JSONObject]] = {
    "text": lambda part: _text_part(part.get("text", "")),
    "input_text": lambda part: _text_part(part.get("text", "")),
    "output_text": lambda part: _text_part(part.get("text", "")),
    "refusal": lambda part: {"type": "refusal", "refusal": part.get("refusal", "")},
    "image_url": _media_part("image_url"),
    "input_audio": _media_part("input_audio"),
    "file": _media_part("file"),
}


def _only(name: str, *keys: str) -> Callable[[Any], object]:
    """Return a converter of the message key `name`, an object of which only `keys` are kept."""

    def convert(value: Any) -> object:
        if not isinstance(value, dict):
            raise RequestError(f"A message's `{name}` must be an object.", param="messages")
        return {key: value[key] for key in keys if key in value}

    return convert


_VALUE_CONVERTERS: dict[str, Callable[[Any], object]] = {
    "tool_calls": lambda calls: [_tool_call(call) for call in calls],
    "audio": _only("audio", "id"),
    "function_call": _only("function_call", "name", "arguments"),
}
