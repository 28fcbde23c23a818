"""Token ids, stop tokens and token counts of responses and streams."""

import json
from typing import Any

import pytest

from app.core.tokenization import encoding
from app.features.llm.from_openai.chat_completion import chat_completion
from app.features.llm.from_openai.chunk_translator import ChunkTranslator
from app.features.llm.from_openai.openai_chunks import checked_chunk
from app.features.llm.from_openai.plan import Envelope, ResponsePlan
from app.features.llm.from_openai.tokens import TokenOptions
from tests.unit.features.llm.from_openai.test_chat_completion import FIRST, USAGE, event, request, token, upstream

O200K = encoding("o200k_base")
HI, THERE, YOU = O200K.encode("Hi"), O200K.encode(" there"), O200K.encode(" you")
PARTY = O200K.encode("\N{PARTY POPPER}")


def plan_of(stops: frozenset[int] = frozenset(), *, include_stop: bool = False, **tokens: bool) -> ResponsePlan:
    return ResponsePlan(tokens=TokenOptions(O200K, stops, **tokens), prompt_ids=[1, 2, 3], include_stop=include_stop)


def entries(*ids: int) -> list[dict[str, Any]]:
    raw = [O200K.token_bytes(id_) or b"" for id_ in ids]
    return [{**token(""), "token": str(one), "bytes": list(one)} for one in raw]


def whole(ids: list[int], read: ResponsePlan, **choice: Any) -> dict[str, Any]:
    logprobs = {"content": entries(*ids), "refusal": None}
    body = upstream({"content": O200K.decode(ids)}, logprobs=logprobs, **choice)
    answer: dict[str, Any] = json.loads(chat_completion(request(), read, body).model_dump_json())
    return answer


def streamed(*events: dict[str, Any], read: ResponsePlan, **fields: Any) -> list[dict[str, Any]]:
    translator = ChunkTranslator(request(stream=True, **fields), read)
    return [json.loads(json.dumps(chunk)) for one in events for chunk in translator.chunks(checked_chunk(one))]


def token_event(text: str, *ids: int, **choice: Any) -> dict[str, Any]:
    return event({"content": text}, logprobs={"content": entries(*ids), "refusal": None}, **choice)


def test_a_response_has_the_ids_of_its_hidden_logprobs() -> None:
    answer = whole([*HI, *PARTY], plan_of(shows_ids=True, hides_logprobs=True))

    assert answer["prompt_token_ids"] == [1, 2, 3]
    assert answer["choices"][0]["token_ids"] == [*HI, *PARTY]
    assert answer["choices"][0]["logprobs"] is None


def test_without_logprobs_the_text_is_encoded() -> None:
    choice = json.loads(
        chat_completion(request(), plan_of(shows_ids=True), upstream({"content": "Hi there"})).model_dump_json()
    )["choices"][0]

    assert choice["token_ids"] == [*HI, *THERE]


def test_an_enveloped_response_has_the_ids_of_its_value() -> None:
    read = plan_of(shows_ids=True)
    read.envelope = Envelope.TEXT
    answer = chat_completion(request(), read, upstream({"content": '{"value":"Hi there"}'}))

    assert answer.choices[0].token_ids == [*HI, *THERE]


def test_tool_calls_have_no_ids() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    answer = chat_completion(request(), plan_of(shows_ids=True), upstream({"content": None, "tool_calls": [call]}))

    assert answer.choices[0].token_ids is None


def test_bytes_that_are_not_a_token_have_the_ids_of_their_text() -> None:
    body = upstream({"content": "Hi there"}, logprobs={"content": [token("Hi there")]})

    assert chat_completion(request(), plan_of(shows_ids=True), body).choices[0].token_ids == [*HI, *THERE]


def test_an_entry_without_bytes_has_the_ids_of_its_text() -> None:
    body = upstream({"content": "Hi"}, logprobs={"content": [{**token("Hi"), "bytes": None}]})

    assert chat_completion(request(), plan_of(shows_ids=True), body).choices[0].token_ids == HI


def test_part_of_a_character_has_its_id_without_text() -> None:
    first, *rest = PARTY
    chunks = streamed(
        event(FIRST), token_event("", first), token_event("\N{PARTY POPPER}", *rest), event({}, "stop"),
        read=plan_of(shows_ids=True, hides_logprobs=True),
    )  # fmt: skip

    assert chunks[0]["prompt_token_ids"] == [1, 2, 3]
    shown = [(chunk["choices"][0]["delta"], chunk["choices"][0]["token_ids"]) for chunk in chunks[1:]]
    assert shown == [({"content": ""}, [first]), ({"content": "\N{PARTY POPPER}"}, rest), ({"content": ""}, [])]
    assert all(chunk["choices"][0]["logprobs"] is None for chunk in chunks)


def test_tokens_and_alternatives_are_named_by_id() -> None:
    entry = {**entries(*HI)[0], "top_logprobs": entries(*HI, *THERE)}
    read = plan_of(names_ids=True)
    body = upstream({"content": "Hi"}, logprobs={"content": [entry]})
    answer = json.loads(chat_completion(request(), read, body).model_dump_json())
    chunks = streamed(event(FIRST), event({"content": "Hi"}, logprobs={"content": [entry]}), read=read)

    for choice in (answer["choices"][0], chunks[-1]["choices"][0]):
        [named] = choice["logprobs"]["content"]
        assert named["token"] == f"token_id:{HI[0]}"
        assert [other["token"] for other in named["top_logprobs"]] == [f"token_id:{HI[0]}", f"token_id:{THERE[0]}"]


@pytest.mark.parametrize(("include", "text"), [(False, "Hi"), (True, "Hi there")])
def test_a_stop_token_ends_the_text_but_keeps_its_entry(include: bool, text: str) -> None:
    read = plan_of(frozenset(THERE), include_stop=include, shows_ids=True)
    choice = whole([*HI, *THERE, *YOU], read, finish_reason="length")["choices"][0]

    assert choice["message"]["content"] == text
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", THERE[0])
    assert choice["token_ids"] == [*HI, *THERE]
    assert len(choice["logprobs"]["content"]) == 2


@pytest.mark.parametrize(("include", "texts"), [(False, ["Hi", ""]), (True, ["Hi", " there"])])
def test_a_stream_ends_at_its_stop_token(include: bool, texts: list[str]) -> None:
    chunks = streamed(
        event(FIRST), token_event("Hi", *HI), token_event(" there", *THERE), token_event(" you", *YOU),
        event({}, "stop"), read=plan_of(frozenset(THERE), include_stop=include, hides_logprobs=True),
    )  # fmt: skip
    choices = [chunk["choices"][0] for chunk in chunks[1:]]

    assert [choice["delta"]["content"] for choice in choices] == texts
    assert (choices[-1]["finish_reason"], choices[-1]["stop_reason"]) == ("stop", THERE[0])


def test_a_stop_tokens_text_inside_another_token_does_not_stop() -> None:
    [here] = O200K.encode("here")
    choice = whole([*HI, *THERE], plan_of(frozenset({here})))["choices"][0]

    assert (choice["message"]["content"], choice["stop_reason"]) == ("Hi there", None)


def test_a_stop_token_cuts_an_event_of_several_tokens() -> None:
    chunks = streamed(
        event(FIRST), token_event("Hi there you", *HI, *THERE, *YOU), read=plan_of(frozenset(THERE), shows_ids=True)
    )

    assert chunks[-1]["choices"][0]["delta"] == {"content": "Hi"}
    assert chunks[-1]["choices"][0]["token_ids"] == [*HI, *THERE]


def test_text_that_comes_after_its_tokens_is_cut_too() -> None:
    chunks = streamed(
        event(FIRST), token_event("", *HI), token_event("Hi there", *THERE), read=plan_of(frozenset(THERE))
    )

    assert chunks[-1]["choices"][0]["delta"] == {"content": "Hi"}


def test_a_stop_string_for_a_token_is_reported_as_that_token() -> None:
    read = ResponsePlan(stops=(" there",), stop_ids={" there": THERE[0]})
    choice = chat_completion(request(), read, upstream({"content": "Hi there"})).choices[0]

    assert (choice.message.content, choice.stop_reason) == ("Hi", THERE[0])


WITH_USAGE = {"include_usage": True, "continuous_usage_stats": True}


def test_each_chunk_has_its_choices_usage_so_far() -> None:
    chunks = streamed(
        event(FIRST), event({"content": "Hi there"}), event(FIRST, index=1), event({"content": "Hi"}, index=1),
        event({}, "stop"), event(choices=[], usage=USAGE),
        read=plan_of(counts_in_chunks=True), stream_options=WITH_USAGE, n=2,
    )  # fmt: skip

    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [0, 2, 0, 1, 2, 3]
    assert [chunk["usage"]["total_tokens"] for chunk in chunks] == [3, 5, 3, 4, 5, 12]
    assert list(chunks[0])[-3:] == ["usage", "prompt_token_ids", "prompt_text"]
    assert "system_fingerprint" not in chunks[4]
    assert chunks[1]["usage"]["completion_tokens_details"] is None


def test_tool_calls_count_as_usage() -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "look", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": "Hi there"}}
    chunks = streamed(
        event({**FIRST, "content": None, "tool_calls": [call]}), event({"tool_calls": [more]}),
        read=plan_of(counts_in_chunks=True), stream_options=WITH_USAGE, n=2,
    )  # fmt: skip

    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [0, 1, 3]


def test_a_stopped_stream_reports_its_usage_and_is_complete() -> None:
    read = plan_of(frozenset(THERE), counts_at_stop=True, hides_logprobs=True)
    translator = ChunkTranslator(request(stream=True, stream_options={"include_usage": True}), read)

    assert not translator.chunks(checked_chunk(event(FIRST)))[-1].get("usage")
    translator.chunks(checked_chunk(token_event("Hi", *HI)))
    assert not translator.complete
    last = translator.chunks(checked_chunk(token_event(" there", *THERE)))[-1]
    assert translator.complete
    assert (last["choices"], last["usage"]) == (
        [],
        {"prompt_tokens": 3, "total_tokens": 5, "completion_tokens": 2},
    )


def test_usage_details_need_the_stream_to_its_end() -> None:
    read = plan_of(frozenset(THERE), counts_at_stop=True)
    read.usage_details = True
    translator = ChunkTranslator(request(stream=True, stream_options={"include_usage": True}), read)
    translator.chunks(checked_chunk(token_event(" there", *THERE)))

    assert not translator.complete


def test_streamed_tool_calls_have_no_ids() -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    chunks = streamed(event({**FIRST, "content": None, "tool_calls": [call]}), read=plan_of(shows_ids=True))

    assert chunks[-1]["choices"][0]["token_ids"] is None


def test_part_of_a_character_has_its_id_with_stop_tokens_too() -> None:
    read = plan_of(frozenset(THERE), shows_ids=True, hides_logprobs=True)
    chunks = streamed(event(FIRST), token_event("", PARTY[0]), read=read)

    assert (chunks[-1]["choices"][0]["delta"], chunks[-1]["choices"][0]["token_ids"]) == ({"content": ""}, PARTY[:1])


def test_held_back_text_is_sent_when_a_token_stops() -> None:
    read = plan_of(frozenset(THERE))
    read.stops = ("Hi you",)
    chunks = streamed(event(FIRST), token_event("Hi", *HI), token_event(" there", *THERE), read=read)

    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == "Hi"
    assert chunks[-1]["choices"][0]["stop_reason"] == THERE[0]


def test_a_token_without_bytes_is_identified_by_its_text() -> None:
    entry = {**token("Hi"), "bytes": [999]}
    body = upstream({"content": "Hi"}, logprobs={"content": [entry]})
    choice = chat_completion(request(), plan_of(shows_ids=True), body).choices[0]

    assert choice.token_ids == O200K.encode("Hi")
    assert choice.logprobs is not None
    assert [one.bytes for one in choice.logprobs.content or ()] == [None]
