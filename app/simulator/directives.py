"""Directives to the simulator: ``[sim key=value …]`` in the text of any message."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.simulator.errors import OpenAIError, bad_request

DIRECTIVE = re.compile(r"\[sim( [^\]]*|)\]")

FAULT_LIST = (
    "rate_limit quota server_error bad_gateway overloaded status not_json empty slow stall cut no_done early_end "
    "error_event bad_event reset crlf dribble"
)
FAULTS = frozenset(FAULT_LIST.split())


@dataclass(frozen=True)
class Directive:
    """The directives of one request; None means the simulator's default.

    ``tokens`` is the length of the text; ``after`` is the number of events before a stream's fault; ``seconds`` is how
    long a fault lasts; ``retry_after`` is in seconds; ``should_retry`` is the error's ``X-Should-Retry``. The fault
    applies to the first ``times`` equal requests, and only to keys that end in ``key``.
    """

    fault: str | None = None
    tokens: int | None = None
    ttft: float | None = None
    itl: float | None = None
    after: int | None = None
    seconds: float = 30.0
    retry_after: float | None = None
    should_retry: str | None = None
    status: int = 500
    times: int | None = None
    key: str = ""


def _fault(word: str) -> str:
    if word not in FAULTS:
        raise ValueError(word)
    return word


def _count(word: str) -> int:
    if not word.isdecimal():
        raise ValueError(word)
    return int(word)


def _duration(word: str) -> float:
    seconds = float(word)
    # float() accepts "nan" and "inf", which are no durations.
    if not 0 <= seconds <= 86_400:
        raise ValueError(word)
    return seconds


def _status(word: str) -> int:
    status = int(word)
    if not 200 <= status <= 599:
        raise ValueError(word)
    return status


def _flag(word: str) -> str:
    if word not in {"true", "false"}:
        raise ValueError(word)
    return word


PARSERS: Mapping[str, Callable[[str], Any]] = {
    "fault": _fault,
    "tokens": _count,
    "ttft": _duration,
    "itl": _duration,
    "after": _count,
    "seconds": _duration,
    "retry_after": _duration,
    "should_retry": _flag,
    "status": _status,
    "times": _count,
    "key": str,
}


def parse(texts: Iterable[str]) -> Directive:
    """Return the directives in ``texts`` combined; later ones win.

    Raises:
        OpenAIError: 400 that names an unknown key, fault or value.
    """
    directive = Directive()
    for text in texts:
        for words in DIRECTIVE.findall(text):
            directive = replace(directive, **dict(_pair(word) for word in words.split()))
    return directive


def remove_from(text: str) -> str:
    """Return ``text`` with its directives removed."""
    return DIRECTIVE.sub("", text)


def _pair(word: str) -> tuple[str, Any]:
    key, _, value = word.partition("=")
    if key not in PARSERS:
        raise _unknown(word)
    try:
        return key, PARSERS[key](value)
    except ValueError as error:
        raise _unknown(word) from error


def _unknown(word: str) -> OpenAIError:
    return bad_request(f"The simulator does not know '{word}'.", param="messages", code="unknown_directive")
