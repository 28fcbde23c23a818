"""How the fields that are about token ids get into OpenAI's body, or into the plan for the response."""

from collections.abc import Iterator, Sequence

from app.core.errors.errors import RequestError
from app.core.tokenization import Encoding, encoding, is_ordinary, longest_token
from app.features.llm.to_openai.builder import RequestBuilder
from app.features.llm.to_openai.messages import has_media

MAX_BIASES = 1024
"""Entries of `logit_bias` that OpenAI is sent for `allowed_token_ids`; it publishes no limit."""
MAX_BAD_WORDS = 128
MAX_BAD_WORD_TOKENS = 1024
_BANNED, _ALLOWED = -100, 100


def stop_token_ids(builder: RequestBuilder, name: str, value: list[int]) -> None:
    """Tokens that end the answer, beside those that end it anyway.

    Found by their ids where OpenAI shows tokens, by their text where it does not.
    """
    tokens = builder.tokens(name)
    stops = [token for token in value if is_ordinary(tokens.encoding.name, token)]
    if not stops:
        return
    builder.plan.include_stop = builder.request.include_stop_str_in_output
    if builder.shows_tokens:
        tokens.stops = frozenset(stops)
        builder.ask_for_tokens(tokens)
    else:
        _stop_at_texts(builder, name, tokens.encoding, stops)


def _stop_at_texts(builder: RequestBuilder, name: str, vocabulary: Encoding, stops: Sequence[int]) -> None:
    texts = {text: token for token in stops if (text := _text(vocabulary, token)) is not None}
    if len(texts) < len(set(stops)):
        builder.drop(name)
    builder.plan.stops += tuple(texts)
    builder.plan.stop_ids = {text: token for text, token in texts.items() if text not in _asked_stops(builder)}


def _text(vocabulary: Encoding, token: int) -> str | None:
    """What an id stands for; None: a part of a character, which no text shows."""
    try:
        return (vocabulary.token_bytes(token) or b"").decode() or None
    except UnicodeDecodeError:
        return None


def _asked_stops(builder: RequestBuilder) -> list[str]:
    stop = builder.request.stop
    return [stop] if isinstance(stop, str) else stop or []


def allowed_token_ids(builder: RequestBuilder, name: str, value: list[int]) -> None:
    """The only tokens of the answer: OpenAI's highest bias, less what the client holds against some of them."""
    if not builder.family.penalties:
        raise RequestError(f"`{name}` is not available: this model takes no `logit_bias`.", param=name)
    allowed = list(dict.fromkeys(value))
    if len(allowed) > MAX_BIASES:
        raise RequestError(
            f"{name} must be at most {MAX_BIASES} ids with this upstream, got {len(allowed)}.", param=name
        )
    given = _biases(builder)
    builder.body["logit_bias"] = {str(token): _ALLOWED + min(0, given.get(token, 0)) for token in allowed}
    if any(given.get(token, 0) > 0 for token in allowed):
        builder.adjusted["logit_bias"] = "merged"


def bad_words(builder: RequestBuilder, name: str, value: list[str]) -> None:
    """Words that are one token each are banned by OpenAI's lowest bias; a longer one cannot be."""
    if not builder.family.penalties or builder.family.encoding is None:
        builder.drop(name)
        return
    banned = _banned(encoding(builder.family.encoding), name, value)
    biases, allowed = _biases(builder), builder.request.allowed_token_ids
    single = [sequence[0] for sequence in banned if len(sequence) == 1]
    biases |= {token: _BANNED for token in single if not allowed or token in biases}
    if biases:
        builder.body["logit_bias"] = {str(token): bias for token, bias in biases.items()}
    if len(single) < len(banned):
        builder.drop(name)


def _biases(builder: RequestBuilder) -> dict[int, int]:
    return {int(token): bias for token, bias in builder.body.get("logit_bias", {}).items()}


def _banned(vocabulary: Encoding, name: str, words: Sequence[str]) -> list[list[int]]:
    """The token sequences that vLLM would ban, within its limits."""
    # No token has more characters: a text beyond this is not worth the time that encoding takes.
    if len(words) <= MAX_BAD_WORDS and sum(map(len, words)) <= MAX_BAD_WORD_TOKENS * longest_token(vocabulary.name):
        banned = [sequence for word in words for sequence in _forms(vocabulary, word)]
        tokens = sum(map(len, banned))
    else:
        banned, tokens = [], MAX_BAD_WORD_TOKENS + 1
    if max(len(banned), len(words)) > MAX_BAD_WORDS:
        count = max(len(banned), len(words))
        raise RequestError(f"Too many bad words: {count}. The max number is {MAX_BAD_WORDS}.", param=name)
    if tokens > MAX_BAD_WORD_TOKENS:
        raise RequestError(f"Too many total bad word tokens: {tokens}. The max is {MAX_BAD_WORD_TOKENS}.", param=name)
    return banned


def _forms(vocabulary: Encoding, word: str) -> Iterator[list[int]]:
    """A word at the start of a text and, where that is another sequence of the same length, after a blank."""
    bare = vocabulary.encode(word.lstrip() or word)
    spaced = vocabulary.encode(" " + word.lstrip())
    yield bare
    if spaced[0] != bare[0] and len(spaced) == len(bare):
        yield spaced


def truncate_prompt_tokens(builder: RequestBuilder, name: str, value: int) -> None:
    """No effect on a prompt that is short enough; that is seen where the prompt is counted."""
    if value >= 0:
        builder.tokens(name)


def return_token_ids(builder: RequestBuilder, name: str, _value: bool) -> None:
    """Ids as OpenAI's log probabilities tell them, else those of the text."""
    tokens = builder.tokens(name)
    tokens.shows_ids = True
    if builder.shows_tokens:
        builder.ask_for_tokens(tokens)
    else:
        builder.adjusted[name] = "canonical"


def return_tokens_as_token_ids(builder: RequestBuilder, name: str, _value: bool) -> None:
    """Tokens are shown in `logprobs` alone."""
    if builder.request.logprobs:
        builder.tokens(name).names_ids = True


def count_at_stop(builder: RequestBuilder) -> None:
    """Have the usage counted here where a stream that stops here can then be closed at once.

    Only where the count is OpenAI's: no thinking, which nobody sees, no images, no tools, no schema.
    """
    request, options = builder.request, builder.request.stream_options
    shows_usage = request.stream and options is not None and options.include_usage
    if not (shows_usage and builder.plan.stops_here and builder.accepts_sampling and builder.family.encoding):
        return
    if not (request.tools or "response_format" in builder.body or has_media(request.messages)):
        builder.tokens("stop").counts_at_stop = True
