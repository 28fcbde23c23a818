"""``logit_bias`` where it leaves the model no choice: -100 bans a token, and +100 allows no other."""

from collections.abc import Mapping, Sequence

from app.simulator.answers.prose import WORDS
from app.simulator.dice import Dice
from app.simulator.tokens import VOCABULARY, Piece, grouped, split, token, tokens_of

BANNED, EXCLUSIVE = -100, 100


def biased(pieces: Sequence[Piece], bias: Mapping[str, int], dice: Dice) -> Sequence[Piece]:
    """Return ``pieces`` with other tokens in place of those that ``bias`` (by token id) does not allow."""
    banned, exclusive = _tokens(bias, BANNED), _tokens(bias, EXCLUSIVE)
    if exclusive:
        return grouped(written if written in exclusive else dice.choose(exclusive) for written in tokens_of(pieces))
    others = [word for word in _words() if word not in banned] if banned else []
    if not others:
        return pieces
    return grouped(dice.choose(others) if written in banned else written for written in tokens_of(pieces))


def _tokens(bias: Mapping[str, int], value: int) -> list[bytes]:
    return [token(int(number)) for number, given in bias.items() if given == value and 0 <= int(number) < VOCABULARY]


def _words() -> list[bytes]:
    """The words that are one token each."""
    split_words = [split(f" {word}") for word in WORDS]
    return [pieces[0].tokens[0] for pieces in split_words if len(pieces) == len(pieces[0].tokens) == 1]
