"""The sentences the simulator answers with."""

from app.simulator import tokens
from app.simulator.dice import Dice

WORD_LIST = (
    "amber basin brook candle cedar clover copper coral cotton delta ember fern field forest garden ginger granite "
    "harbor hazel heron indigo island ivory jasper juniper kettle lagoon lantern lemon linen maple marble meadow mint "
    "morning nectar north olive opal orchard pebble pepper pine plum quartz quiet rain reed ripple river saffron sage "
    "silver slate snow spruce stone summer thyme timber umber valley velvet walnut willow winter"
)
WORDS = WORD_LIST.split()
# Characters of three and four bytes, alone and combined, so that UTF-8 is never taken for ASCII.
OTHER_SCRIPTS = ("東京", "雨の日", "咖啡", "山水", "바다", "🚀", "🌿", "🎉", "👩‍🔬", "🇯🇵", "é", "naïve")
ONE_IN_OTHER_SCRIPTS = 6

QUOTED_CHARACTERS = 40
LEAST_WORDS = 6
MOST_WORDS = 9


def sentence(quoted: str, dice: Dice) -> str:
    """Return a sentence of some 12 to 20 tokens that repeats the first 40 characters of ``quoted``."""
    words = [_word(dice) for _ in range(LEAST_WORDS + dice.below(MOST_WORDS - LEAST_WORDS + 1))]
    return f"{_opening(quoted)} {' '.join(words)}."


def exactly(length: int, quoted: str, dice: Dice) -> list[tokens.Piece]:
    """Return pieces of ``length`` tokens that begin like every other sentence."""
    words = [_word(dice) for _ in range(length)]
    return tokens.first(tokens.split(f"{_opening(quoted)} {' '.join(words)}"), length)


def _opening(quoted: str) -> str:
    return f'"{quoted[:QUOTED_CHARACTERS].strip()}":' if quoted else "Well:"


def _word(dice: Dice) -> str:
    return dice.choose(OTHER_SCRIPTS if dice.below(ONE_IN_OTHER_SCRIPTS) == 0 else WORDS)
