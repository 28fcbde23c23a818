"""``logit_bias`` at its extremes: -100 bans a token, +100 allows only tokens with that bias."""

from collections.abc import Mapping, Sequence

from app.simulator.generation.prose import WORDS
from app.simulator.seeded_random import SeededRandom
from app.simulator.tokens import VOCABULARY, Piece, grouped, split, token, tokens_of

BANNED, EXCLUSIVE = -100, 100


def biased(pieces: Sequence[Piece], bias: Mapping[str, int], rng: SeededRandom) -> Sequence[Piece]:
    """Return ``pieces`` with the tokens that ``bias`` (by token id) excludes replaced."""
    banned, exclusive = _tokens(bias, BANNED), _tokens(bias, EXCLUSIVE)
    if exclusive:
        return grouped(written if written in exclusive else rng.choose(exclusive) for written in tokens_of(pieces))
    others = [word for word in _words() if word not in banned] if banned else []
    if not others:
        return pieces
    return grouped(rng.choose(others) if written in banned else written for written in tokens_of(pieces))


def _tokens(bias: Mapping[str, int], value: int) -> list[bytes]:
    return [token(int(number)) for number, given in bias.items() if given == value and 0 <= int(number) < VOCABULARY]


def _words() -> list[bytes]:
    """The words that are a single token."""
    split_words = [split(f" {word}") for word in WORDS]
    return [pieces[0].tokens[0] for pieces in split_words if len(pieces) == len(pieces[0].tokens) == 1]
