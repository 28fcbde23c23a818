"""Events that differ in nothing but their text, made from what earlier ones became, without I/O.

Nearly all events of a stream are of that kind, and to decode, translate and encode each is most of what it costs. So
what stands around the text is remembered, in OpenAI's event and in what was made of it: a mould. It is filled with the
text's own bytes. docs/decisions/0006 says why the client cannot tell.
"""

import re
from typing import NamedTuple

from pydantic_core import from_json

_TEXT = re.compile(rb'("(?:content|text)"\s*+:\s*+")((?:[^"\\\x00-\x1f]++|\\.)*+)(?=")')
"""A string under the name that texts have: in a chat's chunk the one, in a text completion's the other."""

_AS_IT_STANDS = re.compile(
    rb"""(?:
      [\x20\x21\x23-\x5b\x5d-\x7f]++ | \\["\\bfnrt]
    | [\xc2-\xdf][\x80-\xbf]
    | \xe0[\xa0-\xbf][\x80-\xbf] | \xed[\x80-\x9f][\x80-\xbf] | [\xe1-\xec\xee\xef][\x80-\xbf]{2}
    | \xf0[\x90-\xbf][\x80-\xbf]{2} | [\xf1-\xf3][\x80-\xbf]{3} | \xf4[\x80-\x8f][\x80-\xbf]{2}
    )*+""",
    re.VERBOSE,
).match
"""As much of a JSON string as would be written the way it is: UTF-8, and the escapes that have no shorter form."""

PATIENCE = 8
"""After so many events in a row that are all different no more are looked at: to learn from one costs as much as it."""

Rendered = tuple[bytes, int, int]
"""Events, how many they are, and where in the bytes they were made of the next one begins."""


class Mould(NamedTuple):
    """What stands before and after the text, in an event with its end and in what was made of it."""

    before: bytes
    after: bytes
    made_before: bytes
    made_after: bytes


class TemplateCache:
    """The mould of one stream, once two events of it have given the same."""

    def __init__(self) -> None:
        self._last: Mould | None = None
        self._mould: Mould | None = None
        self._patience = PATIENCE

    def learn(self, event: bytes, made: bytes, text: str) -> None:
        """`event`, given without the empty line that ends it, became `made`, where all but `text` is the stream's."""
        if not self._patience or self._fits(event):
            return
        mould = _mould(event, made, text)
        self._patience -= 1
        if mould and mould == self._last:
            # Whatever the first event of a choice has of its own is not in the second.
            self._mould, self._patience = mould, PATIENCE
        self._last = mould

    def _fits(self, event: bytes) -> bool:
        """Whether it is but for its text."""
        mould = self._mould
        if mould is None:
            return False
        return event.startswith(mould.before) and event.endswith(mould.after.removesuffix(b"\n\n"))

    def render(self, events: bytes, at: int) -> Rendered | None:
        """What the events from `at` on become, up to the first that does not fit; None if that is the one at `at`."""
        if self._mould is None:
            return None
        before, after, made_before, made_after = self._mould
        opening, closing = len(before), len(after)
        texts = []
        while events.startswith(before, at):
            begin = at + opening
            text = _AS_IT_STANDS(events, begin)
            if text is None or not events.startswith(after, end := text.end()):
                break
            texts.append(events[begin:end])
            at = end + closing
        if not texts:
            return None
        return made_before + (made_after + made_before).join(texts) + made_after, len(texts), at


def _mould(event: bytes, made: bytes, text: str) -> Mould | None:
    # What looks like a text in several lines may be in a comment.
    around = None if b"\n" in event else _around(b"%b\n\n" % event, text)
    made_around = _around(made, text)
    # A name with an escape may be that of another text.
    if around is None or made_around is None or b"\\" in b"".join(around):
        return None
    return Mould(*around, *made_around)


def _around(event: bytes, text: str) -> tuple[bytes, bytes] | None:
    """What stands before and after `text`, if it is there and nothing else has such a name."""
    pieces = _TEXT.split(event)
    if len(pieces) != 4 or from_json(b'"%b"' % pieces[2]) != text:
        return None
    return pieces[0] + pieces[1], pieces[3]
