"""Translate events that differ only in their text by a template learned from earlier ones, without I/O.

Nearly all events of a stream differ only in their text, and decoding, translating and encoding each is most of its
cost. So an event template keeps the bytes around the text, of OpenAI's event and of its translation, and the next
event's text is copied between them. docs/decisions/0006 says why the client sees no difference.
"""

import re
from typing import NamedTuple

from pydantic_core import from_json

_TEXT = re.compile(rb'("(?:content|text)"\s*+:\s*+")((?:[^"\\\x00-\x1f]++|\\.)*+)(?=")')
"""A text with its key: `content` in a chat completion's chunk, `text` in a text completion's."""

_UNCHANGED_TEXT = re.compile(
    rb"""(?:
      [\x20\x21\x23-\x5b\x5d-\x7f]++ | \\["\\bfnrt]
    | [\xc2-\xdf][\x80-\xbf]
    | \xe0[\xa0-\xbf][\x80-\xbf] | \xed[\x80-\x9f][\x80-\xbf] | [\xe1-\xec\xee\xef][\x80-\xbf]{2}
    | \xf0[\x90-\xbf][\x80-\xbf]{2} | [\xf1-\xf3][\x80-\xbf]{3} | \xf4[\x80-\x8f][\x80-\xbf]{2}
    )*+""",
    re.VERBOSE,
).match
"""The part of a JSON string that our encoder would write the same: UTF-8, and escapes without a shorter form."""

PATIENCE = 8
"""Events in a row that may give no template. After them learning stops, because it costs as much as translating."""

Rendered = tuple[bytes, int, int]
"""The translated events, their number, and the offset of the next event in the input."""


class EventTemplate(NamedTuple):
    """The bytes before and after the text, of an event with its end and of its translation."""

    before: bytes
    after: bytes
    rendered_before: bytes
    rendered_after: bytes


class TemplateCache:
    """The event template of one stream, used once two events in a row have given the same."""

    def __init__(self) -> None:
        self._last: EventTemplate | None = None
        self._template: EventTemplate | None = None
        self._patience = PATIENCE

    def learn(self, event: bytes, rendered: bytes, text: str) -> None:
        """Learn from `event`, without its final empty line, which was translated to `rendered` and has `text`."""
        if not self._patience or self._fits(event):
            return
        template = _template(event, rendered, text)
        self._patience -= 1
        if template and template == self._last:
            # The first event of a choice has more, such as the role, so one event is not enough.
            self._template, self._patience = template, PATIENCE
        self._last = template

    def _fits(self, event: bytes) -> bool:
        """Whether the event differs from the template only in its text."""
        template = self._template
        if template is None:
            return False
        return event.startswith(template.before) and event.endswith(template.after.removesuffix(b"\n\n"))

    def render(self, events: bytes, at: int) -> Rendered | None:
        """Translate the events from `at` up to the first that does not fit; None if the one at `at` does not."""
        if self._template is None:
            return None
        before, after, rendered_before, rendered_after = self._template
        opening, closing = len(before), len(after)
        texts = []
        while events.startswith(before, at):
            begin = at + opening
            text = _UNCHANGED_TEXT(events, begin)
            if text is None or not events.startswith(after, end := text.end()):
                break
            texts.append(events[begin:end])
            at = end + closing
        if not texts:
            return None
        return rendered_before + (rendered_after + rendered_before).join(texts) + rendered_after, len(texts), at


def _template(event: bytes, rendered: bytes, text: str) -> EventTemplate | None:
    # In an event of several lines, a match may be in a comment.
    around = None if b"\n" in event else _around(b"%b\n\n" % event, text)
    rendered_around = _around(rendered, text)
    # A key with an escape may be `content` or `text` too.
    if around is None or rendered_around is None or b"\\" in b"".join(around):
        return None
    return EventTemplate(*around, *rendered_around)


def _around(event: bytes, text: str) -> tuple[bytes, bytes] | None:
    """Return the bytes before and after `text`; None unless it is the only match."""
    pieces = _TEXT.split(event)
    if len(pieces) != 4 or from_json(b'"%b"' % pieces[2]) != text:
        return None
    return pieces[0] + pieces[1], pieces[3]
