"""Hypothesis strategies for requests that vLLM 0.33.0 accepts, with all of its fields."""

import json
import math
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from tests.golden.exchanges import JSONObject

Strategy = st.SearchStrategy[Any]

MODELS = ["gpt-4o-mini", "o3", "gpt-5-mini", "gpt-5.4", "gpt-6-luna", "gpt-6.2-sol", "gpt-5-search-api", "chat-latest"]
"""One model of each kind: not reasoning, always reasoning, reasoning by default, reasoning on request."""

# Texts with "[sim" are directives to the simulator.
texts = st.text(max_size=20).filter(lambda text: "[sim" not in text)
words = st.text(min_size=1, max_size=20)
names = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)
token_ids = st.integers(0, 199_997)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=10),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=10), values, max_size=4),
    max_leaves=8,
)
objects = st.dictionaries(words, json_values, max_size=3)
booleans = st.sampled_from([True, False, "true", "false", 1, 0])


def or_null(values: Strategy) -> Strategy:
    return st.none() | values


def numbers(least: float, most: float) -> Strategy:
    """Numbers, and values that pydantic converts to numbers."""
    found = st.floats(least, most) | st.integers(math.ceil(least), math.floor(most))
    return found | found.map(str)


def integers(least: int, most: int) -> Strategy:
    found = st.integers(least, most)
    return found | found.map(str) | st.integers(max(least, -1000), min(most, 1000)).map(float)


def optionally(required: dict[str, Strategy], **optional: Strategy) -> st.SearchStrategy[JSONObject]:
    return st.fixed_dictionaries(required, optional=optional)


STRICT = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
LOOSE = {
    "type": "object",
    "title": "Weather",
    "$defs": {"place": {"type": "string", "minLength": 1}},
    "properties": {"city": {"$ref": "#/$defs/place"}, "days": {"type": "integer", "default": 1}},
    "required": ["city"],
}
SCHEMAS = [STRICT, LOOSE, {"type": "array", "items": LOOSE["$defs"]}, {"anyOf": [STRICT, {"type": "null"}]}, {}]

IMAGE = "data:image/png;base64,iVBORw0KGgo="
text_parts = st.sampled_from(["text", "input_text", "output_text"]).flatmap(
    lambda kind: optionally({"type": st.just(kind), "text": texts}, uuid=words)
)
images = st.sampled_from(
    [
        {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}, "uuid": "1"},
        {"type": "image_url", "image_url": IMAGE},
        {"image_url": {"url": IMAGE}},
        {"image_url": "https://example.com/a.png"},
    ]
)
text_content = texts | st.lists(text_parts | texts, min_size=1, max_size=3)
foreign = {"reasoning": texts, "reasoning_content": texts, "task": texts, "mood": json_values}


def spoken(role: str, content: Strategy, **optional: Strategy) -> st.SearchStrategy[list[JSONObject]]:
    return st.tuples(optionally({"role": st.just(role), "content": content}, **optional, **foreign)).map(list)


def called(arguments: object, result: object) -> list[JSONObject]:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": result, "name": "get_weather"},
    ]


turns = st.one_of(
    spoken("system", text_content, name=names),
    spoken("developer", text_content, tools=st.just([])),
    spoken("user", texts | st.lists(text_parts | texts | images, min_size=1, max_size=4), name=names),
    spoken("assistant", text_content, name=names, tool_calls=st.just([]), refusal=st.none()),
    spoken("critic", text_content, name=names),
    st.builds(called, st.just('{"city": "서울"}') | st.fixed_dictionaries({"city": texts}), text_content),
)
conversations = st.lists(turns, min_size=1, max_size=4).map(lambda parts: [said for part in parts for said in part])

functions = optionally(
    {"name": names},
    description=or_null(texts),
    parameters=or_null(st.sampled_from([STRICT, LOOSE])),
    strict=st.none() | st.just(False),
    defer_loading=st.booleans(),
    returns=json_values,
)
tools = st.lists(optionally({"function": functions}, type=st.just("function"), defer_loading=st.booleans()), min_size=1)
response_formats = st.one_of(
    st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
    st.builds(
        lambda form: {"type": "json_schema", "json_schema": form},
        optionally({"name": words}, description=texts, schema=st.sampled_from(SCHEMAS), strict=st.none()),
    ),
    st.just({"type": "structural_tag", "format": {"type": "any_text"}}),
)
constraints = st.one_of(
    st.builds(lambda schema: {"json": schema}, st.sampled_from(SCHEMAS)),
    st.builds(lambda schema: {"json": json.dumps(schema)}, st.sampled_from(SCHEMAS)),
    st.builds(lambda choices: {"choice": choices}, st.lists(words, min_size=1, max_size=5)),
    st.sampled_from([{"regex": "[a-c]{3}"}, {"regex": r"\d+ €", "whitespace_pattern": " "}, {"json_object": True}]),
    st.sampled_from([{"grammar": 'root ::= "a"'}, {"structural_tag": '{"type": "any_text"}'}]),
)

FIELDS: dict[str, Strategy] = {
    "messages": conversations,
    "model": st.sampled_from([*MODELS, None, ""]),
    "frequency_penalty": or_null(numbers(-2, 2)),
    "logit_bias": or_null(st.dictionaries(token_ids.map(str), numbers(-100, 100), max_size=5)),
    "logprobs": or_null(booleans),
    "top_logprobs": or_null(st.integers(0, 20)),
    "max_tokens": or_null(integers(20, 128_000)),
    "max_completion_tokens": or_null(integers(20, 128_000)),
    "n": or_null(integers(1, 3)),
    "presence_penalty": or_null(numbers(-2, 2)),
    "response_format": or_null(response_formats),
    "seed": or_null(integers(-(2**63), 2**63 - 1)),
    "stop": or_null(words | st.lists(words, max_size=4)),
    "stream": or_null(booleans),
    "stream_options": or_null(optionally({}, include_usage=booleans, continuous_usage_stats=booleans, other=texts)),
    "temperature": or_null(numbers(0.01, 2)),
    "top_p": or_null(numbers(0.01, 1)),
    "tools": or_null(tools),
    "tool_choice": or_null(st.sampled_from(["none", "auto", "required"])),
    "reasoning_effort": or_null(st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh", "max"])),
    "thinking_token_budget": or_null(st.integers(-1, 1000)),
    "include_reasoning": booleans,
    "parallel_tool_calls": or_null(booleans),
    "user": or_null(texts),
    "use_beam_search": booleans,
    "top_k": or_null(integers(-1, 100)),
    "min_p": or_null(numbers(0, 1)),
    "repetition_penalty": or_null(numbers(0.1, 2)),
    "watermarking": or_null(booleans),
    "length_penalty": numbers(-2, 2),
    "stop_token_ids": or_null(st.lists(token_ids, max_size=3)),
    "include_stop_str_in_output": booleans,
    "ignore_eos": booleans,
    "min_tokens": integers(0, 20),
    "skip_special_tokens": or_null(booleans),
    "spaces_between_special_tokens": booleans,
    "truncate_prompt_tokens": or_null(integers(-1, 1000)),
    "truncation_side": or_null(st.sampled_from(["left", "right"])),
    "prompt_logprobs": or_null(st.integers(-1, 20)),
    "logprob_token_ids": or_null(st.lists(token_ids, max_size=3)),
    "allowed_token_ids": or_null(st.lists(token_ids, min_size=1, max_size=3)),
    "bad_words": st.lists(words, max_size=3),
    "echo": booleans,
    "add_generation_prompt": booleans,
    "continue_final_message": booleans,
    "add_special_tokens": booleans,
    "documents": or_null(st.lists(st.dictionaries(texts, texts, max_size=2), max_size=2)),
    "chat_template": or_null(texts),
    "chat_template_kwargs": or_null(objects | optionally({}, enable_thinking=st.booleans(), thinking=st.booleans())),
    "media_io_kwargs": or_null(st.dictionaries(texts, objects, max_size=2)),
    "mm_processor_kwargs": or_null(objects),
    "structured_outputs": or_null(constraints),
    "priority": integers(-(2**63), 2**63 - 1),
    "request_id": texts,
    "session_id": or_null(texts),
    "return_tokens_as_token_ids": or_null(booleans),
    "return_token_ids": or_null(booleans),
    "return_weight_versions": booleans,
    "routed_experts_prompt_start": integers(0, 100),
    "return_token_offsets": or_null(booleans),
    "return_prompt_text": or_null(booleans),
    "mm_payload": st.sampled_from(["tensors", "none"]),
    "return_mm_kwargs": or_null(booleans),
    "cache_salt": or_null(st.text(st.characters(exclude_characters="@/\\\0", codec="utf-8"), min_size=1, max_size=128)),
    "kv_transfer_params": or_null(objects),
    "ec_transfer_params": or_null(objects),
    "vllm_xargs": or_null(st.dictionaries(texts, texts | st.integers(0, 9) | st.lists(texts, max_size=2), max_size=3)),
    "repetition_detection": or_null(st.just({"max_pattern_size": 4, "min_pattern_size": 1, "min_count": 2})),
    "stream_interval": or_null(integers(1, 100)),
}

prompts = st.one_of(
    texts.filter(bool),
    st.lists(texts.filter(bool), min_size=1, max_size=3),
    st.lists(token_ids, min_size=1, max_size=5),
    st.lists(st.lists(token_ids, min_size=1, max_size=5), min_size=1, max_size=3),
)

# Fields of a text completion that a chat does not have, or has in another form.
COMPLETION_FIELDS: dict[str, Strategy] = {
    "prompt": prompts,
    "logprobs": or_null(st.integers(0, 20)),
    "max_tokens": or_null(integers(20, 128_000)),
    "n": integers(1, 3),
    "suffix": or_null(texts),
    "prompt_embeds": or_null(st.just("AA==")),
    "echo": or_null(booleans),
}

# What vLLM requires beside a field. Of fields that exclude each other, the first is dropped.
COMPANIONS: dict[str, JSONObject] = {
    "stream_options": {"stream": True},
    "top_logprobs": {"logprobs": True},
    "logprob_token_ids": {"logprobs": True},
    "tool_choice": {"tools": [{"type": "function", "function": {"name": "get_weather"}}]},
    "continue_final_message": {"add_generation_prompt": False},
}
RIVALS = [
    ("prompt_logprobs", "stream"),
    ("structured_outputs", "response_format"),
    ("logprob_token_ids", "use_beam_search"),
    ("stream_options", "use_beam_search"),
]

# Fields of OpenAI only and of earlier versions of vLLM: to vLLM these are unknown keys.
UNKNOWN_KEYS = [
    *("store", "metadata", "service_tier", "modalities", "audio", "prediction", "functions", "function_call"),
    *("verbosity", "safety_identifier", "prompt_cache_key", "web_search_options", "best_of"),
    *("guided_json", "guided_choice", "guided_regex", "guided_grammar"),
]
unknown_keys = st.dictionaries(st.sampled_from(UNKNOWN_KEYS) | words.map("x-{}".format), json_values, max_size=3)


def accepted(fields: JSONObject) -> JSONObject:
    """Return the fields as a body that vLLM accepts."""
    body = dict(fields)
    for name in fields.keys() & COMPANIONS.keys():
        body |= COMPANIONS[name]
    for name, rival in RIVALS:
        if rival in body:
            body.pop(name, None)
    return body


# A body with many fields is likely to contain one that is rejected; half of the bodies have none of these.
OFTEN_REJECTED = {
    *("use_beam_search", "truncate_prompt_tokens", "prompt_logprobs", "logprob_token_ids", "allowed_token_ids"),
    *("echo", "continue_final_message", "chat_template", "media_io_kwargs", "mm_processor_kwargs"),
    *("kv_transfer_params", "ec_transfer_params", "messages", "model"),
}


def subsets(optional: dict[str, Strategy]) -> st.SearchStrategy[JSONObject]:
    chosen = st.lists(st.sampled_from(sorted(optional)), unique=True, max_size=12)
    always = {"messages": conversations, "stream": st.booleans()}
    return _with_unknown_keys(chosen, always, optional)


def _with_unknown_keys(
    chosen: st.SearchStrategy[list[str]], always: dict[str, Strategy], optional: dict[str, Strategy]
) -> st.SearchStrategy[JSONObject]:
    drawn = chosen.flatmap(lambda keys: st.fixed_dictionaries(always | {key: optional[key] for key in keys}))
    return st.builds(lambda fields, more: accepted(more | fields), drawn, unknown_keys)


bodies = subsets({name: values for name, values in FIELDS.items() if name not in OFTEN_REJECTED}) | subsets(FIELDS)


def completion_bodies(names: Iterable[str]) -> st.SearchStrategy[JSONObject]:
    """Bodies of text completions with these fields."""
    optional = {name: (FIELDS | COMPLETION_FIELDS)[name] for name in names}
    often = st.lists(
        st.sampled_from(sorted(optional.keys() - OFTEN_REJECTED - {"suffix", "prompt_embeds"})), unique=True, max_size=8
    )
    always = {"prompt": prompts, "stream": st.booleans()}
    any_ = st.lists(st.sampled_from(sorted(optional)), unique=True, max_size=8)
    return _with_unknown_keys(often | any_, always, optional)
