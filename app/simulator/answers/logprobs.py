"""Log probabilities: invented, but reproducible, negative and in descending order."""

from collections.abc import Iterator, Sequence

from app.simulator.dice import Dice
from app.simulator.json_text import JSONObject
from app.simulator.tokens import VOCABULARY, Piece, token


def logprobs_of(pieces: Sequence[Piece], alternatives: int, *, first_position: int = 0) -> JSONObject:
    """Return ``choices[].logprobs`` for ``pieces``, each token with that many ``top_logprobs``.

    ``first_position`` is the number of pieces before these, so that a stream tells the same as a whole answer.
    """
    entries = [
        _entry(written, alternatives, Dice(written, first_position + place, part))
        for place, piece in enumerate(pieces)
        for part, written in enumerate(piece.tokens)
    ]
    return {"content": entries, "refusal": None}


def _entry(written: bytes, alternatives: int, dice: Dice) -> JSONObject:
    logprob = -0.001 - dice.fraction()
    chosen = _candidate(written, logprob)
    others = _others(written, logprob, dice)
    return {**chosen, "top_logprobs": [chosen, *(next(others) for _ in range(alternatives - 1))][:alternatives]}


def _others(written: bytes, logprob: float, dice: Dice) -> Iterator[JSONObject]:
    seen = {written}
    while True:
        other = token(dice.below(VOCABULARY))
        if other not in seen:
            seen.add(other)
            logprob -= 0.5 + dice.fraction()
            yield _candidate(other, logprob)


def _candidate(written: bytes, logprob: float) -> JSONObject:
    return {"token": _spelled(written), "logprob": round(logprob, 6), "bytes": list(written)}


def _spelled(written: bytes) -> str:
    try:
        return written.decode()
    except UnicodeDecodeError:
        # OpenAI's own spelling of a token that is not whole characters.
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in written)
