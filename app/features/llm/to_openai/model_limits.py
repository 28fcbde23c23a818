"""vLLM's checks of a request that need its model's limits but not its prompt."""

from collections.abc import Mapping, Sequence

from app.core.errors.errors import RequestError
from app.core.tokenization import vocabulary_size
from app.features.llm.model_families import ModelFamily
from app.features.llm.schema import ChatCompletionRequest

_BEYOND = "token_id(s) {beyond} in {name} contain out-of-vocab token ids. Vocabulary size: {size}"
# Fields that list token ids, with vLLM's words for those that its vocabulary has not.
_TOKEN_IDS = {
    "logit_bias": _BEYOND,
    "stop_token_ids": _BEYOND,
    "allowed_token_ids": "allowed_token_ids contains out-of-vocab token id!",
}


def check_limits(request: ChatCompletionRequest, family: ModelFamily) -> None:
    """Check the output length and the token ids that a request asks for.

    Raises:
        RequestError: more output tokens than the context holds, an id outside the vocabulary, or no allowed id at all.
    """
    _check_output_length(request, family)
    _check_token_ids(request, family)


def _check_output_length(request: ChatCompletionRequest, family: ModelFamily) -> None:
    if family.context is None:
        return
    name = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    asked = getattr(request, name)
    if asked is not None and asked > family.context:
        raise limit_error(
            f"{name}={asked} cannot be greater than max_model_len={family.context}. "
            "Please request fewer output tokens.",
            name,
            asked,
        )


def _check_token_ids(request: ChatCompletionRequest, family: ModelFamily) -> None:
    if request.allowed_token_ids == []:
        raise limit_error("allowed_token_ids is not None and empty!", "allowed_token_ids", [])
    if family.encoding is None:
        return
    given = request.model_fields_set
    for name, message in _TOKEN_IDS.items():
        if name not in given:
            continue
        size = vocabulary_size(family.encoding)
        beyond = [token for token in map(int, getattr(request, name) or ()) if not 0 <= token < size]
        if beyond:
            raise limit_error(message.format(beyond=beyond, name=name, size=size), name, beyond)


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
        raise limit_error(
            f"{name}={asked} cannot be greater than max_model_len - {field} = {most}. "
            "Please request a smaller truncation size.",
            name,
            asked,
        )


def limit_error(message: str, name: str, value: int | Sequence[int]) -> RequestError:
    """A rejection in vLLM's form, which repeats the parameter and its value."""
    return RequestError(f"{message} (parameter={name}, value={value})", param=name)
