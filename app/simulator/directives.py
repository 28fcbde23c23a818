"""What a request asks of the simulator itself: ``[sim key=value …]`` in the text of any of its messages."""

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
    """How this one request is to be answered; None leaves it to the simulator's own settings.

    ``tokens`` is the answer's length; ``after`` counts the events of a stream before a fault shows, where None means
    the fault's own default; ``seconds`` is how long a fault lasts; ``retry_after`` is in seconds; ``should_retry`` is
    what an error's header of that name says. The fault is for the first ``times`` of equal requests, and for the key
    that ends in ``key``.
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
    # "nan" and "inf" are numbers to Python and durations to nobody; a day outlasts every test.
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


READERS: Mapping[str, Callable[[str], Any]] = {
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


def read(texts: Iterable[str]) -> Directive:
    """Return what all directives in ``texts`` say together; a later one wins.

    Raises:
        OpenAIError: 400, naming a key, a fault or a value the simulator does not know.
    """
    directive = Directive()
    for text in texts:
        for words in DIRECTIVE.findall(text):
            directive = replace(directive, **dict(_pair(word) for word in words.split()))
    return directive


def without(text: str) -> str:
    """Return ``text`` with its directives removed."""
    return DIRECTIVE.sub("", text)


def _pair(word: str) -> tuple[str, Any]:
    key, _, value = word.partition("=")
    if key not in READERS:
        raise _unknown(word)
    try:
        return key, READERS[key](value)
    except ValueError as error:
        raise _unknown(word) from error


def _unknown(word: str) -> OpenAIError:
    return bad_request(f"The simulator does not know '{word}'.", param="messages", code="unknown_directive")
