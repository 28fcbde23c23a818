"""Log probabilities: made up, but reproducible, negative and in descending order."""

from collections.abc import Iterator, Sequence

from app.simulator.json_text import JSONObject
from app.simulator.seeded_random import SeededRandom
from app.simulator.tokens import VOCABULARY, Piece, token


def logprobs_of(pieces: Sequence[Piece], alternatives: int, *, first_position: int = 0) -> JSONObject:
    """Return ``choices[].logprobs`` for ``pieces`` with ``alternatives`` ``top_logprobs`` for each token.

    ``first_position`` is the index of the first piece, so that streamed and whole responses agree.
    """
    entries = [
        _entry(written, alternatives, SeededRandom(written, first_position + offset, part))
        for offset, piece in enumerate(pieces)
        for part, written in enumerate(piece.tokens)
    ]
    return {"content": entries, "refusal": None}


def _entry(written: bytes, alternatives: int, rng: SeededRandom) -> JSONObject:
    logprob = -0.001 - rng.fraction()
    chosen = _candidate(written, logprob)
    others = _others(written, logprob, rng)
    return {**chosen, "top_logprobs": [chosen, *(next(others) for _ in range(alternatives - 1))][:alternatives]}


def _others(written: bytes, logprob: float, rng: SeededRandom) -> Iterator[JSONObject]:
    seen = {written}
    while True:
        other = token(rng.below(VOCABULARY))
        if other not in seen:
            seen.add(other)
            logprob -= 0.5 + rng.fraction()
            yield _candidate(other, logprob)


def _candidate(written: bytes, logprob: float) -> JSONObject:
    return {"token": _spelled(written), "logprob": round(logprob, 6), "bytes": list(written)}


def _spelled(written: bytes) -> str:
    try:
        return written.decode()
    except UnicodeDecodeError:
        # How OpenAI spells a token that is not valid UTF-8.
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in written)
