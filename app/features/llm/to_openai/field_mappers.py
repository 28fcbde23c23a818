"""How each field that is translated gets into OpenAI's body."""

import hashlib
import math
from typing import Any

from app.core.errors.errors import RequestError
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
"""What `{"value":""}` costs, which the client did not ask for."""


def messages(builder: RequestBuilder, _name: str, value: Any) -> None:
    """The conversation. OpenAI takes json_object only where a message says "json"; vLLM's users never had to."""
    conversation = Conversation(value)
    for key in conversation.ignored:
        builder.drop(key)
    builder.adjusted |= conversation.adjusted
    builder.unknown_keys += conversation.unknown_keys
    builder.body["messages"] = builder.messages = conversation.messages
    if builder.constraint and builder.constraint.needs_the_word_json and not conversation.mentions("json"):
        instruction = {"role": "system", "content": "Answer with a JSON object."}
        builder.body["messages"] = [instruction, *conversation.messages]
        builder.adjusted["messages"] = "json"


def model(builder: RequestBuilder, name: str, _value: str) -> None:
    """The OpenAI model the served name stands for."""
    builder.body[name] = builder.upstream_model


def sampling(builder: RequestBuilder, name: str, value: float) -> None:
    """Temperature and top_p: not for a model that reasons."""
    if builder.accepts_sampling:
        builder.body[name] = value
    elif value != 1 and name in builder.request.model_fields_set:
        builder.drop(name)


def non_reasoning_only(builder: RequestBuilder, name: str, value: object) -> None:
    """What no model that reasons takes."""
    if builder.family.penalties:
        builder.body[name] = value
    else:
        builder.drop(name)


def logit_bias(builder: RequestBuilder, name: str, value: dict[str, float]) -> None:
    """vLLM clamps to the same range and takes fractions; OpenAI takes integers only."""
    biases = {token: round(max(-100, min(100, bias))) for token, bias in value.items()}
    non_reasoning_only(builder, name, biases)
    if name in builder.body and biases != value:
        builder.adjusted[name] = "rounded"


def logprobs(builder: RequestBuilder, name: str, value: object) -> None:
    """Log probabilities: an answer without them would break who asked for them."""
    if not builder.accepts_sampling:
        raise RequestError(f"`{name}` is not available: the model returns none, or none while it reasons.", param=name)
    builder.body[name] = value


def max_tokens(builder: RequestBuilder, name: str, value: int) -> None:
    """The answer's length, within what the model can write."""
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
    """`n`, within OpenAI's limit."""
    if value > MAX_UPSTREAM_CHOICES:
        raise RequestError(f"n must be at most {MAX_UPSTREAM_CHOICES} with this upstream, got {value}.", param=name)
    if not builder.family.choices:
        raise RequestError(f"n must be 1 with this model, got {value}.", param=name)
    builder.body[name] = value


def stop(builder: RequestBuilder, name: str, value: str | list[str]) -> None:
    """Stop strings, found here where OpenAI could not find them or would not show them."""
    request = builder.request
    if not builder.family.penalties or builder.wrapped or request.include_stop_str_in_output:
        builder.plan.stops = (value,) if isinstance(value, str) else tuple(value)
        builder.plan.include_stop = request.include_stop_str_in_output
    else:
        builder.body[name] = value


def stream(builder: RequestBuilder, name: str, value: bool) -> None:
    """Usage is always asked for; the client sees it if it asked. Obfuscation is padding nobody here reads."""
    builder.body[name] = value
    builder.body["stream_options"] = {"include_usage": True, "include_obfuscation": False}


def stream_options(builder: RequestBuilder, name: str, value: StreamOptions) -> None:
    """Usage is shown where it is asked for, in the last chunk or in each."""
    if value.include_usage and value.continuous_usage_stats:
        builder.tokens(name).counts_in_chunks = True


def tools(builder: RequestBuilder, name: str, value: list[Tool]) -> None:
    """Function tools, with the keys OpenAI knows."""
    builder.body[name] = [{"type": "function", "function": _function(tool)} for tool in value]
    builder.unknown_keys += sum(len(tool.model_extra or ()) + len(tool.function.model_extra or ()) for tool in value)


def _function(tool: Tool) -> JSONObject:
    function = tool.function.model_dump(include={"name", "description", "parameters", "strict"}, exclude_none=True)
    parameters = function.get("parameters")
    if parameters == {}:
        del function["parameters"]
    elif parameters is not None and parameters.get("type") == "object":
        # OpenAI refuses an object schema without properties.
        function["parameters"] = {**parameters, "properties": parameters.get("properties", {})}
    return function


def tool_choice(builder: RequestBuilder, name: str, value: Any) -> None:
    """The choice, where there are tools: OpenAI refuses one among none, even "none"."""
    if not builder.request.tools:
        return
    named = {"type": "function", "function": {"name": value["function"]["name"]}} if isinstance(value, dict) else None
    builder.body[name] = named or value
    if named or value == "required":
        builder.plan.content_beside_calls = ""


def parallel_tool_calls(builder: RequestBuilder, name: str, value: bool) -> None:
    """Whether several tools may be called at once, where there are tools."""
    if not builder.request.tools:
        return
    if builder.family.parallel_tool_calls:
        builder.body[name] = value
    else:
        builder.plan.one_tool_call = True


def reasoning_effort(builder: RequestBuilder, name: str, value: str) -> None:
    """Tells where the model cannot do what was asked; `RequestBuilder.effort` is what is sent."""
    if not builder.family.reasons and value != "none":
        builder.drop(name)
    elif builder.effort not in (value, None):
        builder.adjusted[name] = builder.effort


def thinking_token_budget(builder: RequestBuilder, name: str, value: int) -> None:
    """No thinking at all can be asked of OpenAI; a budget cannot."""
    if value:
        builder.drop(name)
    elif builder.effort not in ("none", None):
        builder.adjusted[name] = builder.effort


def chat_template_kwargs(builder: RequestBuilder, name: str, value: JSONObject) -> None:
    """Thinking on or off and its effort; there is no template for anything else."""
    if value.get("chat_template") is not None:
        raise RequestError(UNTRUSTED_TEMPLATE, param=name)
    wanted = kwargs_effort(value, builder.family)
    understood = {switch for switch in THINKING_SWITCHES if isinstance(value.get(switch), bool)}
    if value.get("reasoning_effort") in EFFORTS:
        understood.add("reasoning_effort")
    unmet = not builder.family.reasons and (wanted not in ("none", None) or thinking(value))
    if unmet or not set(value) <= understood:
        builder.drop(name)
    elif wanted is not None and builder.effort not in (wanted, None):
        builder.adjusted[name] = builder.effort


def top_k(builder: RequestBuilder, name: str, value: int) -> None:
    """The most likely token only is what temperature 0 is, exactly."""
    if value == 1 and builder.accepts_sampling:
        builder.body["temperature"] = 0
    else:
        builder.drop(name)


def cache_key(builder: RequestBuilder, name: str, value: str) -> None:
    """Routes alike requests to one cache; each salt has its own, within a session too."""
    session = builder.body.get("prompt_cache_key")
    salted = value if session is None else f"{session}\0{value}"
    digest = hashlib.sha256(salted.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    plain = name == "session_id" and len(value) <= CACHE_KEY_CHARACTERS
    builder.body["prompt_cache_key"] = value if plain else digest
    if name == "session_id" and not plain:
        builder.adjusted[name] = "hashed"


def echo(builder: RequestBuilder, _name: str, _value: bool) -> None:
    """The last message's text before the answer's, where both have the same role."""
    last = builder.request.messages[-1]
    if last["role"] == _answering_role(builder):
        builder.plan.echo = plain_text(last.get("content"))


def add_generation_prompt(builder: RequestBuilder, _name: str, _value: bool) -> None:
    """Without a prompt for an answer of its own, vLLM answers in the last message's role."""
    builder.plan.role = _answering_role(builder)


def _answering_role(builder: RequestBuilder) -> str:
    request = builder.request
    return "assistant" if request.add_generation_prompt else request.messages[-1]["role"]


def handled_elsewhere(_draft: RequestBuilder, _name: str, _value: object) -> None:
    """The field has its effect where something else is decided."""


UNTRUSTED_TEMPLATE = (
    "Chat template is passed with request, but --trust-request-chat-template is not set. "
    "Refused request with untrusted chat template."
)
