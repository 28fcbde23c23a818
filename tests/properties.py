"""How long the property-based tests of the whole server try, and what more than one of them draws."""

import os
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

LONGER = int(os.environ.get("MORE_EXAMPLES", "1"))
"""How many times as many examples as a test run has time for: `make fuzz` takes it."""


def examples(count: int) -> settings:
    """As many examples as a file of a minute allows; how long each takes is not the question."""
    return settings(
        max_examples=count * LONGER,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def places(value: object) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys or indexes."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])  # type: ignore[index]  # only containers have keys


def place(draw: st.DrawFn, value: object) -> tuple[Any, Any]:
    """One of them. Each name is as likely as any other, however often it is there; all of a list's items are one."""
    found = list(places(value))
    names = list(dict.fromkeys(key if isinstance(key, str) else "" for _, key in found))
    name = draw(st.sampled_from(names))
    alike = [at for at in found if at[1] == name or (not name and isinstance(at[1], int))]
    container, key = draw(st.sampled_from(alike))
    return container, key
