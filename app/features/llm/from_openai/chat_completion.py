"""Translate an OpenAI chat completion into vLLM's."""

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
from app.features.llm.from_openai.text_filter import TextFilter
from app.features.llm.from_openai.tokens import show_tokens
from app.features.llm.schema import ChatCompletionRequest, ChatCompletionResponse, JSONObject


def chat_completion(request: ChatCompletionRequest, plan: ResponsePlan, response: bytes) -> ChatCompletionResponse:
    """Translate OpenAI's JSON response into vLLM's, under the model name that the client requested.

    A missing id, time or model is filled in. Missing usage is 0.

    Raises:
        ValueError: the response is not a complete chat completion.
    """
    completion = checked_completion(response, request.n or 1)
    for choice in completion["choices"]:
        _edit_choice(choice, plan)
        if choice["finish_reason"] == "length":
            _report_if_empty(choice["message"], completion["usage"])
    return ChatCompletionResponse.model_validate(
        {
            **response_head(request, completion),
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
    """Return vLLM's response to a request that the shutdown aborts: `n` choices without text."""
    message = {"role": plan.role, "content": plan.echo}
    choices = [{"index": index, "message": message, "finish_reason": "abort"} for index in range(request.n or 1)]
    return ChatCompletionResponse.model_validate({**response_head(request), "choices": choices, "usage": {}})


ENDED_BY_MODEL = ("stop", "tool_calls")
"""OpenAI's finish reasons of a choice that was not cut. Which of them vLLM has depends on the calls."""

_UNKNOWN = Chunk(id=None, created=None, model=None)


def response_head(request: ChatCompletionRequest, upstream: Completion | Chunk | None = None) -> JSONObject:
    """Return `id`, `created` and `model`: those the client named, else upstream's, else new ones."""
    known = upstream or _UNKNOWN
    upstream_id = None if request.request_id else known["id"]
    return {
        "id": upstream_id or f"chatcmpl-{request.request_id or uuid.uuid4().hex[:16]}",
        "created": known["created"] or int(time.time()),
        "model": request.model or known["model"] or "",
    }


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
    if choice["finish_reason"] in ENDED_BY_MODEL:
        choice["finish_reason"] = plan.finish_with_calls if calls else "stop"


def _edited_text(choice: CompletionChoice, content: str, plan: ResponsePlan) -> str:
    text_filter = TextFilter(plan)
    entries = logprob_entries(choice)
    text, entries_shown = text_filter.read(content, entries)
    text += text_filter.finish()
    if entries:
        choice["logprobs"] = {"content": entries_shown}
    if text_filter.too_long:
        choice["finish_reason"] = "length"
    elif text_filter.stop_reason is not None or (text_filter.complete and choice["finish_reason"] == "length"):
        choice["finish_reason"], choice["stop_reason"] = "stop", text_filter.stop_reason
    return text
