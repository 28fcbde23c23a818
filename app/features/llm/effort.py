"""How hard the model is to think: every way vLLM's clients say it, made into one level of the model's family."""

from typing import Any

from app.core.errors import Refusal
from app.features.llm.catalogue import EFFORTS, Effort, ModelFamily
from app.features.llm.schema import ChatCompletionRequest

THINKING_SWITCHES = ("enable_thinking", "thinking")
"""Keys of `chat_template_kwargs` by which the templates of open models turn thinking off."""


def wanted_effort(request: ChatCompletionRequest) -> Effort | None:
    """The effort the request asks for, one way or another; None: it leaves that to the model."""
    kwargs = request.chat_template_kwargs or {}
    asked: Any = request.reasoning_effort or kwargs.get("reasoning_effort")
    if asked in EFFORTS:
        return EFFORTS[EFFORTS.index(asked)]
    off = any(kwargs.get(switch) is False for switch in THINKING_SWITCHES) or request.thinking_token_budget == 0
    return "none" if off else None


def effort_for(request: ChatCompletionRequest, family: ModelFamily) -> Effort | None:
    """The `reasoning_effort` to send; None: none.

    Raises:
        Refusal: the model cannot call functions on this endpoint.
    """
    if not family.reasons:
        return None
    if request.tools and not family.tools_with_effort:
        if "none" not in family.efforts:
            raise Refusal(
                "This model takes tools on OpenAI's /v1/responses only, which this server does not use: "
                "choose another model.",
                param="tools",
            )
        return "none"
    wanted = wanted_effort(request)
    return family.nearest_effort(wanted) if wanted else None
