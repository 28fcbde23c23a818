"""Decoding and encoding of server-sent events, however the network cuts the bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.upstream.sse import BOM, EventDecoder, encode_events, event_data


def decoded(*pieces: bytes) -> list[bytes]:
    """The data of each event in `pieces`."""
    decoder = EventDecoder()
    events = b"".join([decoder.feed(piece) for piece in pieces]).split(b"\n\n")
    return [data for event in events if (data := event_data(event)) is not None]


STREAMS = [
    pytest.param(b"data: 1\n\ndata: 2\n\n", [b"1", b"2"], id="two events"),
    pytest.param(b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b"1", b"2"], id="CRLF"),
    pytest.param(b"data: 1\r\rdata: 2\r\r", [b"1", b"2"], id="CR"),
    pytest.param(b"data: 1\r\n\ndata: 2\n\r\n", [b"1", b"2"], id="mixed line ends"),
    pytest.param(b": ping\n\ndata: 1\n\n: ping\n\n", [b"1"], id="comments"),
    pytest.param(b"event: x\nid: 7\ndata: 1\nretry: 3\n\n", [b"1"], id="other fields"),
    pytest.param(b"data: a\ndata: b\n\n", [b"a\nb"], id="two lines of data"),
    pytest.param(b"data:1\n\ndata:  2\n\n", [b"1", b" 2"], id="one leading space is removed"),
    pytest.param(b"\n\n\ndata: 1\n\n\n\n", [b"1"], id="empty lines"),
    pytest.param("data: 안녕 🎉\n\n".encode(), ["안녕 🎉".encode()], id="UTF-8"),
    pytest.param(b"data: 1\n\ndata: 2\n", [b"1"], id="incomplete last event"),
    pytest.param(b"data: \n\n", [b""], id="empty data"),
    pytest.param(b"data: a\r\ndata: b\r\n\r\n", [b"a\nb"], id="two lines of data with CRLF"),
    pytest.param(BOM + b"data: 1\n\n", [b"1"], id="byte order mark"),
    pytest.param(b"data: 1\n\n" + BOM + b"data: 2\n\n", [b"1"], id="byte order mark after the start"),
]


@pytest.mark.parametrize(("stream", "expected"), STREAMS)
def test_events_are_decoded(stream: bytes, expected: list[bytes]) -> None:
    assert decoded(stream) == expected


@pytest.mark.parametrize(("stream", "expected"), STREAMS)
def test_events_cut_anywhere_are_decoded(stream: bytes, expected: list[bytes]) -> None:
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1):
            assert decoded(stream[:first], stream[first:second], stream[second:]) == expected


@given(st.lists(st.sampled_from([b"data: a", b"data:b", b": c", b"\n", b"\r", b"\r\n", b"\n\n"])), st.data())
def test_decoding_does_not_depend_on_the_cuts(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert decoded(*pieces) == decoded(stream)


def test_events_are_encoded_as_lines_of_compact_json() -> None:
    events = encode_events([{"a": 1, "b": [None, "\n\n"]}, {"a": 'é"\x1b'}])

    assert events.decode() == 'data: {"a":1,"b":[null,"\\n\\n"]}\n\ndata: {"a":"é\\"\\u001b"}\n\n'
    assert encode_events([]) == b""
