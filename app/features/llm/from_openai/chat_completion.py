"""An OpenAI chat completion made into vLLM's."""

import time
import uuid

from app.core.request_record import current_record
from app.features.llm.from_openai.openai_chunks import (
    Chunk,
    Completion,
    CompletionChoice,
    Message,
    TokenUsage,
    checked_completion,
    logprob_entries,
    token_counts,
)
from app.features.llm.from_openai.plan import ResponsePlan
from app.features.llm.from_openai.text import TextFilter
from app.features.llm.from_openai.tokens import show_tokens
from app.features.llm.schema import ChatCompletionRequest, ChatCompletionResponse, JSONObject


def response_id(request: ChatCompletionRequest, upstream_id: str) -> str:
    """The id the client asked for, as vLLM forms it, else upstream's."""
    return f"chatcmpl-{request.request_id}" if request.request_id else upstream_id


def chat_completion(request: ChatCompletionRequest, plan: ResponsePlan, response: bytes) -> ChatCompletionResponse:
    """OpenAI's JSON answer in vLLM's shape, under the name the client asked for.

    What it lacks of id, time and model is supplied; usage that it does not tell is 0.

    Raises:
        ValueError: it is no such answer, or not all of it.
    """
    completion = checked_completion(response, request.n or 1)
    for choice in completion["choices"]:
        _edit_choice(choice, plan)
        if choice["finish_reason"] == "length":
            _report_if_empty(choice["message"], completion["usage"])
    return ChatCompletionResponse.model_validate(
        {
            **chat_head(request, completion),
            "choices": completion["choices"],
            "service_tier": completion["service_tier"],
            "system_fingerprint": completion["system_fingerprint"],
            "usage": _usage(completion["usage"], plan),
            "prompt_token_ids": plan.prompt_ids if plan.tokens and plan.tokens.shows_ids else None,
        }
    )


def _report_if_empty(message: Message, usage: TokenUsage | None) -> None:
    details = (usage or {}).get("completion_tokens_details")
    reasoning = details.get("reasoning_tokens") if isinstance(details, dict) else None
    if isinstance(reasoning, int) and reasoning > 0 and not (message.get("content") or message.get("tool_calls")):
        current_record().empty_response = f"reasoning used all {reasoning} tokens"


def aborted_completion(request: ChatCompletionRequest, plan: ResponsePlan) -> ChatCompletionResponse:
    """What vLLM answers where the server ends first: `n` choices that say so, with the text that is known: none."""
    message = {"role": plan.role, "content": plan.echo}
    choices = [{"index": index, "message": message, "finish_reason": "abort"} for index in range(request.n or 1)]
    return ChatCompletionResponse.model_validate({**own_head(request), "choices": choices, "usage": {}})


def chat_head(request: ChatCompletionRequest, upstream: Completion | Chunk) -> JSONObject:
    """Id, time and model of a response or a stream: upstream's, under the names that the client knows."""
    return {
        "id": response_id(request, upstream["id"] or _new_id()),
        "created": upstream["created"] or int(time.time()),
        "model": request.model or upstream["model"] or "",
    }


def own_head(request: ChatCompletionRequest) -> JSONObject:
    """The id, time and model of a response that OpenAI did not send."""
    return {"id": response_id(request, _new_id()), "created": int(time.time()), "model": request.model or ""}


def _new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex[:16]}"


def _usage(usage: TokenUsage | None, plan: ResponsePlan) -> JSONObject:
    counts = token_counts(usage) or {}
    return {**usage, **counts} if usage and plan.usage_details else counts


def _edit_choice(choice: CompletionChoice, plan: ResponsePlan) -> None:
    message = choice["message"]
    message["role"] = plan.role
    if not message["annotations"]:
        message["annotations"] = None
    if (content := message.get("content")) is not None and plan.edits_text:
        message["content"] = _edited_text(choice, content, plan)
    if plan.tokens:
        show_tokens(choice, plan.tokens)
    if plan.echo:
        message["content"] = plan.echo + (message.get("content") or "")
    if calls := message.get("tool_calls"):
        message["tool_calls"] = calls[:1] if plan.one_tool_call else calls
        if message.get("content") is None:
            message["content"] = plan.content_beside_calls


def _edited_text(choice: CompletionChoice, content: str, plan: ResponsePlan) -> str:
    text_filter = TextFilter(plan)
    entries = logprob_entries(choice)
    text, seen = text_filter.read(content, entries)
    text += text_filter.finish()
    if entries:
        choice["logprobs"] = {"content": seen}
    if text_filter.too_long:
        choice["finish_reason"] = "length"
    elif text_filter.stop_reason is not None or (text_filter.complete and choice["finish_reason"] == "length"):
        choice["finish_reason"], choice["stop_reason"] = "stop", text_filter.stop_reason
    return text
