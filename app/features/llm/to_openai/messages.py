"""A conversation as vLLM takes it, made into one that OpenAI takes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from app.core.errors.errors import RequestError
from app.core.json_encoding import encode_json
from app.features.llm.schema import JSONObject, MessageRole, RequestMessage

_ASKED = frozenset({"role", "content", "name"})

# OpenAI refuses a key it does not know; these are the ones it knows.
_KEYS: dict[str, frozenset[str]] = {
    MessageRole.DEVELOPER: _ASKED,
    MessageRole.SYSTEM: _ASKED,
    MessageRole.USER: _ASKED,
    MessageRole.ASSISTANT: _ASKED | {"refusal", "audio", "tool_calls", "function_call"},
    MessageRole.TOOL: frozenset({"role", "content", "tool_call_id"}),
    MessageRole.FUNCTION: _ASKED,
}
_ANSWERS = frozenset({"content", "tool_calls", "function_call", "refusal", "audio"})
_VLLM_KEYS = frozenset({"reasoning", "reasoning_content", "tools", "task"})

_MEDIA_KEYS = {
    "image_url": frozenset({"url", "detail"}),
    "input_audio": frozenset({"data", "format"}),
    "file": frozenset({"filename", "file_data", "file_id"}),
}


class Conversation:
    """The messages for OpenAI, and what was lost or changed on the way."""

    def __init__(self, messages: Iterable[RequestMessage]) -> None:
        self.ignored: dict[str, None] = {}
        """vLLM's message keys that OpenAI has no place for, as `messages.KEY`."""
        self.unknown_keys = 0
        """Further keys that were left out."""
        self.adjusted: dict[str, object] = {}
        """`messages.INDEX.role` to the role that was sent instead."""
        self.messages = [self._message(index, message) for index, message in enumerate(messages)]

    def mentions(self, word: str) -> bool:
        """Whether any text of the conversation contains `word`, in whatever case."""
        return any(word in plain_text(message.get("content")).lower() for message in self.messages)

    def _message(self, index: int, message: Mapping[str, Any]) -> JSONObject:
        role = message["role"]
        if role not in _KEYS:
            role = MessageRole.USER.value
            self.adjusted[f"messages.{index}.role"] = role
        sent: JSONObject = {"role": role}
        for key, value in message.items():
            if key in _KEYS[role]:
                if key != "role" and value is not None:
                    sent[key] = value
            else:
                self._leave_out(key)
        if role == MessageRole.ASSISTANT and not sent.keys() & _ANSWERS:
            # vLLM takes an answer without anything in it; OpenAI wants a text at least.
            sent["content"] = ""
        return self._with_parts(sent)

    def _leave_out(self, key: str) -> None:
        if key in _VLLM_KEYS:
            self.ignored[f"messages.{key}"] = None
        else:
            self.unknown_keys += 1

    def _with_parts(self, message: JSONObject) -> JSONObject:
        if isinstance(message.get("content"), list):
            parts = [part for given in message["content"] if (part := self._part(given))]
            # OpenAI takes no empty list; what was only a thought becomes an empty text.
            message["content"] = parts or ""
        for key, make in _VALUES.items():
            if key in message and (made := make(message.pop(key))) != []:
                message[key] = made
        return message

    def _part(self, part: str | JSONObject) -> JSONObject | None:
        if isinstance(part, str):
            return _text_part(part)
        type_ = str(part.get("type") or next((media for media in _MEDIA_KEYS if media in part), None))
        if type_ in _THOUGHTS:
            self.ignored[f"messages.{type_}"] = None
            return None
        make = _PARTS.get(type_)
        if make is None:
            raise RequestError(
                f"Content parts of type {type_[:50]!r} are not supported by the upstream.", param="messages"
            )
        made = make(part)
        self.unknown_keys += len(set(part) - set(made) - _BESIDE_AN_URL)
        return made


def plain_text(content: object) -> str:
    """The text of a message's content, whichever form it has; parts that are no text have none."""
    return "".join(text for part in _parts(content) if isinstance(text := _text_of(part), str))


def media_characters(messages: Iterable[Mapping[str, Any]]) -> int:
    """How much of a conversation is data or addresses of images, audio and files."""
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
    def make(part: JSONObject) -> JSONObject:
        media = part.get(type_)
        if isinstance(media, str) and type_ == "image_url":
            media = {"url": media, "detail": part.get("detail")}
        if not isinstance(media, dict):
            raise RequestError(f"A content part of type {type_!r} must have an object `{type_}`.", param="messages")
        return {"type": type_, type_: {key: media[key] for key in _MEDIA_KEYS[type_] if media.get(key) is not None}}

    return make


# An image may be given as a bare URL, with this beside it.
_BESIDE_AN_URL = frozenset({"detail"})

# What the model thought is no part of the conversation for OpenAI.
_THOUGHTS = frozenset({"thinking", "tool_reference"})

_PARTS: dict[str, Callable[[JSONObject], JSONObject]] = {
    "text": lambda part: _text_part(part.get("text", "")),
    "input_text": lambda part: _text_part(part.get("text", "")),
    "output_text": lambda part: _text_part(part.get("text", "")),
    "refusal": lambda part: {"type": "refusal", "refusal": part.get("refusal", "")},
    "image_url": _media_part("image_url"),
    "input_audio": _media_part("input_audio"),
    "file": _media_part("file"),
}


def _only(name: str, *keys: str) -> Callable[[Any], object]:
    """Takes these keys of the object under this name."""

    def make(value: Any) -> object:
        if not isinstance(value, dict):
            raise RequestError(f"A message's `{name}` must be an object.", param="messages")
        return {key: value[key] for key in keys if key in value}

    return make


_VALUES: dict[str, Callable[[Any], object]] = {
    "tool_calls": lambda calls: [_tool_call(call) for call in calls],
    "audio": _only("audio", "id"),
    "function_call": _only("function_call", "name", "arguments"),
}
