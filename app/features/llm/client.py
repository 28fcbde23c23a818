"""OpenAI behind vLLM's interface: vLLM's request in, vLLM's answer out, the openai SDK's exceptions up."""

from collections.abc import Sequence

import aiohttp
import httpx2
import openai
from pydantic import BaseModel, ValidationError

from app.core.admission import Admission, Places
from app.core.lifecycle import Aborted, Lifecycle
from app.core.metrics import Metrics, UpstreamMetrics
from app.features.llm.answers import ChunkTranslator, aborted_answer, chat_answer
from app.features.llm.catalogue import Catalogue
from app.features.llm.chat_stream import AbortedStream, ChatStream, Render
from app.features.llm.draft import UnsupportedParams
from app.features.llm.keys import KeyRing
from app.features.llm.limits import read_prompt
from app.features.llm.schema import ChatCompletionRequest, ChatCompletionResponse
from app.features.llm.sdk_errors import not_understood
from app.features.llm.spending import Spending
from app.features.llm.sse import framed
from app.features.llm.timeouts import Timeouts
from app.features.llm.translation import UpstreamCall, encode_request
from app.features.llm.upstream import Call, Upstream


class _UpstreamModel(BaseModel):
    id: str


class _UpstreamModels(BaseModel):
    data: list[_UpstreamModel]


def _no_http() -> httpx2.AsyncClient:
    """In the place of the SDK's own, which would load the certificates and the parts of an HTTP client for nothing."""
    return httpx2.AsyncClient(transport=httpx2.AsyncBaseTransport(), trust_env=False)


class OpenAIClient:
    """OpenAI behind vLLM's requests and answers.

    Every failure of a call is raised as the openai SDK's exception class for it; `app.core.errors` says what
    becomes of each. Calls are paid for with `api_key` or one of `further_keys`.
    """

    def __init__(
        self,
        api_key: str,
        base_url: str | None = None,
        *,
        session: aiohttp.ClientSession | None = None,
        organization: str | None = None,
        project: str | None = None,
        catalogue: Catalogue | None = None,
        unsupported_params: UnsupportedParams = "drop",
        usage_details: bool = False,
        further_keys: Sequence[str] = (),
        timeouts: Timeouts | None = None,
        max_attempts: int = 3,
        metrics: UpstreamMetrics | None = None,
        lifecycle: Lifecycle | None = None,
        admission: Admission | None = None,
    ) -> None:
        # It supplies address and headers. It sends nothing, for that is several times slower (docs/decisions).
        self._client = openai.AsyncOpenAI(
            api_key=api_key, base_url=base_url, organization=organization, project=project, http_client=_no_http()
        )
        self._keys = KeyRing([api_key, *further_keys])
        self.admission = admission or Admission(max_calls=4096, max_queued=0, queue_timeout_s=1)
        self._upstream = Upstream(
            str(self._client.base_url),
            self._headers(),
            self._keys,
            timeouts=timeouts or Timeouts(),
            max_attempts=max_attempts,
            metrics=metrics or Metrics().upstream,
            admission=self.admission,
        )
        if session:
            self.attach(session)
        # The SDK writes a URL without a path without a slash at the end.
        base = str(self._client.base_url).rstrip("/")
        self._chat_url = f"{base}/chat/completions"
        self._models_url = f"{base}/models"
        self._catalogue = catalogue or Catalogue()
        self._unsupported_params = unsupported_params
        self._usage_details = usage_details
        self._lifecycle = lifecycle or Lifecycle()

    def _headers(self) -> dict[str, str]:
        headers = {**self._client.default_headers, "Accept-Encoding": "identity"}
        # The SDK marks what is not to be sent, and takes an empty OPENAI_ORG_ID for an organization.
        return {name: value for name, value in headers.items() if isinstance(value, str) and value}

    def attach(self, session: aiohttp.ClientSession) -> None:
        """Use the connections of `session` for all calls from now on; whoever opened it closes it."""
        self._upstream.attach(session)

    async def create_chat_completion(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        """The whole answer to a request that does not ask for a stream; an aborted one if the server ends first.

        Raises:
            Refusal: OpenAI cannot do what the request asks, or there is no place for the call.
            openai.APIError: the call failed.
        """
        call = await self._translated(request)
        try:
            with self._lifecycle.abortable(), Spending(call.body) as spending:
                answer = await self._upstream.read(Call("POST", self._chat_url, call.body))
        except Aborted:
            return aborted_answer(request, call.reading)
        try:
            translated = chat_answer(request, call.reading, answer)
        except ValueError as exc:
            raise not_understood(self._chat_url, answer) from exc
        spending.tell(translated.usage.total_tokens)
        return translated

    async def stream_chat_completion(
        self, request: ChatCompletionRequest, places: Places | None = None, render: Render = framed
    ) -> ChatStream:
        """The answer as a stream, once OpenAI has accepted the request. The caller owns it and must `aclose()` it.

        Its events are what `render` makes of the chunks. The call takes one of `places`, while there are, instead of
        queueing.

        Raises:
            Refusal: OpenAI cannot do what the request asks, or there is no place for the call.
            openai.APIError: the call failed.
        """
        call = await self._translated(request)
        translator = ChunkTranslator(request, call.reading)
        try:
            with self._lifecycle.abortable(), Spending(call.body) as spending:
                answer = await self._upstream.open(Call("POST", self._chat_url, call.body, is_stream=True), places)
        except Aborted:
            return AbortedStream(translator, render)
        if answer.content_type != "text/event-stream":
            answer.close()
            raise not_understood(self._chat_url, answer.content_type.encode(errors="replace"))
        return ChatStream(
            answer,
            translator,
            redacted=self._keys.redacted,
            lifecycle=self._lifecycle,
            spending=spending,
            render=render,
        )

    async def list_models(self) -> list[str]:
        """The ids of every model that the key can use.

        Raises:
            openai.APIError: the call failed.
        """
        answer = await self._upstream.read(Call("GET", self._models_url))
        try:
            return [model.id for model in _UpstreamModels.model_validate_json(answer).data]
        except ValidationError as exc:
            raise not_understood(self._models_url, answer) from exc

    async def _translated(self, request: ChatCompletionRequest) -> UpstreamCall:
        call = encode_request(request, self._catalogue, self._unsupported_params)
        call.reading.usage_details = self._usage_details
        await read_prompt(request, call)
        return call
