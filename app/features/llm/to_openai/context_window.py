"""The checks of a request that need its model's limits: the vocabulary's size and the context's length."""

import asyncio
from collections.abc import Mapping, Sequence

from app.core.errors.errors import RequestError
from app.core.tokenization import Encoding, encoding, longest_token, to_thread_if_large, vocabulary_size
from app.features.llm.model_families import ModelFamily
from app.features.llm.schema import ChatCompletionRequest
from app.features.llm.to_openai.encode import UpstreamCall
from app.features.llm.to_openai.messages import media_characters, plain_text
from app.features.llm.to_openai.prompt_tokens import prompt_ids

_BEYOND = "token_id(s) {beyond} in {name} contain out-of-vocab token ids. Vocabulary size: {size}"
# Fields that list token ids, with vLLM's words for those that its vocabulary has not.
_TOKEN_IDS = {
    "logit_bias": _BEYOND,
    "stop_token_ids": _BEYOND,
    "allowed_token_ids": "allowed_token_ids contains out-of-vocab token id!",
}


def check_token_ids(request: ChatCompletionRequest, family: ModelFamily) -> None:
    """vLLM's checks of the ids that a request lists.

    Raises:
        RequestError: the vocabulary has no such id, or an empty list allows none.
    """
    if request.allowed_token_ids == []:
        raise _refusal("allowed_token_ids is not None and empty!", "allowed_token_ids", [])
    if family.encoding is None:
        return
    given = request.model_fields_set
    for name, message in _TOKEN_IDS.items():
        if name not in given:
            continue
        size = vocabulary_size(family.encoding)
        beyond = [token for token in map(int, getattr(request, name) or ()) if not 0 <= token < size]
        if beyond:
            raise _refusal(message.format(beyond=beyond, name=name, size=size), name, beyond)


async def check_context_window(request: ChatCompletionRequest, call: UpstreamCall) -> None:
    """Check the prompt's length as vLLM does, and note its tokens where the answer needs them.

    Nothing is counted where the call has fewer bytes than tokens are allowed, for no token has less than one.

    Raises:
        RequestError: the prompt is longer than the context, or than `truncate_prompt_tokens`.
    """
    reading, family = call.reading, call.family
    output = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    check_truncation(request.truncate_prompt_tokens, family, {output: getattr(request, output) or 0})
    if reading.tokens and reading.tokens.needs_index and not reading.tokens.encoding.indexed:
        await asyncio.to_thread(reading.tokens.encoding.id_of, b"")
    needed = reading.tokens is not None and reading.tokens.needs_prompt
    if family.encoding is None or not (needed or _may_be_too_long(request, call)):
        return
    _check_characters(request, family)
    vocabulary = encoding(family.encoding)
    ids = await to_thread_if_large(len(call.body), lambda: prompt_ids(vocabulary, request.messages))
    _check_tokens(len(ids), family)
    reading.prompt_ids = [*_tool_ids(vocabulary, request), *ids]
    _check_cut(request, len(reading.prompt_ids))


def _tool_ids(vocabulary: Encoding, request: ChatCompletionRequest) -> list[int]:
    # How tools are laid out is a guess of which no refusal should depend: they are no part of the context's check.
    return prompt_ids(vocabulary, [], request.tools, add_generation_prompt=False) if request.tools else []


def _may_be_too_long(request: ChatCompletionRequest, call: UpstreamCall) -> bool:
    length = len(call.body)
    # A prompt as long as the context leaves no room for an answer.
    limits = [most for most in (call.family.context, _cut(request)) if most is not None and length >= most]
    return bool(limits) and length - media_characters(request.messages) >= min(limits)


def _cut(request: ChatCompletionRequest) -> int | None:
    asked = request.truncate_prompt_tokens
    return None if asked is None or asked < 0 else asked


def check_truncation(asked: int | None, family: ModelFamily, output: Mapping[str, int]) -> None:
    """vLLM's check of `truncate_prompt_tokens`: beside the `output`, a field and its value, it is to fit the context.

    Raises:
        RequestError: it does not.
    """
    if asked is None or family.context is None:
        return
    ((field, length),) = output.items()
    most = family.context - length
    if asked > most:
        name = "truncate_prompt_tokens"
        raise _refusal(
            f"{name}={asked} cannot be greater than max_model_len - {field} = {most}. "
            "Please request a smaller truncation size.",
            name,
            asked,
        )


def _check_characters(request: ChatCompletionRequest, family: ModelFamily) -> None:
    if family.context is None or family.encoding is None:
        return
    most = family.context * longest_token(family.encoding)
    characters = sum(len(plain_text(message.get("content"))) for message in request.messages)
    if characters > most:
        raise _refusal(
            f"{_context(family.context)} {characters} characters (more than {most} characters, which is the upper "
            f"bound for {family.context} input tokens). {_REDUCE}",
            "input_text",
            characters,
        )


def _check_tokens(count: int, family: ModelFamily) -> None:
    if family.context is None or count < family.context:
        return
    if count == family.context:
        raise _refusal("max_tokens must be at least 1, got 0.", "max_tokens", 0)
    # vLLM counts no further than one beyond the limit.
    shown = family.context + 1
    raise _refusal(
        f"{_context(family.context)} at least {shown} input tokens, which exceeds this limit even without any output "
        f"tokens. {_REDUCE}",
        "input_tokens",
        shown,
    )


def _check_cut(request: ChatCompletionRequest, count: int) -> None:
    most = _cut(request)
    if most is not None and count > most:
        raise RequestError(
            f"truncate_prompt_tokens={most} would cut the conversation, which has {count} tokens: the upstream takes "
            "conversations whole.",
            param="truncate_prompt_tokens",
        )


def _context(tokens: int) -> str:
    return f"This model's maximum context length is {tokens} tokens. However, your prompt contains"


_REDUCE = "Please reduce the length of the input prompt."


def _refusal(message: str, name: str, value: int | Sequence[int]) -> RequestError:
    return RequestError(f"{message} (parameter={name}, value={value})", param=name)
