"""How each field that is translated gets into OpenAI's body."""

import hashlib
import math
from typing import Any

from app.core.errors.errors import Refusal
from app.features.llm.model_families import EFFORTS
from app.features.llm.schema import JSONObject, StreamOptions, Tool
from app.features.llm.to_openai.builder import Draft
from app.features.llm.to_openai.messages import Conversation, plain_text
from app.features.llm.to_openai.reasoning_effort import THINKING_SWITCHES, kwargs_effort, thinking

MAX_UPSTREAM_CHOICES = 128
CACHE_KEY_CHARACTERS = 64
WRAPPER_TOKENS = 8
"""What `{"value":""}` costs, which the client did not ask for."""


def messages(draft: Draft, _name: str, value: Any) -> None:
    """The conversation. OpenAI takes json_object only where a message says "json"; vLLM's users never had to."""
    conversation = Conversation(value)
    for key in conversation.ignored:
        draft.drop(key)
    draft.adjusted |= conversation.adjusted
    draft.unknown_keys += conversation.unknown_keys
    draft.body["messages"] = conversation.messages
    if draft.constraint and draft.constraint.needs_the_word_json and not conversation.mentions("json"):
        draft.body["messages"].insert(0, {"role": "system", "content": "Answer with a JSON object."})
        draft.adjusted["messages"] = "json"


def model(draft: Draft, name: str, _value: str) -> None:
    """The OpenAI model the served name stands for."""
    draft.body[name] = draft.upstream_model


def sampling(draft: Draft, name: str, value: float) -> None:
    """Temperature and top_p: not for a model that reasons."""
    if draft.samples:
        draft.body[name] = value
    elif value != 1:
        draft.drop(name)


def classic(draft: Draft, name: str, value: object) -> None:
    """What no model that reasons takes."""
    if draft.family.reasons:
        draft.drop(name)
    else:
        draft.body[name] = value


def logit_bias(draft: Draft, name: str, value: dict[str, float]) -> None:
    """vLLM clamps to the same range and takes fractions; OpenAI takes integers only."""
    biases = {token: round(max(-100, min(100, bias))) for token, bias in value.items()}
    classic(draft, name, biases)
    if name in draft.body and biases != value:
        draft.adjusted[name] = "rounded"


def logprobs(draft: Draft, name: str, value: object) -> None:
    """Log probabilities: an answer without them would break who asked for them."""
    if not draft.samples:
        raise Refusal(f"`{name}` is not available: the model reasons, and shows none then.", param=name)
    draft.body[name] = value


def max_tokens(draft: Draft, name: str, value: int) -> None:
    """The answer's length, within what the model can write."""
    if name == "max_tokens" and draft.request.max_completion_tokens is not None:
        return
    sent = min(value + (WRAPPER_TOKENS if draft.wrapped else 0), draft.family.output or math.inf)
    if sent != value:
        draft.adjusted[name] = sent
    draft.body["max_completion_tokens"] = sent


def choices(draft: Draft, name: str, value: int) -> None:
    """`n`, within OpenAI's limit."""
    if value > MAX_UPSTREAM_CHOICES:
        raise Refusal(f"n must be at most {MAX_UPSTREAM_CHOICES} with this upstream, got {value}.", param=name)
    draft.body[name] = value


def stop(draft: Draft, name: str, value: str | list[str]) -> None:
    """Stop strings, found here where OpenAI could not find them or would not show them."""
    request = draft.request
    if draft.family.reasons or draft.wrapped or request.include_stop_str_in_output:
        draft.reading.stops = (value,) if isinstance(value, str) else tuple(value)
        draft.reading.include_stop = request.include_stop_str_in_output
    else:
        draft.body[name] = value


def stream(draft: Draft, name: str, value: bool) -> None:
    """Usage is always asked for; the client sees it if it asked. Obfuscation is padding nobody here reads."""
    draft.body[name] = value
    draft.body["stream_options"] = {"include_usage": True, "include_obfuscation": False}


def stream_options(draft: Draft, name: str, value: StreamOptions) -> None:
    """Usage is shown where it is asked for, in the last chunk or in each."""
    if value.include_usage and value.continuous_usage_stats:
        draft.tokens(name).counts_in_chunks = True


def tools(draft: Draft, name: str, value: list[Tool]) -> None:
    """Function tools, with the keys OpenAI knows."""
    draft.body[name] = [{"type": "function", "function": _function(tool)} for tool in value]
    draft.unknown_keys += sum(len(tool.model_extra or ()) + len(tool.function.model_extra or ()) for tool in value)


def _function(tool: Tool) -> JSONObject:
    function = tool.function.model_dump(include={"name", "description", "parameters", "strict"}, exclude_none=True)
    parameters = function.get("parameters")
    if parameters == {}:
        del function["parameters"]
    elif parameters is not None and parameters.get("type") == "object":
        # OpenAI refuses an object schema without properties.
        function["parameters"] = {**parameters, "properties": parameters.get("properties", {})}
    return function


def tool_choice(draft: Draft, name: str, value: Any) -> None:
    """The choice, where there are tools: OpenAI refuses one among none, even "none"."""
    if not draft.request.tools:
        return
    named = {"type": "function", "function": {"name": value["function"]["name"]}} if isinstance(value, dict) else None
    draft.body[name] = named or value
    if named or value == "required":
        draft.reading.content_beside_calls = ""


def parallel_tool_calls(draft: Draft, name: str, value: bool) -> None:
    """Whether several tools may be called at once, where there are tools."""
    if not draft.request.tools:
        return
    if draft.family.parallel_tool_calls:
        draft.body[name] = value
    else:
        draft.reading.one_tool_call = True


def reasoning_effort(draft: Draft, name: str, value: str) -> None:
    """Tells where the model cannot do what was asked; `Draft.effort` is what is sent."""
    if not draft.family.reasons and value != "none":
        draft.drop(name)
    elif draft.effort not in (value, None):
        draft.adjusted[name] = draft.effort


def thinking_token_budget(draft: Draft, name: str, value: int) -> None:
    """No thinking at all can be asked of OpenAI; a budget cannot."""
    if value:
        draft.drop(name)
    elif draft.effort not in ("none", None):
        draft.adjusted[name] = draft.effort


def chat_template_kwargs(draft: Draft, name: str, value: JSONObject) -> None:
    """Thinking on or off and its effort; there is no template for anything else."""
    if value.get("chat_template") is not None:
        raise Refusal(UNTRUSTED_TEMPLATE, param=name)
    wanted = kwargs_effort(value, draft.family)
    understood = {switch for switch in THINKING_SWITCHES if isinstance(value.get(switch), bool)}
    if value.get("reasoning_effort") in EFFORTS:
        understood.add("reasoning_effort")
    unmet = not draft.family.reasons and (wanted not in ("none", None) or thinking(value))
    if unmet or not set(value) <= understood:
        draft.drop(name)
    elif wanted is not None and draft.effort not in (wanted, None):
        draft.adjusted[name] = draft.effort


def top_k(draft: Draft, name: str, value: int) -> None:
    """The most likely token only is what temperature 0 is, exactly."""
    if value == 1 and draft.samples:
        draft.body["temperature"] = 0
    else:
        draft.drop(name)


def cache_key(draft: Draft, name: str, value: str) -> None:
    """Routes alike requests to one cache; each salt has its own, within a session too."""
    session = draft.body.get("prompt_cache_key")
    salted = value if session is None else f"{session}\0{value}"
    digest = hashlib.sha256(salted.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    plain = name == "session_id" and len(value) <= CACHE_KEY_CHARACTERS
    draft.body["prompt_cache_key"] = value if plain else digest
    if name == "session_id" and not plain:
        draft.adjusted[name] = "hashed"


def echo(draft: Draft, _name: str, _value: bool) -> None:
    """The last message's text before the answer's, where both have the same role."""
    last = draft.request.messages[-1]
    if last["role"] == _answering_role(draft):
        draft.reading.echo = plain_text(last.get("content"))


def add_generation_prompt(draft: Draft, _name: str, _value: bool) -> None:
    """Without a prompt for an answer of its own, vLLM answers in the last message's role."""
    draft.reading.role = _answering_role(draft)


def _answering_role(draft: Draft) -> str:
    request = draft.request
    return "assistant" if request.add_generation_prompt else request.messages[-1]["role"]


def seen_elsewhere(_draft: Draft, _name: str, _value: object) -> None:
    """The field has its effect where something else is decided."""


UNTRUSTED_TEMPLATE = (
    "Chat template is passed with request, but --trust-request-chat-template is not set. "
    "Refused request with untrusted chat template."
)
