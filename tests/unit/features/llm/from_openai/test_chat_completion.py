"""OpenAI's responses and streams translated into vLLM's."""

import json
from typing import Any

import pytest

from app.features.llm.from_openai.chat_completion import chat_completion
from app.features.llm.from_openai.chunk_translator import ChunkTranslator
from app.features.llm.from_openai.openai_chunks import checked_chunk
from app.features.llm.from_openai.plan import Envelope, ResponsePlan
from app.features.llm.schema import ChatCompletionRequest

DETAILS = {"prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 0}}
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, **DETAILS}


def request(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest(messages=[{"role": "user", "content": "hi"}], model="served", **fields)


def upstream(message: dict[str, Any], **choice: Any) -> bytes:
    body = {
        "id": "chatcmpl-up", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": {"role": "assistant", "refusal": None, "annotations": [], **message},
                     "logprobs": None, "finish_reason": "stop", **choice}],
        "usage": USAGE, "service_tier": "default", "system_fingerprint": "fp_1", "obfuscation": "x",
    }  # fmt: skip
    return json.dumps(body).encode()


def test_a_response_is_byte_for_byte_vllms() -> None:
    answer = chat_completion(request(), ResponsePlan(), upstream({"content": "Hi"})).model_dump_json()

    assert answer == (
        '{"id":"chatcmpl-up","object":"chat.completion","created":1,"model":"served","choices":[{"index":0,"message":'
        '{"role":"assistant","content":"Hi","refusal":null,"annotations":null,"audio":null,"function_call":null,'
        '"reasoning":null},"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":null,'
        '"routed_experts":null,"weight_versions":null}],"service_tier":"default","system_fingerprint":"fp_1","usage":{"prompt_tokens":9,'
        '"total_tokens":12,"completion_tokens":3,"prompt_tokens_details":null,"completion_tokens_details":null},'
        '"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,"kv_transfer_params":null,'
        '"ec_transfer_params":null,"metrics":null}'
    )


def test_tool_calls_are_in_vllms_key_order() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = json.loads(
        chat_completion(request(), ResponsePlan(), upstream({"content": None, "tool_calls": [call]})).model_dump_json()
    )
    message = message["choices"][0]["message"]

    assert message["tool_calls"] == [call]
    assert list(message)[-3:] == ["function_call", "tool_calls", "reasoning"]


def test_logprobs_have_no_refusal() -> None:
    token = {"token": "H", "logprob": -0.31725305, "bytes": [72], "top_logprobs": []}
    logprobs = {"content": [token], "refusal": None}
    answer = json.loads(
        chat_completion(request(), ResponsePlan(), upstream({"content": "H"}, logprobs=logprobs)).model_dump_json()
    )

    assert answer["choices"][0]["logprobs"] == {"content": [token]}


def test_a_refusal_and_annotations_are_passed_on() -> None:
    message = chat_completion(
        request(), ResponsePlan(), upstream({"content": None, "refusal": "No.", "annotations": [{"a": 1}]})
    )

    assert message.choices[0].message.refusal == "No."
    assert message.choices[0].message.annotations == [{"a": 1}]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"", "EOF"),
        (b"<html>", "expected value"),
        (b"{}", "choices: Field required"),
        (b"[]", "Input should be a valid dict"),
        (b'{"id":"x"}', "choices: Field required"),
    ],
)
def test_an_invalid_response_is_an_error(answer: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        chat_completion(request(), ResponsePlan(), answer)


def event(
    delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **more: Any
) -> dict[str, Any]:
    choice = {"index": index, "delta": delta or {}, "logprobs": more.pop("logprobs", None), "finish_reason": finish}
    return {
        "id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default", "system_fingerprint": "fp_1", "choices": [choice], "usage": None,
        "obfuscation": "x", **more,
    }  # fmt: skip


FIRST = {"role": "assistant", "content": "", "refusal": None}
HEAD = '{"id":"chatcmpl-up","object":"chat.completion.chunk","created":1,"model":"served",'


def streamed(*events: dict[str, Any], plan: ResponsePlan | None = None, **fields: Any) -> list[str]:
    translator = ChunkTranslator(request(stream=True, **fields), plan or ResponsePlan())
    return [
        json.dumps(chunk, separators=(",", ":"))
        for event in events
        for chunk in translator.chunks(checked_chunk(event))
    ]


def test_a_stream_is_byte_for_byte_vllms() -> None:
    assert streamed(event(FIRST), event({"content": "Hi"}), event({}, "stop"), event(choices=[], usage=USAGE)) == [
        HEAD + '"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],'
        '"prompt_token_ids":null,"prompt_text":null}',
        HEAD
        + '"choices":[{"index":0,"delta":{"content":"Hi"},"logprobs":null,"finish_reason":null,"token_ids":null}],'
        + '"kv_transfer_params":null}',
        HEAD + '"choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop",'
        '"stop_reason":null,"token_ids":null,"weight_versions":null}],"system_fingerprint":"fp_1",'
        + '"kv_transfer_params":null}',
    ]


def test_usage_is_sent_if_requested() -> None:
    *_, finish, usage = streamed(
        event(FIRST), event({}, "stop"), event(choices=[], usage=USAGE), stream_options={"include_usage": True}
    )

    assert "fingerprint" not in finish
    assert usage == HEAD + (
        '"choices":[],"usage":{"prompt_tokens":9,"total_tokens":12,"completion_tokens":3},"system_fingerprint":"fp_1"}'
    )


def test_each_choice_starts_with_its_role() -> None:
    events = event(FIRST), event(FIRST, index=1), event({"content": "a"})
    chunks = [json.loads(chunk) for chunk in streamed(*events, n=2)]

    assert [(chunk["choices"][0]["index"], "role" in chunk["choices"][0]["delta"]) for chunk in chunks] == [
        (0, True), (1, True), (0, False),
    ]  # fmt: skip


def test_a_first_event_with_text_becomes_two_chunks() -> None:
    chunks = [json.loads(chunk) for chunk in streamed(event({"role": "assistant", "content": "Hi"}))]

    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""}, {"content": "Hi"},
    ]  # fmt: skip


def test_tool_call_deltas_are_passed_on() -> None:
    begin = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    piece = {"index": 0, "function": {"arguments": '{"a'}}
    chunks = streamed(
        event({"role": "assistant", "content": None, "tool_calls": [begin], "refusal": None}),
        event({"tool_calls": [piece]}),
        event({}, "tool_calls"),
    )

    assert [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""}, {"content": None, "tool_calls": [begin]},
        {"content": None, "tool_calls": [piece]}, {},
    ]  # fmt: skip


@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
@pytest.mark.parametrize(
    ("calls", "plan", "reason"),
    [
        (True, ResponsePlan(), "tool_calls"),
        (True, ResponsePlan(stops=("x",)), "tool_calls"),
        (True, ResponsePlan(finish_with_calls="stop"), "stop"),
        (False, ResponsePlan(), "stop"),
        (False, ResponsePlan(finish_with_calls="stop"), "stop"),
    ],
)
def test_the_finish_reason_is_vllms(finish: str, calls: bool, plan: ResponsePlan, reason: str) -> None:
    delta = {"content": "Hi", **({"tool_calls": [{"index": 0, **CALLS[0]}]} if calls else {})}
    message = {"content": "Hi", **({"tool_calls": CALLS[:1]} if calls else {})}
    choice = chat_completion(request(), plan, upstream(message, finish_reason=finish)).choices[0]
    *_, chunk = streamed(event(FIRST), event(delta), event({}, finish), plan=plan)

    assert choice.finish_reason == json.loads(chunk)["choices"][0]["finish_reason"] == reason


def test_a_response_with_calls_that_was_cut_says_so() -> None:
    answer = chat_completion(
        request(), ResponsePlan(), upstream({"content": None, "tool_calls": CALLS}, finish_reason="length")
    )
    *_, chunk = streamed(event(FIRST), event({"tool_calls": [{"index": 0, **CALLS[0]}]}), event({}, "length"))

    assert answer.choices[0].finish_reason == json.loads(chunk)["choices"][0]["finish_reason"] == "length"


def test_tool_call_deltas_have_null_as_content_beside_stop_strings() -> None:
    call = {"index": 0, **CALLS[0]}
    _, _, chunk, _ = streamed(
        event(FIRST), event({"content": "a"}), event({"tool_calls": [call]}), event({}, "stop"),
        plan=ResponsePlan(stops=("x",)),
    )  # fmt: skip

    assert json.loads(chunk)["choices"][0]["delta"] == {"content": None, "tool_calls": [call]}


def test_streamed_logprobs_have_no_refusal() -> None:
    token = {"token": "H", "logprob": -0.1, "bytes": [72], "top_logprobs": []}
    *_, chunk = streamed(event(FIRST), event({"content": "H"}, logprobs={"content": [token], "refusal": None}))

    assert json.loads(chunk)["choices"][0]["logprobs"] == {"content": [token]}


def test_a_streamed_refusal_is_passed_on() -> None:
    *_, chunk = streamed(event(FIRST), event({"refusal": "No"}))

    assert json.loads(chunk)["choices"][0]["delta"] == {"refusal": "No"}


def test_the_clients_id_is_on_every_chunk() -> None:
    chunks = streamed(event(FIRST), event({"content": "a"}), event({}, "stop"), request_id="mine")

    assert {json.loads(chunk)["id"] for chunk in chunks} == {"chatcmpl-mine"}


def token(text: str) -> dict[str, Any]:
    return {"token": text, "logprob": -0.1, "bytes": list(text.encode()), "top_logprobs": []}


def read(content: str, plan: ResponsePlan, **choice: Any) -> dict[str, Any]:
    answer = json.loads(chat_completion(request(), plan, upstream({"content": content}, **choice)).model_dump_json())
    read_choice: dict[str, Any] = answer["choices"][0]
    return read_choice


def test_a_stop_string_ends_the_response() -> None:
    choice = read("one\ntwo\nthree", ResponsePlan(stops=("two", "\n")), finish_reason="length")

    assert (choice["message"]["content"], choice["finish_reason"], choice["stop_reason"]) == ("one", "stop", "\n")


def test_an_included_stop_string_stays_in_the_text() -> None:
    choice = read("one two", ResponsePlan(stops=(" t",), include_stop=True))

    assert (choice["message"]["content"], choice["stop_reason"]) == ("one t", " t")


def test_without_a_match_the_text_is_complete() -> None:
    choice = read("one tw", ResponsePlan(stops=("two",)), finish_reason="length")

    assert (choice["message"]["content"], choice["finish_reason"], choice["stop_reason"]) == ("one tw", "length", None)


def test_an_enveloped_text_is_decoded_with_its_tokens() -> None:
    tokens = [token(text) for text in ('{"', "value", '":"', "re", "d", '"}')]
    plan = ResponsePlan(envelope=Envelope.TEXT)
    choice = read('{"value":"red"}', plan, logprobs={"content": tokens, "refusal": None})

    assert choice["message"]["content"] == "red"
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["re", "d"]


def test_an_enveloped_value_is_unchanged() -> None:
    assert (
        read('{"value": [1, {"a": "}"}] }', ResponsePlan(envelope=Envelope.JSON))["message"]["content"]
        == '[1, {"a": "}"}]'
    )


def test_an_echo_precedes_the_text() -> None:
    choice = read(" upon", ResponsePlan(echo="Once", role="user"))

    assert (choice["message"]["role"], choice["message"]["content"]) == ("user", "Once upon")


CALLS = [
    {"id": f"call_{number}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for number in range(2)
]


def test_only_one_tool_call_is_kept_if_requested() -> None:
    plan = ResponsePlan(one_tool_call=True, content_beside_calls="")
    message = chat_completion(request(), plan, upstream({"content": None, "tool_calls": CALLS})).choices[0].message

    assert message.tool_calls == CALLS[:1]
    assert message.content == ""


def test_usage_details_are_shown_if_enabled() -> None:
    usage = chat_completion(request(), ResponsePlan(usage_details=True), upstream({"content": "Hi"})).usage

    assert usage
    assert usage.prompt_tokens_details == {"cached_tokens": 1}
    *_, last = streamed(
        event(FIRST), event(choices=[], usage=USAGE), plan=ResponsePlan(usage_details=True),
        stream_options={"include_usage": True},
    )  # fmt: skip
    assert json.loads(last)["usage"] == USAGE


def deltas(chunks: list[str]) -> list[tuple[Any, Any, Any]]:
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    return [(choice["delta"].get("content"), choice["finish_reason"], choice.get("stop_reason")) for choice in choices]


def test_a_stop_string_can_span_events() -> None:
    events = [event(FIRST), event({"content": "one t"}), event({"content": "w"}), event({"content": "o three"}),
              event({"content": "four"}), event({}, "stop")]  # fmt: skip
    chunks = streamed(*events, plan=ResponsePlan(stops=("two",)))

    assert deltas(chunks) == [("", None, None), ("one ", None, None), ("", "stop", "two")]


def test_held_back_text_is_sent_at_the_end() -> None:
    chunks = streamed(
        event(FIRST), event({"content": "one tw"}), event({}, "length"), plan=ResponsePlan(stops=("two",))
    )

    assert deltas(chunks) == [("", None, None), ("one ", None, None), ("tw", "length", None)]


@pytest.mark.parametrize(("usage", "complete"), [(False, True), (True, False)])
def test_a_stream_is_complete_once_every_choice_has_stopped(usage: bool, complete: bool) -> None:
    asked = request(stream=True, n=2, stream_options={"include_usage": usage})
    translator = ChunkTranslator(asked, ResponsePlan(stops=("x",)))

    translator.chunks(checked_chunk(event({**FIRST, "content": "ax"})))
    assert not translator.complete
    translator.chunks(checked_chunk(event({**FIRST, "content": "bx"}, index=1)))
    assert translator.complete is complete


def test_a_streamed_envelope_is_removed() -> None:
    pieces = ['{"', 'value":"', "r", "ed", '"}']
    events = [event({"content": piece}, logprobs={"content": [token(piece)], "refusal": None}) for piece in pieces]
    chunks = streamed(event(FIRST), *events, event({}, "stop"), plan=ResponsePlan(envelope=Envelope.TEXT))

    assert deltas(chunks) == [("", None, None), ("r", None, None), ("ed", None, None), ("", "stop", None)]


def test_a_streamed_echo_follows_the_role() -> None:
    chunks = streamed(event(FIRST), event({"content": "b"}), plan=ResponsePlan(echo="a", role="user"))

    assert deltas(chunks) == [("", None, None), ("a", None, None), ("b", None, None)]
    assert json.loads(chunks[0])["choices"][0]["delta"]["role"] == "user"


def test_only_one_streamed_tool_call_is_kept_if_requested() -> None:
    second = {"index": 1, "id": "call_2", "type": "function", "function": {"name": "f", "arguments": ""}}
    first = {"index": 0, "function": {"arguments": "{}"}}
    chunks = streamed(
        event(FIRST), event({"tool_calls": [first]}), event({"tool_calls": [second]}), event({}, "tool_calls"),
        plan=ResponsePlan(one_tool_call=True),
    )  # fmt: skip

    assert [json.loads(chunk)["choices"][0]["delta"].get("tool_calls") for chunk in chunks] == [None, [first], None]


def test_an_echo_precedes_tool_calls_too() -> None:
    plan = ResponsePlan(echo="a", content_beside_calls="")
    answer = chat_completion(request(), plan, upstream({"content": None, "tool_calls": CALLS}))

    assert answer.choices[0].message.content == "a"


@pytest.mark.parametrize(
    ("content", "sent", "finish"),
    [
        ('{"value":"red"', "length", "stop"),
        ('{"value":"re', "length", "length"),
        ('{"value":"red"', "content_filter", "content_filter"),
    ],
)
def test_a_value_is_complete_though_its_envelope_is_cut(content: str, sent: str, finish: str) -> None:
    assert read(content, ResponsePlan(envelope=Envelope.TEXT), finish_reason=sent)["finish_reason"] == finish
    chunks = streamed(
        event(FIRST), event({"content": content}), event({}, sent), plan=ResponsePlan(envelope=Envelope.TEXT)
    )
    assert json.loads(chunks[-1])["choices"][0]["finish_reason"] == finish


def test_logprob_tokens_are_filtered_by_their_bytes() -> None:
    emoji = "\N{PARTY POPPER}".encode()
    halves = [{**token("x"), "token": f"bytes:{part!r}", "bytes": list(part)} for part in (emoji[:2], emoji[2:])]
    tokens = [token("a"), *halves, token("b")]
    choice = read("a\N{PARTY POPPER}b", ResponsePlan(stops=("\N{PARTY POPPER}",)), logprobs={"content": tokens})

    assert choice["message"]["content"] == "a"
    assert choice["logprobs"]["content"] == tokens[:3]


def test_logprobs_of_an_enveloped_text_are_those_of_its_value() -> None:
    tokens = [token(text) for text in ('{"value":"a', ' \\"', 'b"}')]
    choice = read('{"value":"a \\"b"}', ResponsePlan(envelope=Envelope.TEXT), logprobs={"content": tokens})

    assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["a", ' "', "b"]
    assert [bytes(entry["bytes"]) for entry in choice["logprobs"]["content"]] == [b"a", b' "', b"b"]
