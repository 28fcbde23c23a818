"""The keys that pay for the calls: which one is next, and which is set aside."""

import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

MAX_COOLDOWN_S = 60.0
"""How long a key is set aside that is refused or whose account is empty."""


@dataclass(slots=True, eq=False)
class ApiKey:
    """One key; `calls` is how many are in flight with it, a stream until it is closed."""

    secret: str = field(repr=False)
    position: int
    calls: int = 0
    set_aside_until: float = -math.inf


class ApiKeyPool:
    """The keys of one server. A key is only ever set aside where there is another."""

    def __init__(self, secrets: Sequence[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = [ApiKey(secret, position) for position, secret in enumerate(dict.fromkeys(secrets))]
        self._only = self._keys[0] if len(self._keys) == 1 else None
        self._clock = clock
        self._turn = 0

    def __len__(self) -> int:
        return len(self._keys)

    def choose(self) -> ApiKey:
        """The key with the fewest calls in flight, in turn where several have; else the one that is back first."""
        return self._only or self.another(()) or min(self._keys, key=lambda key: key.set_aside_until)

    def another(self, tried: Collection[ApiKey]) -> ApiKey | None:
        """The same without `tried` and without keys that are set aside; None: there is no such key."""
        now = self._clock()
        in_turn = self._keys[self._turn :] + self._keys[: self._turn]
        usable = [key for key in in_turn if key.set_aside_until <= now and key not in tried]
        if not usable:
            return None
        chosen = min(usable, key=lambda key: key.calls)
        self._turn = (chosen.position + 1) % len(self._keys)
        return chosen

    def cool_down(self, key: ApiKey, pause_s: float, why: str) -> None:
        """Leave `key` alone for `pause_s` seconds, 60 at most."""
        pause_s = min(pause_s, MAX_COOLDOWN_S)
        if self._only or pause_s <= 0:
            return
        key.set_aside_until = max(key.set_aside_until, self._clock() + pause_s)
        place = f"{key.position + 1} of {len(self._keys)}"
        logger.warning("OpenAI key %s is set aside for %.3g s: %s", place, pause_s, why)
