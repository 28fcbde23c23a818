"""This server's responses compared with recorded responses of vLLM."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.simulator.server import Simulator
from tests.golden.comparison import MAY_REJECT, OWN_WORDS, SPECIFIED, differences
from tests.golden.exchanges import Answer, Exchange, recorded_exchanges
from tests.serving import served_over

EXCHANGES = {exchange.id: exchange for exchange in recorded_exchanges()}
every_exchange = pytest.mark.parametrize("exchange", EXCHANGES.values(), ids=list(EXCHANGES))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def golden_client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of one server for all exchanges, which do not affect each other."""
    async with (
        Simulator() as simulator,
        served_over(simulator.base_url) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        yield client


async def answer_to(exchange: Exchange, client: httpx.AsyncClient) -> Answer:
    sent: dict[str, Any] = {"json" if isinstance(exchange.body, dict) else "content": exchange.body}
    response = await client.request(exchange.method, exchange.path, headers=exchange.headers, **sent)
    return Answer(response.status_code, response.headers.get("content-type"), response.content.decode())


@every_exchange
@pytest.mark.asyncio(loop_scope="module")
async def test_the_response_has_vllms_shape(exchange: Exchange, golden_client: httpx.AsyncClient) -> None:
    assert differences(exchange, await answer_to(exchange, golden_client)) == []


@every_exchange
def test_vllms_own_response_passes(exchange: Exchange) -> None:
    assert differences(exchange, SPECIFIED.get(exchange.id, exchange.vllm)) == []


def test_every_exception_belongs_to_an_exchange() -> None:
    assert {*MAY_REJECT, *SPECIFIED, *OWN_WORDS} <= EXCHANGES.keys()


CHUNK = 'data: {"id":"chatcmpl-816ed57c04cf5ce8",'
FINISH = '"finish_reason":"length"'

# An exchange, a piece of vLLM's answer, what stands there instead, and what the comparison then says.
DOCTORED = [
    ("chat/plain", '"refusal":null,', "", "lacks ['.choices[].message.refusal']"),
    ("chat/plain", '"service_tier":null,', "", "lacks ['.service_tier']"),
    ("chat/plain", '"role":"assistant"', '"role":1', ".choices[].message.role is number, vLLM string"),
    ("chat/plain", '"prompt_tokens":', '"prompt_tokens":1', "usage does not add up"),
    ("chat/plain", '"model":"gpt-4o-mini"', '"model":"gpt-4o-mini-2024-07-18"', "model 'gpt-4o-mini-2024-07-18'"),
    ("chat/plain", '"object":"chat.completion"', '"object":"text_completion"', "object 'text_completion'"),
    ("chat/plain", '"id":"chatcmpl-', '"id":"cmpl-', "id 'cmpl-"),
    ("chat/plain", "{", "", "unreadable"),
    ("chat/n-2", '"index":1', '"index":0', "choices [0, 0], vLLM [0, 1]"),
    ("chat/logprobs", '"top_logprobs":[]', '"top_logprobs":{}', "top_logprobs is array or object"),
    ("chat/logprobs", '"content":[{"token"', '"refusal":null,"content":[{"token"', "logprobs.refusal'], vLLM not"),
    ("chat/logprobs", '"logprobs":{', '"logprobs":null,"other":{', "lacks ['.choices[].logprobs.content'"),
    ("chat/ext-request-id", '"id":"chatcmpl-', '"id":"chatcmpl-other', "id 'chatcmpl-other"),
    ("chat/stream", '"role":"assistant",', "", "lacks ['.role'"),
    ("chat/stream", "data: [DONE]\n\n", "", "lacks ['.done']"),
    ("chat/stream", "data: [DONE]\n\n", "data: [DONE]\n", "unreadable: the stream ends with"),
    ("chat/stream", "data: [DONE]", "event: end\ndata: [DONE]", "unreadable: an event is written as"),
    ("chat/stream", '"finish_reason":null,"token_ids"', f'{FINISH},"token_ids"', "comes as"),
    ("chat/stream", CHUNK, f'{CHUNK}"usage":null,', "usage'], vLLM not"),
    ("chat/stream", CHUNK, f'{CHUNK}"obfuscation":"x",', "obfuscation'], vLLM not"),
    ("chat/stream", "[DONE]", '{"choices":[],"usage":null}', "comes as"),
    ("chat/stream", '"id":"chatcmpl-816ed57c04cf5ce8"', '"id":"chatcmpl-0"', "has the ids ['chatcmpl-0',"),
    ("chat/stream", '"model":"gpt-4o-mini"', '"model":"gpt-4o"', "model 'gpt-4o', vLLM 'gpt-4o-mini'"),
    ("chat/stream", ',"weight_versions":null', "", "lacks ['.finish[].choices[].weight_versions']"),
    ("chat/stream", '"system_fingerprint"', '"fingerprint"', "lacks ['.finish[].system_fingerprint']"),
    ("chat/stream", '58b290","kv_transfer_params":null', '58b290"', "lacks ['.finish[].kv_transfer_params']"),
    ("chat/plain", ',"kv_transfer_params":null', "", "lacks ['.kv_transfer_params']"),
    ("chat/stream-usage", '"total_tokens":', '"total_tokens":1', "usage does not add up"),
    ("chat/stream-n2", '"index":1', '"index":2', "comes as"),
    ("chat/stream", '"stop_reason":null,', "", "lacks ['.finish[].choices[].stop_reason']"),
    ("chat/err-top-p-0", '"BadRequestError"', '"invalid_request_error"', "error.type 'invalid_request_error'"),
    ("chat/err-top-p-0", '"code":400', '"code":"400"', "error.code '400'"),
    ("chat/err-top-p-0", '"param":"top_p"', '"param":null', "error.param None, vLLM 'top_p'"),
    ("chat/err-top-p-0", "must be in", "should be in", "error.message 'top_p should be in"),
    ("chat/err-top-p-0", '{"error":', '{"detail":', "body"),
    ("route/unknown", "Not Found", "not found", "body"),
    ("route/version", '"0.33.0"', "32", ".version is number, vLLM string"),
]  # fmt: skip


@pytest.mark.parametrize(("id_", "piece", "instead", "said"), DOCTORED)
def test_an_altered_response_is_detected(id_: str, piece: str, instead: str, said: str) -> None:
    answer = EXCHANGES[id_].vllm
    assert piece in answer.body

    doctored = replace(answer, body=answer.body.replace(piece, instead, 1))

    assert said in "; ".join(differences(EXCHANGES[id_], doctored))


UNNAMED = '{"error":{"message":"No.","type":"BadRequestError","param":null,"code":400}}'


@pytest.mark.parametrize(
    ("id_", "answer", "said"),
    [
        ("chat/plain", Answer(500, "application/json", "{}"), "status 500, vLLM 200"),
        ("chat/plain", Answer(200, "text/plain", "{}"), "content-type 'text/plain', vLLM 'application/json'"),
        ("route/ping-get", Answer(200, "application/json", ""), "content-type 'application/json', vLLM None"),
        ("chat/ext-continue-final", Answer(400, "application/json", UNNAMED), "status 400, vLLM 200"),
        ("chat/err-model", EXCHANGES["chat/err-model"].vllm, "status 404, vLLM 400"),
        ("route/health", EXCHANGES["route/health"].vllm, "content-type None, vLLM 'application/json'"),
    ],
)
def test_another_status_or_content_type_is_detected(id_: str, answer: Answer, said: str) -> None:
    assert said in "; ".join(differences(EXCHANGES[id_], answer))


def test_a_rejection_that_names_its_field_passes_if_allowed() -> None:
    refusal = Answer(400, "application/json", UNNAMED.replace("null", '"continue_final_message"'))

    assert differences(EXCHANGES["chat/ext-continue-final"], refusal) == []
    assert differences(EXCHANGES["chat/plain"], refusal) != []
