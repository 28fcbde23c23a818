"""Log probabilities: invented, but reproducible, negative and in descending order."""

from collections.abc import Iterator, Sequence

from app.simulator.dice import Dice
from app.simulator.json_text import JSONObject
from app.simulator.prose import WORDS
from app.simulator.tokens import Piece


def logprobs_of(pieces: Sequence[Piece], alternatives: int, *, first_position: int = 0) -> JSONObject:
    """Return ``choices[].logprobs`` for ``pieces``, each token with that many ``top_logprobs``.

    ``first_position`` is the number of pieces before these, so that a stream tells the same as a whole answer.
    """
    entries = [
        _entry(token, alternatives, Dice(token, first_position + place, part))
        for place, piece in enumerate(pieces)
        for part, token in enumerate(piece.tokens)
    ]
    return {"content": entries, "refusal": None}


def _entry(token: bytes, alternatives: int, dice: Dice) -> JSONObject:
    logprob = -0.001 - dice.fraction()
    chosen = _candidate(token, logprob)
    others = _others(token, logprob, dice)
    return {**chosen, "top_logprobs": [chosen, *(next(others) for _ in range(alternatives - 1))][:alternatives]}


def _others(token: bytes, logprob: float, dice: Dice) -> Iterator[JSONObject]:
    seen = {token}
    while True:
        other = b" " + dice.choose(WORDS).encode()
        if other not in seen:
            seen.add(other)
            logprob -= 0.5 + dice.fraction()
            yield _candidate(other, logprob)


def _candidate(token: bytes, logprob: float) -> JSONObject:
    return {"token": _spelled(token), "logprob": round(logprob, 6), "bytes": list(token)}


def _spelled(token: bytes) -> str:
    try:
        return token.decode()
    except UnicodeDecodeError:
        # OpenAI's own spelling of a token that is not whole characters.
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)
