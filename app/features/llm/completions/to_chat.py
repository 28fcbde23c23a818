"""A text completion (vLLM's /v1/completions) as one chat request for each prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.core.errors.request_errors import RequestError
from app.core.tokenization import Encoding
from app.features.llm.model_families import ModelFamily
from app.features.llm.schema import (
    ChatCompletionRequest,
    CompletionRequest,
)
from app.features.llm.to_openai.limit_checks import check_truncation

# Fields that a chat request lacks or means differently; `PARAMETERS` handles all others.
OWN_FIELDS = frozenset(
    {
        "prompt",
        "echo",
        "logprobs",
        "max_tokens",
        "suffix",
        "truncate_prompt_tokens",
        "truncation_side",
        "prompt_embeds",
        "add_special_tokens",
    }
)

DEFAULT_MAX_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a request. `ids` are its tokens, if the client sent them or the response needs them."""

    text: str
    ids: Sequence[int] | None = None


def prompts_of(request: CompletionRequest, *, family: ModelFamily, load: Callable[[], Encoding]) -> list[Prompt]:
    """Return the prompts in order, truncated to `truncate_prompt_tokens`. `load` is called only if ids are needed.

    Raises:
        RequestError: an id is not in the vocabulary, or `truncate_prompt_tokens` is zero or exceeds the context.
    """
    limit = request.truncate_prompt_tokens
    check_truncation(limit, family, {"max_tokens": _max_tokens(request)})
    limit = family.context if limit == -1 else limit
    return [_make_prompt(raw, request, limit, load) for raw in _raw_prompts(request)]


def characters_to_encode(request: CompletionRequest) -> int:
    """Return the amount of text to encode or decode, in characters or token ids."""
    return sum(len(raw) for raw in _raw_prompts(request) if _needs_ids(raw, request))


def only_echoes(request: CompletionRequest) -> bool:
    """Whether the response is the prompt alone."""
    return bool(request.echo) and request.max_tokens == 0


def chat_request(request: CompletionRequest, prompt: Prompt, model: str, system_prompt: str) -> ChatCompletionRequest:
    """Return the chat request whose response continues a prompt."""
    names = (request.model_fields_set & CompletionRequest.model_fields.keys()) - OWN_FIELDS
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    fields = {name: value for name in names if (value := getattr(request, name)) is not None} | {
        "model": model,
        "messages": [*system, {"role": "user", "content": prompt.text}],
        "max_tokens": _max_tokens(request),
        # Reasoning would use up the few tokens of a text completion.
        "reasoning_effort": "none",
    }
    if request.logprobs is not None:
        fields |= {"logprobs": True, "top_logprobs": request.logprobs}
    # A chat's default temperature does not apply to a text completion.
    fields = {"temperature": None, **fields}
    chat = ChatCompletionRequest.model_construct(_fields_set=set(fields), **fields)
    # Chat-only fields are unknown keys in a text completion.
    chat.__pydantic_extra__ = dict(request.model_extra or {})
    return chat


def _max_tokens(request: CompletionRequest) -> int:
    return DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens


def _raw_prompts(request: CompletionRequest) -> Sequence[str | list[int]]:
    prompt = request.prompt or []
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        return [prompt]
    return prompt


def _needs_ids(raw: str | list[int], request: CompletionRequest) -> bool:
    truncates = request.truncate_prompt_tokens is not None
    return truncates or bool(request.return_token_ids) or only_echoes(request) or not isinstance(raw, str)


def _make_prompt(
    raw: str | list[int], request: CompletionRequest, limit: int | None, load: Callable[[], Encoding]
) -> Prompt:
    if isinstance(raw, str) and not _needs_ids(raw, request):
        return Prompt(raw)
    encoding = load()
    ids = encoding.encode(raw) if isinstance(raw, str) else _check_vocabulary(raw, encoding)
    kept = ids if limit is None else _truncate(ids, limit, request.truncation_side)
    if not kept:
        raise RequestError("The decoder prompt cannot be empty", param="truncate_prompt_tokens")
    if isinstance(raw, str) and len(kept) == len(ids):
        return Prompt(raw, kept)
    # OpenAI would read the name of a special token as plain text.
    return Prompt(encoding.decode([token for token in kept if token not in encoding.special_ids]), kept)


def _check_vocabulary(ids: list[int], encoding: Encoding) -> list[int]:
    unknown = next((token for token in ids if encoding.token_bytes(token) is None), None)
    if unknown is not None:
        raise RequestError(f"Token id {unknown} is out of vocabulary", param="prompt")
    return ids


def _truncate(ids: list[int], limit: int, side: str | None) -> list[int]:
    """Keep the last `limit` ids, as vLLM does by default, or the first if `side` is "right"."""
    return ids[:limit] if side == "right" else ids[max(0, len(ids) - limit) :]
