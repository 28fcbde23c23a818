"""Generates the simulator's sentences."""

from app.simulator import tokens
from app.simulator.seeded_random import SeededRandom

WORD_LIST = (
    "amber basin brook candle cedar clover copper coral cotton delta ember fern field forest garden ginger granite "
    "harbor hazel heron indigo island ivory jasper juniper kettle lagoon lantern lemon linen maple marble meadow mint "
    "morning nectar north olive opal orchard pebble pepper pine plum quartz quiet rain reed ripple river saffron sage "
    "silver slate snow spruce stone summer thyme timber umber valley velvet walnut willow winter"
)
WORDS = WORD_LIST.split()
# Characters of two to four bytes and combinations of them, so that code which assumes ASCII fails.
OTHER_SCRIPTS = ("東京", "雨の日", "咖啡", "山水", "바다", "🚀", "🌿", "🎉", "👩‍🔬", "🇯🇵", "é", "naïve")
ONE_IN_OTHER_SCRIPTS = 6

QUOTED_CHARACTERS = 40
MIN_WORDS = 6
MAX_WORDS = 9


def sentence(quoted: str, rng: SeededRandom) -> str:
    """Return a sentence of some 12 to 20 tokens that quotes the first 40 characters of ``quoted``."""
    words = [_word(rng) for _ in range(MIN_WORDS + rng.below(MAX_WORDS - MIN_WORDS + 1))]
    return f"{_opening(quoted)} {' '.join(words)}."


def exactly(length: int, quoted: str, rng: SeededRandom) -> list[tokens.Piece]:
    """Return pieces of exactly ``length`` tokens that begin like ``sentence``."""
    words = [_word(rng) for _ in range(length)]
    return tokens.first(tokens.split(f"{_opening(quoted)} {' '.join(words)}"), length)


def _opening(quoted: str) -> str:
    return f'"{quoted[:QUOTED_CHARACTERS].strip()}":' if quoted else "Well:"


def _word(rng: SeededRandom) -> str:
    return rng.choose(OTHER_SCRIPTS if rng.below(ONE_IN_OTHER_SCRIPTS) == 0 else WORDS)
