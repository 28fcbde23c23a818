"""An OpenAI chat completion made into vLLM's."""

import time
import uuid
from typing import Any

from app.core.request_record import current_record
from app.features.llm.from_openai.plan import ResponsePlan
from app.features.llm.from_openai.text import TextFilter
from app.features.llm.from_openai.tokens import show_tokens
from app.features.llm.schema import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    Choice,
    ChoiceLogprobs,
    JSONObject,
)


def response_id(request: ChatCompletionRequest, upstream_id: str) -> str:
    """The id the client asked for, as vLLM forms it, else upstream's."""
    return f"chatcmpl-{request.request_id}" if request.request_id else upstream_id


def chat_completion(request: ChatCompletionRequest, plan: ResponsePlan, response: bytes) -> ChatCompletionResponse:
    """OpenAI's JSON answer in vLLM's shape, under the name the client asked for.

    Raises:
        ValueError: it is no such answer.
    """
    translated = ChatCompletionResponse.model_validate_json(response)
    translated.id = response_id(request, translated.id)
    translated.model = request.model or translated.model
    usage_details = translated.usage.completion_tokens_details
    if not plan.usage_details:
        translated.usage.prompt_tokens_details = translated.usage.completion_tokens_details = None
    if plan.tokens and plan.tokens.shows_ids:
        translated.prompt_token_ids = plan.prompt_ids
    for choice in translated.choices:
        _read_choice(choice, plan)
        if choice.finish_reason == "length" and not choice.message.content:
            _report_empty(choice, usage_details)
    return translated


def _report_empty(choice: Choice, usage_details: JSONObject | None) -> None:
    reasoning = (usage_details or {}).get("reasoning_tokens")
    if isinstance(reasoning, int) and reasoning > 0 and not choice.message.tool_calls:
        current_record().empty_response = f"reasoning used all {reasoning} tokens"


def aborted_completion(request: ChatCompletionRequest, plan: ResponsePlan) -> ChatCompletionResponse:
    """What vLLM answers where the server ends first: `n` choices that say so, with the text that is known: none."""
    message = {"role": plan.role, "content": plan.echo}
    choices = [{"index": index, "message": message, "finish_reason": "abort"} for index in range(request.n or 1)]
    return ChatCompletionResponse.model_validate({**own_head(request), "choices": choices})


def own_head(request: ChatCompletionRequest) -> dict[str, Any]:
    """The id, time and model of a response that OpenAI did not send."""
    fallback = f"chatcmpl-{uuid.uuid4().hex[:16]}"
    return {"id": response_id(request, fallback), "created": int(time.time()), "model": request.model or ""}


def _read_choice(choice: Choice, plan: ResponsePlan) -> None:
    message = choice.message
    if message.role != plan.role:
        message.role = plan.role
    if message.annotations == []:
        message.annotations = None
    if message.content is not None and plan.edits_text:
        message.content = _read_text(choice, message.content, plan)
    if plan.tokens:
        show_tokens(choice, plan.tokens)
    if plan.echo:
        message.content = plan.echo + (message.content or "")
    if message.tool_calls:
        message.tool_calls = message.tool_calls[:1] if plan.one_tool_call else message.tool_calls
        message.content = plan.content_beside_calls if message.content is None else message.content


def _read_text(choice: Choice, content: str, plan: ResponsePlan) -> str:
    reader = TextFilter(plan)
    tokens = choice.logprobs.content if choice.logprobs else None
    text, seen = reader.read(content, [token.model_dump() for token in tokens or ()])
    text += reader.finish()
    if tokens:
        choice.logprobs = ChoiceLogprobs.model_validate({"content": seen})
    if reader.too_long:
        choice.finish_reason = "length"
    elif reader.stop_reason is not None or (reader.complete and choice.finish_reason == "length"):
        choice.finish_reason, choice.stop_reason = "stop", reader.stop_reason
    return text
