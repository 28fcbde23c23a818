"""Map each way in which vLLM's clients set reasoning to a `reasoning_effort` that the model supports."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.core.errors.request_errors import RequestError
from app.features.llm.model_families import EFFORTS, Effort, ModelFamily
from app.features.llm.schema import ChatCompletionRequest

_NO_TOOLS = {
    "responses": "This model takes tools on OpenAI's /v1/responses only, which this server does not use: "
    "choose another model.",
    "nowhere": "This model takes no tools: choose another model.",
}

THINKING_SWITCHES = ("enable_thinking", "thinking")
"""Keys of `chat_template_kwargs` that turn thinking on or off in the chat templates of open models."""


@dataclass(frozen=True, slots=True)
class EffortPolicy:
    """The operator's settings for reasoning."""

    default_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Default `chat_template_kwargs`; a request's own values win."""
    effort_map: Mapping[Effort, Effort] = field(default_factory=dict)
    """Maps a requested effort to the one to use."""
    reserve_tokens: int = 0
    """Tokens added to the client's output limit, for reasoning."""
    lowest: bool = False
    """Whether to use the model's lowest effort always, whatever the client requests."""


LOWEST_EFFORT = EffortPolicy(lowest=True)


def thinking(kwargs: Mapping[str, Any]) -> bool | None:
    """Return whether `chat_template_kwargs` turn thinking on or off; None: neither."""
    switches = [kwargs[switch] for switch in THINKING_SWITCHES if isinstance(kwargs.get(switch), bool)]
    return all(switches) if switches else None


def kwargs_effort(kwargs: Mapping[str, Any], family: ModelFamily) -> Effort | None:
    """Return the effort that `chat_template_kwargs` request; None: the model's default."""
    named = _named_effort(kwargs)
    if named:
        return named
    if thinking(kwargs) is False:
        return "none"
    return "medium" if thinking(kwargs) and family.default_effort == "none" else None


def _named_effort(kwargs: Mapping[str, Any]) -> Effort | None:
    named = kwargs.get("reasoning_effort")
    return EFFORTS[EFFORTS.index(named)] if named in EFFORTS else None


def _wanted_effort(request: ChatCompletionRequest, family: ModelFamily, policy: EffortPolicy) -> Effort | None:
    if policy.lowest:
        return "none"
    kwargs = request.chat_template_kwargs or {}
    no_budget = request.thinking_token_budget == 0
    named = request.reasoning_effort or (None if no_budget else _named_effort(kwargs))
    if named:
        return policy.effort_map.get(named, named)
    if no_budget or thinking(kwargs) is False:
        return "none"
    if thinking(kwargs) and kwargs_effort(policy.default_kwargs, family) == "none":
        # The client turns on thinking that the operator turned off: use the default, as if neither had set it.
        return "medium" if family.default_effort == "none" else None
    return kwargs_effort({**policy.default_kwargs, **kwargs}, family)


def _effort_beside_tools(family: ModelFamily) -> Effort | None:
    if family.tools == "chat_at_none":
        return "none"
    raise RequestError(_NO_TOOLS[family.tools], param="tools")


def effort_for(request: ChatCompletionRequest, family: ModelFamily, policy: EffortPolicy) -> Effort | None:
    """Return the `reasoning_effort` to send; None: do not send it.

    Raises:
        RequestError: the model does not support tools on this endpoint.
    """
    if request.tools and family.tools != "chat":
        return _effort_beside_tools(family)
    if not family.reasons:
        return None
    wanted = _wanted_effort(request, family, policy)
    return family.nearest_effort(wanted) if wanted else None


def reserve_for(effort: Effort | None, family: ModelFamily, policy: EffortPolicy) -> int:
    """Return the tokens to add to the output limit; 0 if the model does not reason or its tokenizer is unknown."""
    reasons = family.reasons and (effort or family.default_effort) != "none"
    return policy.reserve_tokens if reasons and family.encoding else 0
