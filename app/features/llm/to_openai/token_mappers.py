"""Mappers for the fields about tokens, into OpenAI's body or the response plan."""

from collections.abc import Iterator, Sequence

from app.core.errors.request_errors import RequestError
from app.core.tokenization import Encoding, encoding, is_ordinary, longest_token
from app.features.llm.to_openai.builder import RequestBuilder
from app.features.llm.to_openai.messages import has_media

MAX_BIASES = 1024
"""The most `logit_bias` entries sent for `allowed_token_ids`; OpenAI publishes no limit."""
MAX_BAD_WORDS = 128
MAX_BAD_WORD_TOKENS = 1024
_LOWEST_BIAS, _HIGHEST_BIAS = -100, 100


def stop_token_ids(builder: RequestBuilder, name: str, value: list[int]) -> None:
    """Stop at these tokens: found by id if OpenAI shows tokens, else by their text."""
    tokens = builder.tokens(name)
    stops = [token for token in value if is_ordinary(tokens.encoding.name, token)]
    if not stops:
        return
    builder.plan.include_stop = builder.request.include_stop_str_in_output
    if builder.shows_tokens:
        tokens.stops = frozenset(stops)
        builder.request_logprobs(tokens)
    else:
        _stop_at_token_texts(builder, name, tokens.encoding, stops)


def _stop_at_token_texts(builder: RequestBuilder, name: str, vocabulary: Encoding, stops: Sequence[int]) -> None:
    texts = {text: token for token in stops if (text := _token_text(vocabulary, token)) is not None}
    if len(texts) < len(set(stops)):
        builder.drop(name)
    builder.plan.stops += tuple(texts)
    builder.plan.stop_ids = {text: token for text, token in texts.items() if text not in _requested_stops(builder)}


def _token_text(vocabulary: Encoding, token: int) -> str | None:
    """Return the text of a token; None for a part of a character."""
    try:
        return (vocabulary.token_bytes(token) or b"").decode() or None
    except UnicodeDecodeError:
        return None


def _requested_stops(builder: RequestBuilder) -> list[str]:
    stop = builder.request.stop
    return [stop] if isinstance(stop, str) else stop or []


def allowed_token_ids(builder: RequestBuilder, name: str, value: list[int]) -> None:
    """Allow only these tokens, with OpenAI's highest bias; the client's own negative biases lower it."""
    if not builder.family.penalties:
        raise RequestError(f"`{name}` is not available: this model takes no `logit_bias`.", param=name)
    allowed = list(dict.fromkeys(value))
    if len(allowed) > MAX_BIASES:
        raise RequestError(
            f"{name} must be at most {MAX_BIASES} ids with this upstream, got {len(allowed)}.", param=name
        )
    biases = _biases(builder)
    builder.body["logit_bias"] = {str(token): _HIGHEST_BIAS + min(0, biases.get(token, 0)) for token in allowed}
    if any(biases.get(token, 0) > 0 for token in allowed):
        builder.adjusted["logit_bias"] = "merged"


def bad_words(builder: RequestBuilder, name: str, value: list[str]) -> None:
    """Ban words of one token with OpenAI's lowest bias; longer words cannot be banned."""
    if not builder.family.penalties or builder.family.encoding is None:
        builder.drop(name)
        return
    banned = _banned_sequences(encoding(builder.family.encoding), name, value)
    biases, allowed = _biases(builder), builder.request.allowed_token_ids
    single = [sequence[0] for sequence in banned if len(sequence) == 1]
    biases |= {token: _LOWEST_BIAS for token in single if not allowed or token in biases}
    if biases:
        builder.body["logit_bias"] = {str(token): bias for token, bias in biases.items()}
    if len(single) < len(banned):
        builder.drop(name)


def _biases(builder: RequestBuilder) -> dict[int, int]:
    return {int(token): bias for token, bias in builder.body.get("logit_bias", {}).items()}


def _banned_sequences(vocabulary: Encoding, name: str, words: Sequence[str]) -> list[list[int]]:
    """Return the token sequences that vLLM would ban, within its limits."""
    # Longer text certainly exceeds the token limit, so it is not encoded.
    if len(words) <= MAX_BAD_WORDS and sum(map(len, words)) <= MAX_BAD_WORD_TOKENS * longest_token(vocabulary.name):
        banned = [sequence for word in words for sequence in _spellings(vocabulary, word)]
        tokens = sum(map(len, banned))
    else:
        banned, tokens = [], MAX_BAD_WORD_TOKENS + 1
    if max(len(banned), len(words)) > MAX_BAD_WORDS:
        count = max(len(banned), len(words))
        raise RequestError(f"Too many bad words: {count}. The max number is {MAX_BAD_WORDS}.", param=name)
    if tokens > MAX_BAD_WORD_TOKENS:
        raise RequestError(f"Too many total bad word tokens: {tokens}. The max is {MAX_BAD_WORD_TOKENS}.", param=name)
    return banned


def _spellings(vocabulary: Encoding, word: str) -> Iterator[list[int]]:
    """Encode a word at the start of a text and, if that differs but is as long, after a space."""
    bare = vocabulary.encode(word.lstrip() or word)
    spaced = vocabulary.encode(" " + word.lstrip())
    yield bare
    if spaced[0] != bare[0] and len(spaced) == len(bare):
        yield spaced


def truncate_prompt_tokens(builder: RequestBuilder, name: str, value: int) -> None:
    """Require a known tokenizer; `check_context_window` rejects a prompt that is too long."""
    if value >= 0:
        builder.tokens(name)


def return_token_ids(builder: RequestBuilder, name: str, _value: bool) -> None:
    """Return token ids from OpenAI's log probabilities, or else by encoding the text."""
    tokens = builder.tokens(name)
    tokens.shows_ids = True
    if builder.shows_tokens:
        builder.request_logprobs(tokens)
    else:
        builder.adjusted[name] = "canonical"


def return_tokens_as_token_ids(builder: RequestBuilder, name: str, _value: bool) -> None:
    """Show token ids as tokens, which only `logprobs` contain."""
    if builder.request.logprobs:
        builder.tokens(name).names_ids = True


def count_at_stop(builder: RequestBuilder) -> None:
    """Count usage locally if this server stops the stream, so that the upstream stream can be closed at once.

    Only if the local count equals OpenAI's: without reasoning, images, audio, files, tools or a schema.
    """
    request, options = builder.request, builder.request.stream_options
    shows_usage = request.stream and options is not None and options.include_usage
    if not (shows_usage and builder.plan.stops_here and builder.accepts_sampling and builder.family.encoding):
        return
    if not (request.tools or "response_format" in builder.body or has_media(request.messages)):
        builder.tokens("stop").counts_at_stop = True
