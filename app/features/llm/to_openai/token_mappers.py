"""How the fields that are about token ids get into OpenAI's body, or into the reading of the answer."""

from collections.abc import Iterator, Sequence

from app.core.errors.errors import Refusal
from app.core.tokenization import Encoding, encoding, is_ordinary, longest_token
from app.features.llm.to_openai.builder import Draft
from app.features.llm.to_openai.messages import has_media

MAX_BIASES = 1024
"""Entries of `logit_bias` that OpenAI is sent for `allowed_token_ids`; it publishes no limit."""
MAX_BAD_WORDS = 128
MAX_BAD_WORD_TOKENS = 1024
_BANNED, _ALLOWED = -100, 100


def stop_token_ids(draft: Draft, name: str, value: list[int]) -> None:
    """Tokens that end the answer, beside those that end it anyway.

    Found by their ids where OpenAI shows tokens, by their text where it does not.
    """
    tokens = draft.tokens(name)
    stops = [token for token in value if is_ordinary(tokens.encoding.name, token)]
    if not stops:
        return
    draft.reading.include_stop = draft.request.include_stop_str_in_output
    if draft.shows_tokens:
        tokens.stops = frozenset(stops)
        draft.ask_for_tokens(tokens)
    else:
        _stop_at_texts(draft, name, tokens.encoding, stops)


def _stop_at_texts(draft: Draft, name: str, vocabulary: Encoding, stops: Sequence[int]) -> None:
    texts = {text: token for token in stops if (text := _text(vocabulary, token)) is not None}
    if len(texts) < len(set(stops)):
        draft.drop(name)
    draft.reading.stops += tuple(texts)
    draft.reading.stop_ids = {text: token for text, token in texts.items() if text not in _asked_stops(draft)}


def _text(vocabulary: Encoding, token: int) -> str | None:
    """What an id stands for; None: a part of a character, which no text shows."""
    try:
        return (vocabulary.token_bytes(token) or b"").decode() or None
    except UnicodeDecodeError:
        return None


def _asked_stops(draft: Draft) -> list[str]:
    stop = draft.request.stop
    return [stop] if isinstance(stop, str) else stop or []


def allowed_token_ids(draft: Draft, name: str, value: list[int]) -> None:
    """The only tokens of the answer: OpenAI's highest bias, less what the client holds against some of them."""
    if draft.family.reasons:
        raise Refusal(f"`{name}` is not available: models that reason take no `logit_bias`.", param=name)
    allowed = list(dict.fromkeys(value))
    if len(allowed) > MAX_BIASES:
        raise Refusal(f"{name} must be at most {MAX_BIASES} ids with this upstream, got {len(allowed)}.", param=name)
    given = _biases(draft)
    draft.body["logit_bias"] = {str(token): _ALLOWED + min(0, given.get(token, 0)) for token in allowed}
    if any(given.get(token, 0) > 0 for token in allowed):
        draft.adjusted["logit_bias"] = "merged"


def bad_words(draft: Draft, name: str, value: list[str]) -> None:
    """Words that are one token each are banned by OpenAI's lowest bias; a longer one cannot be."""
    if draft.family.reasons or draft.family.encoding is None:
        draft.drop(name)
        return
    banned = _banned(encoding(draft.family.encoding), name, value)
    biases, allowed = _biases(draft), draft.request.allowed_token_ids
    single = [sequence[0] for sequence in banned if len(sequence) == 1]
    biases |= {token: _BANNED for token in single if not allowed or token in biases}
    if biases:
        draft.body["logit_bias"] = {str(token): bias for token, bias in biases.items()}
    if len(single) < len(banned):
        draft.drop(name)


def _biases(draft: Draft) -> dict[int, int]:
    return {int(token): bias for token, bias in draft.body.get("logit_bias", {}).items()}


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
        raise Refusal(f"Too many bad words: {count}. The max number is {MAX_BAD_WORDS}.", param=name)
    if tokens > MAX_BAD_WORD_TOKENS:
        raise Refusal(f"Too many total bad word tokens: {tokens}. The max is {MAX_BAD_WORD_TOKENS}.", param=name)
    return banned


def _forms(vocabulary: Encoding, word: str) -> Iterator[list[int]]:
    """A word at the start of a text and, where that is another sequence of the same length, after a blank."""
    bare = vocabulary.encode(word.lstrip() or word)
    spaced = vocabulary.encode(" " + word.lstrip())
    yield bare
    if spaced[0] != bare[0] and len(spaced) == len(bare):
        yield spaced


def truncate_prompt_tokens(draft: Draft, name: str, value: int) -> None:
    """No effect on a prompt that is short enough; that is seen where the prompt is counted."""
    if value >= 0:
        draft.tokens(name)


def return_token_ids(draft: Draft, name: str, _value: bool) -> None:
    """Ids as OpenAI's log probabilities tell them, else those of the text."""
    tokens = draft.tokens(name)
    tokens.shows_ids = True
    if draft.shows_tokens:
        draft.ask_for_tokens(tokens)
    else:
        draft.adjusted[name] = "canonical"


def return_tokens_as_token_ids(draft: Draft, name: str, _value: bool) -> None:
    """Tokens are shown in `logprobs` alone."""
    if draft.request.logprobs:
        draft.tokens(name).names_ids = True


def count_at_stop(draft: Draft) -> None:
    """Have the usage counted here where a stream that stops here can then be closed at once.

    Only where the count is OpenAI's: no thinking, which nobody sees, no images, no tools, no schema.
    """
    request, options = draft.request, draft.request.stream_options
    shows_usage = request.stream and options is not None and options.include_usage
    if not (shows_usage and draft.reading.stops_here and draft.samples and draft.family.encoding):
        return
    if not (request.tools or "response_format" in draft.body or has_media(request.messages)):
        draft.tokens("stop").counts_at_stop = True
