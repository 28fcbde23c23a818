"""OpenAI API keys: selection by load, and the cooldown of a key that failed."""

import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

MAX_COOLDOWN_S = 60.0
"""Also the cooldown of a key that was rejected or whose account is empty."""


@dataclass(slots=True, eq=False)
class ApiKey:
    """One key. `calls_in_flight` counts a stream until it is closed."""

    secret: str = field(repr=False)
    position: int
    calls_in_flight: int = 0
    cooldown_until_s: float = -math.inf


class ApiKeyPool:
    """The keys of one server. A single key never cools down."""

    def __init__(self, secrets: Sequence[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = [ApiKey(secret, position) for position, secret in enumerate(dict.fromkeys(secrets))]
        self._only_key = self._keys[0] if len(self._keys) == 1 else None
        self._clock = clock
        self._next_position = 0

    def __len__(self) -> int:
        return len(self._keys)

    def choose(self) -> ApiKey:
        """Return the available key with the fewest calls in flight, round robin among equals.

        If all keys are cooling down, return the one whose cooldown ends first.
        """
        return self._only_key or self.choose_other(()) or min(self._keys, key=lambda key: key.cooldown_until_s)

    def choose_other(self, excluded: Collection[ApiKey]) -> ApiKey | None:
        """Like `choose`, but neither a key in `excluded` nor one that is cooling down; None if there is no other."""
        now = self._clock()
        in_turn = self._keys[self._next_position :] + self._keys[: self._next_position]
        available = [key for key in in_turn if key.cooldown_until_s <= now and key not in excluded]
        if not available:
            return None
        chosen = min(available, key=lambda key: key.calls_in_flight)
        self._next_position = (chosen.position + 1) % len(self._keys)
        return chosen

    def cool_down(self, key: ApiKey, cooldown_s: float, reason: str) -> None:
        """Leave `key` unused for `cooldown_s` seconds, at most 60."""
        cooldown_s = min(cooldown_s, MAX_COOLDOWN_S)
        if self._only_key or cooldown_s <= 0:
            return
        key.cooldown_until_s = max(key.cooldown_until_s, self._clock() + cooldown_s)
        number = f"{key.position + 1} of {len(self._keys)}"
        logger.warning("OpenAI key %s is not used for %.3g s: %s", number, cooldown_s, reason)
