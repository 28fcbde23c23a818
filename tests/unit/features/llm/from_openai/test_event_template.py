"""Event templates change neither the bytes, the failure nor the token count of a stream."""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from app.core.lifecycle import Lifecycle
from app.core.redaction import Redactor
from app.core.request_record import RequestRecord, begin_record
from app.core.tokenization import encoding
from app.features.llm.completions.from_chat import CompletionTranslator
from app.features.llm.completions.to_chat import Prompt
from app.features.llm.from_openai.chunk_translator import ChunkTranslator
from app.features.llm.from_openai.event_template import TemplateCache
from app.features.llm.from_openai.openai_chunks import checked_chunk, token_counts
from app.features.llm.from_openai.plan import Envelope, ResponsePlan
from app.features.llm.from_openai.stream import ChatStream, Render
from app.features.llm.from_openai.tokens import TokenOptions
from app.features.llm.from_openai.usage_meter import UsageMeter
from app.features.llm.schema import CompletionRequest, JSONObject
from app.upstream.sdk_errors import says_error
from app.upstream.sse import encode_events
from app.upstream.upstream_response import UpstreamResponse
from tests.raw_upstream import request
from tests.unit.features.llm.from_openai.test_stream_damage import Pieces

O200K = encoding("o200k_base")


@dataclass
class Outcome:
    """Everything observable of a stream."""

    made: bytes = b""
    failure: str = ""
    tokens: int = 0


@dataclass(frozen=True)
class Asked:
    """A request and its response plan. Each stream needs a new translator."""

    fields: JSONObject
    plan: Callable[[], ResponsePlan] = ResponsePlan
    completion: JSONObject | None = None

    def translator(self) -> ChunkTranslator:
        return ChunkTranslator(request(stream=True, **self.fields), self.plan())

    def render(self) -> Render:
        if self.completion is None:
            return encode_events
        prompts = [Prompt("once", [1]), Prompt("twice", [2, 3])]
        translator = CompletionTranslator(CompletionRequest(prompt=["once", "twice"], **self.completion), "m", prompts)
        translator._head |= {"id": "cmpl-1", "created": 1}  # else random, and the time
        return lambda chunks: translator.events(1, chunks)


async def with_templates(asked: Asked, pieces: Sequence[bytes]) -> Outcome:
    record = RequestRecord()
    begin_record(record)
    stream = ChatStream(
        cast("UpstreamResponse", Pieces(pieces)),
        asked.translator(),
        redactor=Redactor(()),
        lifecycle=Lifecycle(),
        usage_meter=UsageMeter(b""),
        render=asked.render(),
    )
    outcome = Outcome()
    try:
        async for events in stream:
            outcome.made += events
    except openai.APIError as exc:
        outcome.failure = f"{type(exc)} {exc} {exc.body}"
    await stream.aclose()
    outcome.tokens = record.tokens_used
    return outcome


def one_by_one(asked: Asked, stream: bytes) -> Outcome:
    """The reference: each event is decoded, translated and encoded separately."""
    translator, render, outcome = asked.translator(), asked.render(), Outcome()
    events, told = 0, None
    try:
        for event in stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n")[:-1]:
            lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
            if lines == [b"[DONE]"]:
                outcome.failure = "" if translator.finished else CUT_SHORT
                break
            if lines:
                said = from_json(b"\n".join(lines), allow_inf_nan=False)
                if says_error(said):
                    outcome.failure = f"{openai.APIError} {BROKEN} {said.get('error') or said}"
                    break
                chunk = checked_chunk(said)
                events += 1
                if counts := token_counts(chunk["usage"]):
                    told = counts["total_tokens"]
                outcome.made += render(translator.chunks(chunk))
            if translator.complete:
                break
        else:
            outcome.failure = CUT_SHORT
    except ValueError:
        outcome.failure = NOT_UNDERSTOOD
    outcome.tokens = events if told is None else told
    return outcome


BROKEN = "The upstream service failed during the stream."
CUT_SHORT = f"{openai.APIConnectionError} The upstream service ended the stream before the answer was complete. {None}"
NOT_UNDERSTOOD = f"{openai.APIResponseValidationError} Data returned by API invalid for expected schema. {None}"


HEAD = '"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m"'
CHOICE = '{"index":0,"delta":{"content":"~"},"logprobs":null,"finish_reason":null}'
PLAIN = f'{{{HEAD},"choices":[{CHOICE}],"usage":null}}'
"""Events as OpenAI sends them, with a tilde in place of the text."""

FORMS = {
    "plain": PLAIN,
    "spaces": json.dumps(json.loads(PLAIN)),
    "another id": PLAIN.replace("chatcmpl-1", "chatcmpl-2"),
    "later": PLAIN.replace('"created":1', '"created":2'),
    "a role in each": PLAIN.replace('{"content"', '{"role":"assistant","content"'),
    "a null refusal": PLAIN.replace('"~"', '"~","refusal":null'),
    "a refusal": PLAIN.replace('"content"', '"refusal"'),
    "both": PLAIN.replace('"~"', '"~","refusal":"No."'),
    "null": PLAIN.replace('"~"', "null"),
    "a number": PLAIN.replace('"~"', "7"),
    "an unknown key": PLAIN.replace('"~"', '"~","reasoning":"hm"'),
    "ends": PLAIN.replace('"finish_reason":null', '"finish_reason":"stop"'),
    "length": PLAIN.replace('"finish_reason":null', '"finish_reason":"length"'),
    "another choice": PLAIN.replace('"index":0', '"index":1'),
    "a choice like 0": PLAIN.replace('"index":0', '"index":false'),
    "two choices": PLAIN.replace("}],", '},{"index":1,"delta":{"content":"~"}}],'),
    "no choice": PLAIN.replace("[{", '[],"then":[{'),
    "usage": PLAIN.replace('"usage":null', '"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}'),
    "more usage": PLAIN.replace('"usage":null', '"usage":{"prompt_tokens":1,"completion_tokens":3,"total_tokens":4}'),
    "usage of another shape": PLAIN.replace('"usage":null', '"usage":{"total":3}'),
    "log probabilities": PLAIN.replace(
        '"logprobs":null', '"logprobs":{"content":[{"token":"a","logprob":-1,"bytes":[97],"top_logprobs":[]}]}'
    ),
    "empty log probabilities": PLAIN.replace('"logprobs":null', '"logprobs":{"content":[]}'),
    "ids": PLAIN.replace('"logprobs":null', '"token_ids":[1]'),
    "calls": PLAIN.replace('"content":"~"', '"tool_calls":[{"index":0,"function":{"arguments":"~"}}]'),
    "calls another": PLAIN.replace('"content":"~"', '"tool_calls":[{"index":1,"function":{"arguments":"~"}}]'),
    "text and calls": PLAIN.replace('"content":"~"', '"content":"~","tool_calls":[]'),
    "the text twice": PLAIN.replace('"content":"~"', '"content":"~","content":"a"'),
    "the text twice, first last": PLAIN.replace('"content":"~"', '"content":"a","content":"~"'),
    "the text twice, with a space": PLAIN.replace('"content":"~"', '"content":"~","content" : "a"'),
    "the text twice, once escaped": PLAIN.replace('"content":"~"', '"content":"~","\\u0063ontent":"a"'),
    "a delta twice": PLAIN.replace('"delta":', '"delta":{"content":"~"},"d\\u0065lta":'),
    "the choices twice": PLAIN.replace('"usage":null', '"choices":[{"index":0,"delta":{"content":"a"}}]'),
    "an escaped name": PLAIN.replace('"content"', '"conten\\u0074"'),
    "an escaped name and another": PLAIN.replace('"content":"~"', '"conten\\u0074":"a"').replace(
        "null}]", 'null,"text":"~"}]'
    ),
    "always a, on two lines": PLAIN.replace('"content":"~"', '"content":\ndata: "a"'),
    "a text elsewhere": PLAIN.replace('"usage":null', '"text":"~"'),
    "a text as a name": PLAIN.replace('"usage":null', '"~":1'),
    "a name that ends so": PLAIN.replace('"usage":null', '"a\\"content":"~"'),
    "a model of that name": PLAIN.replace('"m"', '"content"'),
    "an object as id": PLAIN.replace('"chatcmpl-1"', '{"content":"~"}'),
    "an error": '{"error":{"message":"~"}}',
    "no error": PLAIN.replace('"usage":null', '"error":null'),
    "a list": '["~"]',
    "no JSON": PLAIN[:-1],
    "a key too many": PLAIN + "}",
    "NaN": PLAIN.replace('"usage":null', '"usage":NaN'),
    "done": "[DONE]",
}
FRAMES = {
    "as OpenAI does": "data: {}\n\n",
    "without a space": "data:{}\n\n",
    "with a name": "event: chunk\ndata: {}\n\n",
    "named after": "data: {}\nid: 7\n\n",
    "two lines": "data: {}\ndata:  \n\n",
    "a comment with a text": ': "content":"a"\ndata: {}\n\n',
    "a comment with the text": ': "content":"~"\ndata: {}\n\n',
    "a comment with no text": ': "content":"\\x"\ndata: {}\n\n',
    "a comment before": ': {"content":"a"}\n\ndata: {}\n\n',
    "an empty line too many": "data: {}\n\n\n",
    "CRLF": "data: {}\r\n\r\n",
}
BODIES = [
    *(b"", b"a", b" seagull", b"x", b"axb", b"\\n", b"\\n\\n", b"\\r\\n", b"\\t", b"\\b\\f", b'\\"', b"\\\\"),
    *(b"\\\\\\", b"\\\\\\\\", b"\\", b"\\u0041", b"\\u001b", b"\\u001F", b"\\u000a", b"\\/", b"/", b"\\x", b"\\u12"),
    *(b"\\ud83d\\ude00", b"\\ud800", b"\\udc00", b"\\ud83d", b"\x7f", b"\x01", b"\x00", b"\t", b"\n", b"\r", b"\x1f"),
    *("안녕".encode(), "日本語".encode(), "🎉".encode(), "é".encode(), "\u2028".encode(), b"\xff", b"\xc3", b"\xa9"),
    *(b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x80", b"\xef\xbb\xbf", "\uffff".encode()),
    *(b"~", b"{", b"}", b"[DONE]", b"data: ", b"null", b"'", b"<&>", b'\\"content\\":\\"b\\"', b'"content":"b"'),
    *(b'","logprobs":null', b'\\"},\\"logprobs\\":null', b'"},"logprobs":null', b'a","content":"b', b'"', b'a"b'),
]


def written(form: str, frame: str, *texts: bytes) -> bytes:
    around = FRAMES[frame].replace("{}", FORMS[form]).encode()
    return b"".join(around.replace(b"~", text) for text in texts)


def tokens(**shown: Any) -> Callable[[], ResponsePlan]:
    return lambda: ResponsePlan(tokens=TokenOptions(O200K, **shown), prompt_ids=[1, 2])


USAGE = {"stream_options": {"include_usage": True}}
ASKED = {
    "a chat": Asked({}),
    "with usage": Asked(USAGE),
    "under an id with quotes": Asked({"request_id": 'a"content":"안녕', **USAGE}),
    "two choices": Asked({"n": 2}),
    "after an echo": Asked({}, lambda: ResponsePlan(echo="once ")),
    "one call": Asked({}, lambda: ResponsePlan(one_tool_call=True)),
    "a stop": Asked({}, lambda: ResponsePlan(stops=("x",))),
    "wrapped": Asked({}, lambda: ResponsePlan(envelope=Envelope.TEXT)),
    "ids": Asked({}, tokens(shows_ids=True)),
    "counted": Asked(USAGE, tokens(counts_in_chunks=True)),
    "a text": Asked({}, completion={}),
    "a text with ids": Asked(USAGE, tokens(shows_ids=True), completion={"return_token_ids": True}),
    "a text whose prompt has ids": Asked({}, completion={"return_token_ids": True}),
    "a text with its prompt": Asked({}, completion={"echo": True, "n": 2}),
}

BEGIN = written("plain", "as OpenAI does", b"").replace(b'"content"', b'"role":"assistant","content"')
END = written("ends", "as OpenAI does", b"").replace(b'"content":""', b"") + b"data: [DONE]\n\n"

bodies = st.lists(st.sampled_from(BODIES) | st.text(st.characters(codec="utf-8")).map(lambda text: to_json(text)[1:-1]))
texts = st.lists(bodies.map(b"".join), max_size=6)
common = st.tuples(st.just("plain"), st.just("as OpenAI does"))
runs = st.tuples(common | st.tuples(st.sampled_from(sorted(FORMS)), st.sampled_from(sorted(FRAMES))), texts).map(
    lambda run: written(*run[0], *run[1])
)
streams = st.lists(runs, max_size=6).map(lambda parts: b"".join([BEGIN, *parts, END]))


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    places = sorted(places)
    return [stream[start:end] for start, end in itertools.pairwise([0, *places, len(stream)])]


def assert_templates_change_nothing(asked: Asked, *streams: bytes, places: Iterable[int] = ()) -> None:
    async def each_with_templates() -> list[Outcome]:
        return [await with_templates(asked, cut(stream, places)) for stream in streams]

    assert asyncio.run(each_with_templates()) == [one_by_one(asked, stream) for stream in streams]


@given(st.sampled_from(sorted(ASKED)), streams, st.data())
def test_templates_do_not_change_a_stream(asked: str, stream: bytes, data: st.DataObject) -> None:
    assert_templates_change_nothing(
        ASKED[asked], stream, places=data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    )


@pytest.mark.parametrize("form", FORMS)
def test_templates_do_not_change_any_text_in_any_form(form: str) -> None:
    streams = (written(form, "as OpenAI does", b"a", b"a", b"b", text, b"b") for text in BODIES)
    assert_templates_change_nothing(ASKED["a chat"], *(BEGIN + stream + END for stream in streams))


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_templates_do_not_change_any_text_with_any_plan(asked: Asked) -> None:
    streams = (written("plain", "as OpenAI does", b"a", b"a", b"b", text, b"b") for text in BODIES)
    assert_templates_change_nothing(asked, *(BEGIN + stream + END for stream in streams))


@pytest.mark.parametrize("form", FORMS)
def test_templates_do_not_change_other_events_in_between(form: str) -> None:
    streams = []
    for other in FORMS:
        runs = [(form, b"a"), (form, b"a"), (other, b"a"), (form, b"b"), ("plain", b"b")]
        streams.append(b"".join([written(name, "as OpenAI does", text) for name, text in runs]))
    assert_templates_change_nothing(ASKED["with usage"], *(BEGIN + stream + END for stream in streams))


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("asked", ["with usage", "a text with ids"])
def test_templates_do_not_change_any_form_in_any_frame(frame: str, asked: str) -> None:
    streams = []
    for form in FORMS:
        taught = written("plain", frame, b"a", b"a") + written(form, frame, b"a", b"a")
        streams.append(BEGIN + taught + written(form, frame, b"b") + written("plain", frame, b"b") + END)
    assert_templates_change_nothing(ASKED[asked], *streams)


BEFORE, AFTER = PLAIN.split("~")


def event_of(text: bytes) -> bytes:
    return b"data: %b%b%b" % (BEFORE.encode(), text, AFTER.encode())


def teach(templates: TemplateCache, event: bytes, text: str) -> None:
    templates.learn(event, b'data: {"content":%b}\n\n' % to_json(text), text)


def taught(*texts: str) -> TemplateCache:
    templates = TemplateCache()
    for text in texts:
        teach(templates, event_of(text.encode()), text)
    return templates


def test_a_template_is_used_after_two_equal_ones() -> None:
    events = (event_of(b"c") + b"\n\n") * 2

    assert taught("a").render(events, 0) is None
    assert taught("a", "b").render(events, 0) == (b'data: {"content":"c"}\n\n' * 2, 2, len(events))


@pytest.mark.parametrize("change", [(b'"created":1', b'"created":2'), (b'"usage":null', b'"usage":{}')])
def test_changed_events_give_a_new_template(change: tuple[bytes, bytes]) -> None:
    templates = taught("a", "b")
    changed = event_of(b"c").replace(*change)
    for _ in range(2):
        assert templates.render(changed + b"\n\n", 0) is None
        teach(templates, changed, "c")

    assert templates.render(changed + b"\n\n", 0)


def test_an_event_without_the_text_gives_no_template() -> None:
    templates = TemplateCache()
    for _ in range(2):
        templates.learn(event_of(b"a"), b'data: {"content":"A"}\n\n', "a")

    assert templates.render(event_of(b"a") + b"\n\n", 0) is None


def test_rendering_ends_before_the_first_event_that_does_not_fit() -> None:
    fits, other = event_of(b"c") + b"\n\n", event_of(b"\\/") + b"\n\n"
    templates = taught("a", "b")

    assert templates.render(fits + other + fits, 0) == (b'data: {"content":"c"}\n\n', 1, len(fits))
    assert templates.render(fits + other + fits, len(fits)) is None
    assert templates.render(fits[:-1], 0) is None


def test_only_text_that_is_encoded_unchanged_fits() -> None:
    templates = taught("a", "b")
    leads = [*range(256)]
    places = b"\x00\x1f\x22\x2f\x5c\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xe0\xff"
    pairs = [bytes(pair) for pair in itertools.product(leads, leads)]
    longer = [bytes(each) for each in itertools.product(b"\x61\xe0\xe1\xec\xed\xee\xef", places, places)]
    longest = [bytes(each) for each in itertools.product(b"\xf0\xf1\xf3\xf4\xf5", places, places, b"\x7f\x80\xbf\xc0")]
    for text in [*pairs, *longer, *longest]:
        rendered = templates.render(event_of(text) + b"\n\n", 0)
        assert (rendered is not None) == stands(text), text
        assert rendered is None or rendered[0] == b'data: {"content":"%b"}\n\n' % text


def stands(text: bytes) -> bool:
    try:
        return bool(to_json(from_json(b'"%b"' % text)) == b'"%b"' % text)
    except ValueError:
        return False
