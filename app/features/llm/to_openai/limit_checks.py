"""vLLM's checks that need the model's limits but not the tokens of the prompt."""

from collections.abc import Mapping, Sequence

from app.core.errors.request_errors import RequestError
from app.core.tokenization import vocabulary_size
from app.features.llm.model_families import ModelFamily
from app.features.llm.schema import ChatCompletionRequest

_OUT_OF_VOCABULARY = "token_id(s) {beyond} in {name} contain out-of-vocab token ids. Vocabulary size: {size}"
# Fields that list token ids, with vLLM's error text for ids outside the vocabulary.
_TOKEN_IDS = {
    "logit_bias": _OUT_OF_VOCABULARY,
    "stop_token_ids": _OUT_OF_VOCABULARY,
    "allowed_token_ids": "allowed_token_ids contains out-of-vocab token id!",
}


def check_limits(request: ChatCompletionRequest, family: ModelFamily) -> None:
    """Check the output length and the token ids of a request.

    Raises:
        RequestError: the output exceeds the context, an id is outside the vocabulary, or no token id is allowed.
    """
    _check_output_length(request, family)
    _check_token_ids(request, family)


def _check_output_length(request: ChatCompletionRequest, family: ModelFamily) -> None:
    if family.context is None:
        return
    name = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    requested = getattr(request, name)
    if requested is not None and requested > family.context:
        raise limit_error(
            f"{name}={requested} cannot be greater than max_model_len={family.context}. "
            "Please request fewer output tokens.",
            name,
            requested,
        )


def _check_token_ids(request: ChatCompletionRequest, family: ModelFamily) -> None:
    if request.allowed_token_ids == []:
        raise limit_error("allowed_token_ids is not None and empty!", "allowed_token_ids", [])
    if family.encoding is None:
        return
    sent = request.model_fields_set
    for name, message in _TOKEN_IDS.items():
        if name not in sent:
            continue
        size = vocabulary_size(family.encoding)
        beyond = [token for token in map(int, getattr(request, name) or ()) if not 0 <= token < size]
        if beyond:
            raise limit_error(message.format(beyond=beyond, name=name, size=size), name, beyond)


def check_truncation(requested: int | None, family: ModelFamily, output: Mapping[str, int]) -> None:
    """Check that `truncate_prompt_tokens` and the output length fit the context together, as vLLM does.

    `output` maps the field of the output length to its value.

    Raises:
        RequestError: they do not fit.
    """
    if requested is None or family.context is None:
        return
    ((field, length),) = output.items()
    limit = family.context - length
    if requested > limit:
        name = "truncate_prompt_tokens"
        raise limit_error(
            f"{name}={requested} cannot be greater than max_model_len - {field} = {limit}. "
            "Please request a smaller truncation size.",
            name,
            requested,
        )


def limit_error(message: str, name: str, value: int | Sequence[int]) -> RequestError:
    """Return an error in vLLM's form, which repeats the parameter and its value."""
    return RequestError(f"{message} (parameter={name}, value={value})", param=name)
