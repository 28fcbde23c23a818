"""A conversation as vLLM takes it, made into one that OpenAI takes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic_core import to_json

from app.core.errors import Refusal
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
        return any(word in text.lower() for message in self.messages for text in _texts(message.get("content")))

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
        return self._with_parts(sent)

    def _leave_out(self, key: str) -> None:
        if key in _VLLM_KEYS:
            self.ignored[f"messages.{key}"] = None
        else:
            self.unknown_keys += 1

    def _with_parts(self, message: JSONObject) -> JSONObject:
        if isinstance(message.get("content"), list):
            parts = (_part(part) for part in message["content"])
            message["content"] = [part for part in parts if part]
        if "tool_calls" in message:
            calls = [_tool_call(call) for call in message.pop("tool_calls")]
            if calls:
                message["tool_calls"] = calls
        return message


def _texts(content: object) -> Iterable[str]:
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        yield part.get("text", "")


def _tool_call(call: Mapping[str, Any]) -> JSONObject:
    function = call.get("function")
    if not isinstance(function, dict):
        raise Refusal("Each of a message's `tool_calls` must have a `function`.", param="messages")
    arguments = function.get("arguments", "")
    if not isinstance(arguments, str):
        arguments = to_json(arguments).decode()
    return {
        "id": call.get("id"),
        "type": "function",
        "function": {"name": function.get("name"), "arguments": arguments},
    }


def _part(part: str | JSONObject) -> JSONObject | None:
    """A content part for OpenAI; None where it has no place for one and loses nothing of the prompt."""
    if isinstance(part, str):
        return _text_part(part)
    type_ = part.get("type") or next((media for media in _MEDIA_KEYS if media in part), None)
    make = _PARTS.get(type_) if isinstance(type_, str) else None
    if make is None:
        raise Refusal(f"Content parts of type {type_!r} are not supported by the upstream.", param="messages")
    return make(part)


def _text_part(text: object) -> JSONObject:
    return {"type": "text", "text": text}


def _media_part(type_: str) -> Callable[[JSONObject], JSONObject]:
    def make(part: JSONObject) -> JSONObject:
        media = part.get(type_)
        if isinstance(media, str):
            media = {"url": media}
        if not isinstance(media, dict):
            raise Refusal(f"A content part of type {type_!r} must have `{type_}`.", param="messages")
        return {"type": type_, type_: {key: media[key] for key in _MEDIA_KEYS[type_] if media.get(key) is not None}}

    return make


def _no_part(_part: JSONObject) -> None:
    return None


_PARTS: dict[str, Callable[[JSONObject], JSONObject | None]] = {
    "text": lambda part: _text_part(part.get("text", "")),
    "input_text": lambda part: _text_part(part.get("text", "")),
    "output_text": lambda part: _text_part(part.get("text", "")),
    "refusal": lambda part: {"type": "refusal", "refusal": part.get("refusal", "")},
    "image_url": _media_part("image_url"),
    "input_audio": _media_part("input_audio"),
    "file": _media_part("file"),
    # What the model thought is no part of the conversation for OpenAI.
    "thinking": _no_part,
    "tool_reference": _no_part,
}
