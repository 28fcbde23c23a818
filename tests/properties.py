"""Settings and strategies shared by the property-based tests of the whole server."""

import os
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

LONGER = int(os.environ.get("MORE_EXAMPLES", "1"))
"""Multiplier of the number of examples; `make fuzz` sets it."""


def examples(count: int) -> settings:
    """Return settings with this many examples, scaled, and without deadlines."""
    return settings(
        max_examples=count * LONGER,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def places(value: object) -> Iterator[tuple[Any, Any]]:
    """Yield every container in a JSON value with each of its keys or indexes."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])  # type: ignore[index]  # only containers have keys


def place(draw: st.DrawFn, value: object) -> tuple[Any, Any]:
    """Draw a place. Each name is equally likely, however often it occurs; list items count as one name."""
    found = list(places(value))
    names = list(dict.fromkeys(key if isinstance(key, str) else "" for _, key in found))
    name = draw(st.sampled_from(names))
    alike = [at for at in found if at[1] == name or (not name and isinstance(at[1], int))]
    container, key = draw(st.sampled_from(alike))
    return container, key
