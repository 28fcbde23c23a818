"""The rule of each member of a chat request, from OpenAI's published request schema."""

from typing import Any

from app.simulator.errors import bad_request
from app.simulator.rules.rule_types import (
    Rule,
    also,
    any_object,
    array,
    boolean,
    decimal,
    either,
    integer,
    mapping,
    nullable,
    one_of,
    record,
    string,
    variants,
)

INT64 = 2**63
IMAGE_SCHEMES = ("http://", "https://", "data:")
NAME = string(minimum=1, maximum=64, pattern="^[a-zA-Z0-9_-]+$")
SPEAKER = string(minimum=1, maximum=64, pattern=r"^[^\s<|\\/>]+$")
TEXT = string()


def _tagged(tag: str, required: dict[str, Rule] | None = None, optional: dict[str, Rule] | None = None) -> Rule:
    return record({tag: TEXT, **(required or {})}, optional)


def _fetchable(url: str, path: str) -> None:
    if not url.startswith(IMAGE_SCHEMES):
        message = "Invalid image URL. Expected an http or https URL, or a data URL with an image in base64."
        raise bad_request(message, param=path, code="invalid_image_url")


BREAKPOINT = {"prompt_cache_breakpoint": record({"mode": one_of("explicit")})}
IMAGE = record({"url": also(TEXT, _fetchable)}, {"detail": one_of("auto", "low", "high")})
AUDIO_INPUT = record({"data": TEXT, "format": one_of("wav", "mp3")})
FILE = record({}, {"filename": TEXT, "file_data": TEXT, "file_id": TEXT})

TEXT_PART = _tagged("type", {"text": TEXT}, BREAKPOINT)
TEXT_PARTS = variants("type", {"text": TEXT_PART})
ASSISTANT_PARTS = variants("type", {"text": TEXT_PART, "refusal": _tagged("type", {"refusal": TEXT})})
USER_PARTS = variants(
    "type",
    {
        "text": TEXT_PART,
        "image_url": _tagged("type", {"image_url": IMAGE}, BREAKPOINT),
        "input_audio": _tagged("type", {"input_audio": AUDIO_INPUT}, BREAKPOINT),
        "file": _tagged("type", {"file": FILE}, BREAKPOINT),
    },
)

TOOL_CALLS = array(
    variants(
        "type",
        {
            "function": _tagged("type", {"id": TEXT, "function": record({"name": TEXT, "arguments": TEXT})}),
            "custom": _tagged("type", {"id": TEXT, "custom": record({"name": TEXT, "input": TEXT})}),
        },
    ),
    minimum=1,
)


def _content(parts: Rule) -> Rule:
    return either(TEXT, array(parts, minimum=1))


MESSAGE = variants(
    "role",
    {
        "system": _tagged("role", {"content": _content(TEXT_PARTS)}, {"name": SPEAKER}),
        "assistant": _tagged(
            "role",
            {},
            {
                "content": nullable(_content(ASSISTANT_PARTS)),
                "refusal": nullable(TEXT),
                "name": SPEAKER,
                "audio": nullable(record({"id": TEXT})),
                "tool_calls": TOOL_CALLS,
                "function_call": nullable(record({"name": TEXT, "arguments": TEXT})),
            },
        ),
        "user": _tagged("role", {"content": _content(USER_PARTS)}, {"name": SPEAKER}),
        "function": _tagged("role", {"content": nullable(TEXT), "name": TEXT}),
        "tool": _tagged("role", {"content": _content(TEXT_PARTS), "tool_call_id": TEXT}),
        "developer": _tagged("role", {"content": _content(TEXT_PARTS)}, {"name": SPEAKER}),
    },
)

FUNCTION = record({"name": NAME}, {"description": TEXT, "parameters": any_object(), "strict": nullable(boolean())})
GRAMMAR = record({"definition": TEXT, "syntax": one_of("lark", "regex")})
FORMAT = variants("type", {"text": _tagged("type"), "grammar": _tagged("type", {"grammar": GRAMMAR})})
CUSTOM = record({"name": NAME}, {"description": TEXT, "format": FORMAT})
TOOL = variants(
    "type", {"function": _tagged("type", {"function": FUNCTION}), "custom": _tagged("type", {"custom": CUSTOM})}
)
ALLOWED = record({"mode": one_of("auto", "required"), "tools": array(any_object())})
TOOL_CHOICE = either(
    one_of("none", "auto", "required"),
    variants(
        "type",
        {
            "function": _tagged("type", {"function": record({"name": TEXT})}),
            "allowed_tools": _tagged("type", {"allowed_tools": ALLOWED}),
            "custom": _tagged("type", {"custom": record({"name": TEXT})}),
        },
    ),
)

JSON_SCHEMA = record({"name": NAME}, {"description": TEXT, "schema": any_object(), "strict": nullable(boolean())})
RESPONSE_FORMAT = variants(
    "type",
    {
        "json_object": _tagged("type"),
        "json_schema": _tagged("type", {"json_schema": JSON_SCHEMA}),
        "text": _tagged("type"),
    },
)

PREDICTION = variants("type", {"content": _tagged("type", {"content": _content(TEXT_PARTS)})})
MODERATED = nullable(record({"mode": one_of("score", "block")}))
PLACE = record({}, {"country": TEXT, "region": TEXT, "city": TEXT, "timezone": TEXT})

# Only the members marked here are nullable; null elsewhere is an invalid type.
FIELDS: dict[str, Rule] = {
    "messages": array(MESSAGE, minimum=1),
    "model": TEXT,
    "audio": nullable(
        record(
            {
                "voice": either(TEXT, record({"id": TEXT})),
                "format": one_of("wav", "aac", "mp3", "flac", "opus", "pcm16"),
            }
        )
    ),
    "frequency_penalty": nullable(decimal(-2, 2)),
    "function_call": either(one_of("none", "auto"), record({"name": TEXT})),
    "functions": array(
        record({"name": NAME}, {"description": TEXT, "parameters": any_object()}), minimum=1, maximum=128
    ),
    "logit_bias": nullable(mapping(integer(-100, 100))),
    "logprobs": nullable(boolean()),
    "max_completion_tokens": nullable(integer(1)),
    "max_tokens": nullable(integer(1)),
    "metadata": nullable(mapping(string(maximum=512))),
    "modalities": nullable(array(one_of("text", "audio"))),
    "moderation": nullable(
        record({"model": TEXT}, {"policy": nullable(record({}, {"input": MODERATED, "output": MODERATED}))})
    ),
    "n": nullable(integer(1, 128)),
    "parallel_tool_calls": boolean(),
    "prediction": nullable(PREDICTION),
    "presence_penalty": nullable(decimal(-2, 2)),
    "prompt_cache_key": nullable(TEXT),
    "prompt_cache_options": record({}, {"ttl": one_of("30m"), "mode": one_of("implicit", "explicit")}),
    "prompt_cache_retention": nullable(one_of("in_memory", "24h")),
    "reasoning_effort": nullable(one_of("none", "minimal", "low", "medium", "high", "xhigh", "max")),
    "response_format": RESPONSE_FORMAT,
    "safety_identifier": nullable(string(maximum=64)),
    "seed": nullable(integer(-INT64, INT64 - 1)),
    "service_tier": nullable(one_of("auto", "default", "flex", "scale", "priority", "fast")),
    "stop": nullable(either(TEXT, array(TEXT, minimum=1, maximum=4))),
    "store": nullable(boolean()),
    "stream": nullable(boolean()),
    "stream_options": nullable(record({}, {"include_usage": boolean(), "include_obfuscation": boolean()})),
    "temperature": nullable(decimal(0, 2)),
    "tool_choice": TOOL_CHOICE,
    "tools": array(TOOL, minimum=1, maximum=128),
    # Of the published schema's two definitions only one accepts null.
    "top_logprobs": integer(0, 20),
    "top_p": nullable(decimal(0, 1)),
    "user": TEXT,
    "verbosity": nullable(one_of("low", "medium", "high")),
    "web_search_options": record(
        {},
        {
            "user_location": nullable(record({"type": one_of("approximate"), "approximate": PLACE})),
            "search_context_size": one_of("low", "medium", "high"),
        },
    ),
}


def check_fields(body: dict[str, Any]) -> None:
    """Check that ``body`` has all required members, no unknown ones, and only valid values.

    Raises:
        OpenAIError: 400 for the first problem.
    """
    unknown = sorted(body.keys() - FIELDS.keys())
    if unknown:
        noun = "argument" if len(unknown) == 1 else "arguments"
        raise bad_request(f"Unrecognized request {noun} supplied: {', '.join(unknown)}")
    if body.get("model") in (None, ""):
        raise bad_request("you must provide a model parameter")
    if "messages" not in body:
        message = "Missing required parameter: 'messages'."
        raise bad_request(message, param="messages", code="missing_required_parameter")
    for name, value in body.items():
        FIELDS[name].check(value, name)
