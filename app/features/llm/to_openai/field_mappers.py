"""Mappers for the translated fields, from vLLM's request into OpenAI's body or the response plan."""

import hashlib
import math
from typing import Any

from app.core.errors.request_errors import RequestError
from app.core.tokenization import encoding
from app.features.llm.from_openai.plan import LengthLimit
from app.features.llm.model_families import EFFORTS
from app.features.llm.schema import JSONObject, StreamOptions, Tool
from app.features.llm.to_openai.builder import RequestBuilder
from app.features.llm.to_openai.messages import Conversation, plain_text
from app.features.llm.to_openai.reasoning_effort import THINKING_SWITCHES, kwargs_effort, thinking

MAX_UPSTREAM_CHOICES = 128
CACHE_KEY_CHARACTERS = 64
WRAPPER_TOKENS = 8
"""Tokens that the envelope `{"value":""}` adds to the output."""


def messages(builder: RequestBuilder, _name: str, value: Any) -> None:
    """Send the conversation. OpenAI accepts `json_object` only if a message mentions "json"; one is added if needed."""
    conversation = Conversation(value)
    for key in conversation.ignored:
        builder.drop(key)
    builder.adjusted |= conversation.adjusted
    builder.unknown_keys += conversation.unknown_keys
    builder.body["messages"] = builder.messages = conversation.messages
    if builder.constraint and builder.constraint.needs_json_mention and not conversation.mentions("json"):
        instruction = {"role": "system", "content": "Answer with a JSON object."}
        builder.body["messages"] = [instruction, *conversation.messages]
        builder.adjusted["messages"] = "json"


def model(builder: RequestBuilder, name: str, _value: str) -> None:
    """Send the OpenAI model that the served name maps to."""
    builder.body[name] = builder.upstream_model


def sampling(builder: RequestBuilder, name: str, value: float) -> None:
    """Send `temperature` or `top_p`, which a model rejects while it reasons."""
    if builder.accepts_sampling:
        builder.body[name] = value
    elif value != 1 and name in builder.request.model_fields_set:
        builder.drop(name)


def penalty(builder: RequestBuilder, name: str, value: object) -> None:
    """Send a penalty or `logit_bias`, if the model takes them."""
    if builder.family.penalties:
        builder.body[name] = value
    else:
        builder.drop(name)


def logit_bias(builder: RequestBuilder, name: str, value: dict[str, float]) -> None:
    """Clamp biases to -100..100, as vLLM does, and round them: OpenAI accepts only integers."""
    biases = {token: round(max(-100, min(100, bias))) for token, bias in value.items()}
    penalty(builder, name, biases)
    if name in builder.body and biases != value:
        builder.adjusted[name] = "rounded"


def logprobs(builder: RequestBuilder, name: str, value: object) -> None:
    """Request log probabilities, which are rejected rather than dropped: a client that uses them needs them."""
    if not builder.accepts_sampling:
        raise RequestError(f"`{name}` is not available: the model returns none, or none while it reasons.", param=name)
    builder.body[name] = value


def max_tokens(builder: RequestBuilder, name: str, value: int) -> None:
    """Limit the output length, at most to the model's own limit."""
    if name == "max_tokens" and builder.request.max_completion_tokens is not None:
        return
    added = (WRAPPER_TOKENS if builder.wrapped else 0) + builder.reserve_tokens
    sent = min(value + added, builder.family.output or math.inf)
    if builder.reserve_tokens and builder.family.encoding:
        builder.plan.length_limit = LengthLimit(value, encoding(builder.family.encoding))
    if sent != value:
        builder.adjusted[name] = sent
    builder.body["max_completion_tokens"] = sent


def choices(builder: RequestBuilder, name: str, value: int) -> None:
    """Send `n`, up to OpenAI's limit."""
    if value > MAX_UPSTREAM_CHOICES:
        raise RequestError(f"n must be at most {MAX_UPSTREAM_CHOICES} with this upstream, got {value}.", param=name)
    if not builder.family.choices:
        raise RequestError(f"n must be 1 with this model, got {value}.", param=name)
    builder.body[name] = value


def stop(builder: RequestBuilder, name: str, value: str | list[str]) -> None:
    """Send stop strings, or find them here if OpenAI cannot find or return them."""
    request = builder.request
    if not builder.family.penalties or builder.wrapped or request.include_stop_str_in_output:
        builder.plan.stops = (value,) if isinstance(value, str) else tuple(value)
        builder.plan.include_stop = request.include_stop_str_in_output
    else:
        builder.body[name] = value


def stream(builder: RequestBuilder, name: str, value: bool) -> None:
    """Request a stream, with usage for our own accounting and without the padding of `include_obfuscation`."""
    builder.body[name] = value
    builder.body["stream_options"] = {"include_usage": True, "include_obfuscation": False}


def stream_options(builder: RequestBuilder, name: str, value: StreamOptions) -> None:
    """Count a running usage for every chunk, if requested; OpenAI reports it only at the end."""
    if value.include_usage and value.continuous_usage_stats:
        builder.tokens(name).counts_in_chunks = True


def tools(builder: RequestBuilder, name: str, value: list[Tool]) -> None:
    """Send function tools with the keys that OpenAI knows."""
    builder.body[name] = [{"type": "function", "function": _function(tool)} for tool in value]
    builder.unknown_keys += sum(len(tool.model_extra or ()) + len(tool.function.model_extra or ()) for tool in value)


def _function(tool: Tool) -> JSONObject:
    function = tool.function.model_dump(include={"name", "description", "parameters", "strict"}, exclude_none=True)
    parameters = function.get("parameters")
    if parameters == {}:
        del function["parameters"]
    elif parameters is not None and parameters.get("type") == "object":
        # OpenAI rejects an object schema without properties.
        function["parameters"] = {**parameters, "properties": parameters.get("properties", {})}
    return function


def tool_choice(builder: RequestBuilder, name: str, value: Any) -> None:
    """Send the choice if there are tools: without them OpenAI rejects even "none"."""
    if not builder.request.tools:
        return
    named = {"type": "function", "function": {"name": value["function"]["name"]}} if isinstance(value, dict) else None
    builder.body[name] = named or value
    if named or value == "required":
        builder.plan.content_beside_calls = ""
    if named:
        builder.plan.finish_with_calls = "stop"


def parallel_tool_calls(builder: RequestBuilder, name: str, value: bool) -> None:
    """Send the field if there are tools; enforce `false` here if the model has no such parameter."""
    if not builder.request.tools:
        return
    if builder.family.parallel_tool_calls:
        builder.body[name] = value
    else:
        builder.plan.one_tool_call = True


def reasoning_effort(builder: RequestBuilder, name: str, value: str) -> None:
    """Report an effort that the model does not have; `RequestBuilder.effort` is what is sent."""
    if not builder.family.reasons and value != "none":
        builder.drop(name)
    elif builder.effort not in (value, None):
        builder.adjusted[name] = builder.effort


def thinking_token_budget(builder: RequestBuilder, name: str, value: int) -> None:
    """Translate a budget of 0 to the lowest effort; OpenAI has no equivalent for any other budget."""
    if value:
        builder.drop(name)
    elif builder.effort not in ("none", None):
        builder.adjusted[name] = builder.effort


def chat_template_kwargs(builder: RequestBuilder, name: str, value: JSONObject) -> None:
    """Report thinking switches and efforts that the model cannot follow, and keys without an equivalent."""
    if value.get("chat_template") is not None:
        raise RequestError(UNTRUSTED_TEMPLATE, param=name)
    wanted = kwargs_effort(value, builder.family)
    known = {switch for switch in THINKING_SWITCHES if isinstance(value.get(switch), bool)}
    if value.get("reasoning_effort") in EFFORTS:
        known.add("reasoning_effort")
    unmet = not builder.family.reasons and (wanted not in ("none", None) or thinking(value))
    if unmet or not set(value) <= known:
        builder.drop(name)
    elif wanted is not None and builder.effort not in (wanted, None):
        builder.adjusted[name] = builder.effort


def top_k(builder: RequestBuilder, name: str, value: int) -> None:
    """Translate 1 to temperature 0, which also picks the most likely token; OpenAI has no other `top_k`."""
    if value == 1 and builder.accepts_sampling:
        builder.body["temperature"] = 0
    else:
        builder.drop(name)


def cache_key(builder: RequestBuilder, name: str, value: str) -> None:
    """Send the session as the cache key; each salt has a cache of its own, also within a session."""
    session = builder.body.get("prompt_cache_key")
    key = value if session is None else f"{session}\0{value}"
    hashed = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    unchanged = name == "session_id" and len(value) <= CACHE_KEY_CHARACTERS
    builder.body["prompt_cache_key"] = value if unchanged else hashed
    if name == "session_id" and not unchanged:
        builder.adjusted[name] = "hashed"


def echo(builder: RequestBuilder, _name: str, _value: bool) -> None:
    """Put the last message's text before the response's, if both have the same role."""
    last = builder.request.messages[-1]
    if last["role"] == _response_role(builder):
        builder.plan.echo = plain_text(last.get("content"))


def add_generation_prompt(builder: RequestBuilder, _name: str, _value: bool) -> None:
    """Respond in the last message's role if there is no generation prompt, as vLLM does."""
    builder.plan.role = _response_role(builder)


def _response_role(builder: RequestBuilder) -> str:
    request = builder.request
    return "assistant" if request.add_generation_prompt else request.messages[-1]["role"]


def handled_elsewhere(_builder: RequestBuilder, _name: str, _value: object) -> None:
    """Do nothing: the field takes effect elsewhere."""


UNTRUSTED_TEMPLATE = (
    "Chat template is passed with request, but --trust-request-chat-template is not set. "
    "Refused request with untrusted chat template."
)
