"""Rate limits of keys over sockets: never exceeded, and released after every outcome."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.dependencies import Components
from app.main import create_app
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.serving import serving, settings_for

COMPLETIONS = "/v1/completions"
SLOW = "[sim fault=slow seconds=600]"


def chat(text: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


async def wait_for(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the server's counters are no events
            await asyncio.sleep(0.005)


class Server:
    """The server, a client and its counters."""

    def __init__(self, client: httpx.AsyncClient, components: Components) -> None:
        assert components.rate_limiter
        self.client = client
        self.concurrency_limiter = components.concurrency_limiter
        self.limits = components.rate_limiter

    async def post(self, body: dict[str, Any], path: str = CHAT, key: str = "k1") -> httpx.Response:
        return await self.client.post(path, json=body, headers={"authorization": f"Bearer {key}"})

    async def idle(self) -> None:
        """Wait until nothing is held."""
        await wait_for(
            lambda: not (self.concurrency_limiter.running or self.concurrency_limiter.waiting or self.limits.running(0))
        )


@asynccontextmanager
async def server_over(simulator: Simulator, **given: object) -> AsyncIterator[Server]:
    app = create_app(settings_for(simulator.base_url, **given))
    limits = httpx.Limits(max_connections=None)
    async with (
        serving(app, app.state.components.lifecycle) as running,
        httpx.AsyncClient(base_url=running.url, limits=limits) as client,
    ):
        yield Server(client, app.state.components)


async def test_fifty_clients_never_exceed_the_limits_of_their_key(simulator: Simulator) -> None:
    limits = {"vllm_api_key": "k1,k2", "key_concurrent_requests": 4, "key_requests_per_minute": 30}
    seen = []
    async with server_over(simulator, **limits) as server:

        async def ask(number: int) -> list[httpx.Response]:
            answers = []
            for turn in range(3):
                answers.append(await server.post(chat("[sim tokens=2 itl=0.005]", stream=bool((number + turn) % 2))))
                seen.append(server.limits.running(0))
            return answers

        answers = [answer for some in await asyncio.gather(*map(ask, range(50))) for answer in some]
        await server.idle()
        other = await server.post(chat(), key="k2")

    codes = Counter(answer.status_code for answer in answers)
    assert set(codes) == {200, 429}
    assert codes[200] <= 30
    assert simulator.traffic.most_live <= 4
    assert max(seen) <= 4
    assert other.status_code == 200
    for answer in answers:
        if answer.status_code == 429:
            assert answer.json()["error"]["type"] == "RateLimitError"
            assert answer.json()["error"]["message"].startswith("The limit KEY_")
            assert int(answer.headers["retry-after"]) in range(1, 61)


@pytest.mark.parametrize(
    ("path", "body", "tokens"),
    [
        (CHAT, chat("[sim tokens=20]"), range(21, 60)),
        (CHAT, chat("[sim tokens=20]", stream=True), range(21, 60)),
        (COMPLETIONS, {"prompt": ["[sim tokens=10]", "[sim tokens=10]"], "max_tokens": 20}, range(21, 80)),
        (COMPLETIONS, {"prompt": ["[sim tokens=10]"] * 2, "max_tokens": 20, "stream": True}, range(21, 80)),
        ("/invocations", chat("[sim tokens=20]"), range(21, 60)),
        (CHAT, chat("[sim tokens=200 fault=cut after=150]", stream=True), range(150, 300)),
        (CHAT, chat("[sim fault=status status=400]"), range(1)),
        (CHAT, {"messages": []}, range(1)),
    ],
    ids=["whole", "stream", "prompts", "streamed prompts", "invocations", "cut", "refused", "wrong"],
)
async def test_a_key_is_charged_the_tokens_of_its_request(
    path: str, body: dict[str, Any], tokens: range, simulator: Simulator
) -> None:
    for limit, refused in ((max(tokens.start, 1), tokens.start > 0), (tokens.stop, False)):
        async with server_over(simulator, vllm_api_key="k1", key_tokens_per_minute=limit) as server:
            await server.post(body, path)
            answer = await server.post(chat())
        assert (answer.status_code == 429) is refused, limit
        assert ("KEY_TOKENS_PER_MINUTE" in answer.text) is refused


async def test_openais_usage_is_charged_if_reported(simulator: Simulator) -> None:
    async with server_over(simulator, vllm_api_key="k1", key_tokens_per_minute=1000) as server:
        answer = (await server.post(chat("[sim tokens=20]"))).json()
        streamed = await server.post(chat("[sim tokens=20]", stream=True, stream_options={"include_usage": True}))
        usage = json.loads(streamed.text.split("\n\n")[-3][6:])["usage"]
        used = server.limits._usage[0].tokens._total

    assert used == answer["usage"]["total_tokens"] + usage["total_tokens"]


async def test_a_full_server_rejects_unread_bodies_and_charges_no_key(simulator: Simulator) -> None:
    limits = {"vllm_api_key": "k1", "key_requests_per_minute": 2, "max_upstream_calls": 1, "max_num_queued_reqs": 0}
    async with server_over(simulator, **limits) as server:
        first = asyncio.create_task(server.post(chat(SLOW)))
        await wait_for(lambda: simulator.traffic.live)
        headers = {"authorization": "Bearer k1", "content-type": "application/json"}
        refused = [await server.client.post(CHAT, content=b"{", headers=headers) for _ in range(3)]
        models = await server.client.get("/v1/models", headers=headers)
        first.cancel()
        await server.idle()
        last = await server.post(chat())

    assert [answer.status_code for answer in (*refused, models, last)] == [503, 503, 503, 200, 200]
    assert "MAX_NUM_QUEUED_REQS=0" in refused[0].text


async def test_without_keys_all_clients_share_the_limits(simulator: Simulator) -> None:
    async with server_over(simulator, key_requests_per_minute=1) as server:
        answers = [await server.post(chat(), key=key) for key in ("a", "b")]

    assert [answer.status_code for answer in answers] == [200, 429]


ENDINGS = {
    "answered": chat(),
    "streamed": chat(stream=True),
    "prompts": {"prompt": ["a", "b"]},
    "streamed prompts": {"prompt": ["a", "b"], "stream": True},
    "wrong": {"messages": []},
    "refused by OpenAI": chat("[sim fault=status status=400]"),
    "failed": chat("[sim fault=status status=500 should_retry=false]"),
    "not understood": chat("[sim fault=not_json]", stream=True),
    "cut": chat("[sim fault=cut]", stream=True),
    "reset": chat("[sim fault=reset]", stream=True),
    "error event": chat("[sim fault=error_event]", stream=True),
    "left before the answer": chat(SLOW),
    "left before the stream": chat(SLOW, stream=True),
    "left the stream": chat("[sim fault=stall seconds=600 after=2 tokens=20]", stream=True),
    "left the prompts": {"prompt": [SLOW, "b"], "stream": True},
}


def path_of(body: dict[str, Any]) -> str:
    return CHAT if "messages" in body else COMPLETIONS


async def each_ends(endings: list[str], server: Server) -> None:
    """Concurrent clients, some of which disconnect, possibly while queued."""
    asking = {asyncio.create_task(server.post(ENDINGS[name], path_of(ENDINGS[name]))): name for name in endings}
    leaving = [task for task, name in asking.items() if name.startswith("left")]
    staying = [task for task in asking if task not in leaving]
    await wait_for(lambda: server.concurrency_limiter.waiting or all(task.done() for task in staying))
    for task in leaving:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await server.idle()


LIMITED = {"max_upstream_calls": 2, "queue_timeout_s": 60, "vllm_api_key": "k1", "key_concurrent_requests": 10}


@pytest.mark.parametrize("name", ENDINGS)
async def test_every_outcome_is_counted_once(name: str, simulator: Simulator) -> None:
    async with server_over(simulator, **LIMITED) as server:
        body = ENDINGS[name]
        asking = asyncio.create_task(server.post(body, path_of(body)))
        await wait_for(lambda: simulator.traffic.live if name.startswith("left") else asking.done())
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await server.idle()

        assert (await server.post(chat())).status_code == 200


@settings(max_examples=25, deadline=None, database=None)
@given(endings=st.lists(st.sampled_from(sorted(ENDINGS)), min_size=2, max_size=14))
def test_every_mixture_of_outcomes_is_counted_once(endings: list[str]) -> None:
    async def run() -> None:
        async with Simulator() as simulator, server_over(simulator, **LIMITED) as server:
            await each_ends(endings, server)
            assert simulator.traffic.most_live <= 2
            assert (await server.post(chat())).status_code == 200

    asyncio.run(run())
