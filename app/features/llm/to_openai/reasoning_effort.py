"""How hard the model is to think: every way vLLM's clients say it, made into one level of the model's family."""

from app.core.errors.errors import RequestError
from app.features.llm.model_families import EFFORTS, Effort, ModelFamily
from app.features.llm.schema import ChatCompletionRequest, JSONObject

_NO_TOOLS = {
    "responses": "This model takes tools on OpenAI's /v1/responses only, which this server does not use: "
    "choose another model.",
    "nowhere": "This model takes no tools: choose another model.",
}

THINKING_SWITCHES = ("enable_thinking", "thinking")
"""Keys of `chat_template_kwargs` by which the templates of open models turn thinking off."""


def thinking(kwargs: JSONObject) -> bool | None:
    """Whether `chat_template_kwargs` turn thinking on or off; None: neither."""
    switches = [kwargs[switch] for switch in THINKING_SWITCHES if isinstance(kwargs.get(switch), bool)]
    return all(switches) if switches else None


def kwargs_effort(kwargs: JSONObject, family: ModelFamily) -> Effort | None:
    """The effort that `chat_template_kwargs` ask for; None: they leave it to the model."""
    asked = kwargs.get("reasoning_effort")
    if asked in EFFORTS:
        return EFFORTS[EFFORTS.index(asked)]
    if thinking(kwargs) is False:
        return "none"
    return "medium" if thinking(kwargs) and family.default_effort == "none" else None


def _wanted_effort(request: ChatCompletionRequest, family: ModelFamily) -> Effort | None:
    if request.reasoning_effort:
        return request.reasoning_effort
    if request.thinking_token_budget == 0:
        return "none"
    return kwargs_effort(request.chat_template_kwargs or {}, family)


def _effort_beside_tools(family: ModelFamily) -> Effort | None:
    if family.tools == "chat_at_none":
        return "none"
    raise RequestError(_NO_TOOLS[family.tools], param="tools")


def effort_for(request: ChatCompletionRequest, family: ModelFamily) -> Effort | None:
    """The `reasoning_effort` to send; None: none.

    Raises:
        RequestError: the model cannot call functions on this endpoint.
    """
    if request.tools and family.tools != "chat":
        return _effort_beside_tools(family)
    if not family.reasons:
        return None
    wanted = _wanted_effort(request, family)
    return family.nearest_effort(wanted) if wanted else None
