"""A text completion as one chat request per prompt (vLLM's /v1/completions)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.core.errors.errors import RequestError
from app.core.tokenization import Encoding
from app.features.llm.model_families import ModelFamily
from app.features.llm.schema import (
    ChatCompletionRequest,
    CompletionRequest,
)
from app.features.llm.to_openai.model_limits import check_truncation

# What the request has of its own; all other fields are those of a chat, and so is their fate.
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
    """One of a request's prompts; `ids` are known where the client gave them or wants something of them."""

    text: str
    ids: Sequence[int] | None = None


def prompts_of(request: CompletionRequest, *, family: ModelFamily, load: Callable[[], Encoding]) -> list[Prompt]:
    """The prompts in order, cut as `truncate_prompt_tokens` says. The encoding is loaded where ids play a part.

    Raises:
        RequestError: an id is not in the vocabulary, nothing is left of a prompt, or more than the context would be.
    """
    limit = request.truncate_prompt_tokens
    check_truncation(limit, family, {"max_tokens": _max_tokens(request)})
    limit = family.context if limit == -1 else limit
    return [_prompt(given, request, limit, load) for given in _given(request)]


def characters_to_encode(request: CompletionRequest) -> int:
    """How much there is to encode or decode, in characters or ids."""
    return sum(len(given) for given in _given(request) if _needs_ids(given, request))


def only_echoes(request: CompletionRequest) -> bool:
    """Whether nothing is to be written after the prompt."""
    return bool(request.echo) and request.max_tokens == 0


def chat_request(request: CompletionRequest, prompt: Prompt, model: str, system_prompt: str) -> ChatCompletionRequest:
    """The chat request that continues a prompt."""
    names = (request.model_fields_set & CompletionRequest.model_fields.keys()) - OWN_FIELDS
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    fields = {name: value for name in names if (value := getattr(request, name)) is not None} | {
        "model": model,
        "messages": [*system, {"role": "user", "content": prompt.text}],
        "max_tokens": _max_tokens(request),
        # A text is continued without thinking; the few tokens it is given would be spent on that.
        "reasoning_effort": "none",
    }
    if request.logprobs is not None:
        fields |= {"logprobs": True, "top_logprobs": request.logprobs}
    # Without a temperature of its own: a chat's default is none of a text completion's.
    fields = {"temperature": None, **fields}
    chat = ChatCompletionRequest.model_construct(_fields_set=set(fields), **fields)
    # A chat's own field among them is none of a text completion's.
    chat.__pydantic_extra__ = dict(request.model_extra or {})
    return chat


def _max_tokens(request: CompletionRequest) -> int:
    return DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens


def _given(request: CompletionRequest) -> Sequence[str | list[int]]:
    prompt = request.prompt or []
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        return [prompt]
    return prompt


def _needs_ids(given: str | list[int], request: CompletionRequest) -> bool:
    cuts = request.truncate_prompt_tokens is not None
    return cuts or bool(request.return_token_ids) or only_echoes(request) or not isinstance(given, str)


def _prompt(
    given: str | list[int], request: CompletionRequest, limit: int | None, load: Callable[[], Encoding]
) -> Prompt:
    if isinstance(given, str) and not _needs_ids(given, request):
        return Prompt(given)
    encoding = load()
    ids = encoding.encode(given) if isinstance(given, str) else _in_vocabulary(given, encoding)
    cut = ids if limit is None else _cut(ids, limit, request.truncation_side)
    if not cut:
        raise RequestError("The decoder prompt cannot be empty", param="truncate_prompt_tokens")
    if isinstance(given, str) and len(cut) == len(ids):
        return Prompt(given, cut)
    # Spelled out, a special token would be plain text to OpenAI.
    return Prompt(encoding.decode([token for token in cut if token not in encoding.special_ids]), cut)


def _in_vocabulary(ids: list[int], encoding: Encoding) -> list[int]:
    unknown = next((token for token in ids if encoding.token_bytes(token) is None), None)
    if unknown is not None:
        raise RequestError(f"Token id {unknown} is out of vocabulary", param="prompt")
    return ids


def _cut(ids: list[int], limit: int, side: str | None) -> list[int]:
    """The last `limit` ids, or the first: vLLM's generating models lose the beginning unless told otherwise."""
    return ids[:limit] if side == "right" else ids[max(0, len(ids) - limit) :]
