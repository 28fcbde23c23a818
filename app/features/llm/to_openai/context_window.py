"""vLLM's check that a prompt fits the model's context."""

import asyncio
from dataclasses import replace

from app.core.errors.request_errors import RequestError
from app.core.tokenization import Encoding, encoding, longest_token, to_thread_if_large
from app.features.llm.model_families import ModelFamily
from app.features.llm.schema import ChatCompletionRequest
from app.features.llm.to_openai.encode import UpstreamCall
from app.features.llm.to_openai.limit_checks import check_truncation, limit_error
from app.features.llm.to_openai.messages import media_characters, plain_text
from app.features.llm.to_openai.prompt_tokens import prompt_ids


async def check_context_window(request: ChatCompletionRequest, call: UpstreamCall) -> UpstreamCall:
    """Check the prompt's length as vLLM does. Return the call, with the prompt's token ids if they were counted.

    A body with fewer bytes than the limit has tokens is not counted: every token takes at least one byte.

    Raises:
        RequestError: the prompt is longer than the context, or than `truncate_prompt_tokens`.
    """
    plan, family = call.plan, call.family
    output = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    check_truncation(request.truncate_prompt_tokens, family, {output: getattr(request, output) or 0})
    if plan.tokens and plan.tokens.needs_index and not plan.tokens.encoding.indexed:
        await asyncio.to_thread(plan.tokens.encoding.id_of, b"")
    needs_prompt = plan.tokens is not None and plan.tokens.needs_prompt
    if family.encoding is None or not (needs_prompt or _may_be_too_long(request, call)):
        return call
    _check_characters(request, family)
    vocabulary = encoding(family.encoding)
    ids = await to_thread_if_large(len(call.body), lambda: prompt_ids(vocabulary, call.messages))
    _check_tokens(len(ids), family)
    ids = [*_tool_ids(vocabulary, request), *ids]
    _check_truncation_limit(request, len(ids))
    return replace(call, plan=replace(plan, prompt_ids=ids))


def _tool_ids(vocabulary: Encoding, request: ChatCompletionRequest) -> list[int]:
    # OpenAI's layout of tools is a guess, so tools do not count towards the context limit.
    return prompt_ids(vocabulary, [], request.tools, add_generation_prompt=False) if request.tools else []


def _may_be_too_long(request: ChatCompletionRequest, call: UpstreamCall) -> bool:
    length = len(call.body)
    # A prompt as long as the context leaves no room for output.
    limits = (call.family.context, _truncation_limit(request))
    exceeded = [limit for limit in limits if limit is not None and length >= limit]
    return bool(exceeded) and length - media_characters(request.messages) >= min(exceeded)


def _truncation_limit(request: ChatCompletionRequest) -> int | None:
    requested = request.truncate_prompt_tokens
    return None if requested is None or requested < 0 else requested


def _check_characters(request: ChatCompletionRequest, family: ModelFamily) -> None:
    if family.context is None or family.encoding is None:
        return
    limit = family.context * longest_token(family.encoding)
    characters = sum(len(plain_text(message.get("content"))) for message in request.messages)
    if characters > limit:
        raise limit_error(
            f"{_context(family.context)} {characters} characters (more than {limit} characters, which is the upper "
            f"bound for {family.context} input tokens). {_REDUCE}",
            "input_text",
            characters,
        )


def _check_tokens(count: int, family: ModelFamily) -> None:
    if family.context is None or count < family.context:
        return
    if count == family.context:
        raise limit_error("max_tokens must be at least 1, got 0.", "max_tokens", 0)
    # vLLM stops counting one token beyond the limit.
    shown = family.context + 1
    raise limit_error(
        f"{_context(family.context)} at least {shown} input tokens, which exceeds this limit even without any output "
        f"tokens. {_REDUCE}",
        "input_tokens",
        shown,
    )


def _check_truncation_limit(request: ChatCompletionRequest, count: int) -> None:
    limit = _truncation_limit(request)
    if limit is not None and count > limit:
        raise RequestError(
            f"truncate_prompt_tokens={limit} would truncate the conversation, which has {count} tokens: the "
            "upstream does not truncate conversations.",
            param="truncate_prompt_tokens",
        )


def _context(tokens: int) -> str:
    return f"This model's maximum context length is {tokens} tokens. However, your prompt contains"


_REDUCE = "Please reduce the length of the input prompt."
