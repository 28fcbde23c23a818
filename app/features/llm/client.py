"""OpenAI behind vLLM's interface: vLLM's request in, vLLM's answer out, the openai SDK's exceptions up."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, closing
from datetime import date
from typing import Annotated
from urllib.parse import quote

import aiohttp
import httpx2
import openai
from pydantic import BaseModel, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from app.core.lifecycle import Aborted, Lifecycle
from app.core.limits.concurrency_limit import ConcurrencyLimiter, Permits
from app.core.metrics import Metrics, UpstreamMetrics
from app.core.redaction import Redactor
from app.features.llm.catalogue import Catalogue
from app.features.llm.from_openai.chat_completion import aborted_completion, chat_completion
from app.features.llm.from_openai.chunk_translator import ChunkTranslator
from app.features.llm.from_openai.stream import AbortedStream, ChatStream, Render
from app.features.llm.from_openai.usage_meter import BYTES_PER_TOKEN, UsageMeter
from app.features.llm.schema import ChatCompletionRequest, ChatCompletionResponse
from app.features.llm.to_openai.builder import UnsupportedParams
from app.features.llm.to_openai.context_window import check_context_window
from app.features.llm.to_openai.encode import UpstreamCall, encode_request
from app.features.llm.to_openai.reasoning_effort import EffortPolicy
from app.upstream.api_keys import ApiKeyPool
from app.upstream.sdk_errors import unexpected_response_error
from app.upstream.sse import encode_events
from app.upstream.timeouts import Timeouts
from app.upstream.upstream import Upstream, UpstreamRequest
from app.upstream.upstream_response import UpstreamResponse

MAX_ERROR_BYTES = 65_536
"""Where a stream was to come, no more is read of what came instead."""

MODEL_NOT_FOUND = "model_not_found"
"""OpenAI's code for a model that is unknown, not open to the key, or shut down."""


def _date_if_readable(value: object, validate: ValidatorFunctionWrapHandler) -> date | None:
    try:
        read: date | None = validate(value)
    except ValidationError:
        return None
    return read


class _UpstreamModel(BaseModel):
    id: str
    shutdown_date: Annotated[date | None, WrapValidator(_date_if_readable)] = None


class _UpstreamModels(BaseModel):
    data: list[_UpstreamModel]


async def _read_json(response: UpstreamResponse) -> bytes:
    """A body that may be an error, as far as an error goes; nothing of what is no JSON."""
    content = b""
    while "json" in response.content_type and len(content) < MAX_ERROR_BYTES and (more := await response.read()):
        content += more
    return content


def _no_http() -> httpx2.AsyncClient:
    """In the place of the SDK's own, which would load the certificates and the parts of an HTTP client for nothing."""
    return httpx2.AsyncClient(transport=httpx2.AsyncBaseTransport(), trust_env=False)


class OpenAIClient:
    """OpenAI behind vLLM's requests and answers.

    Every failure of a call is raised as the openai SDK's exception class for it; `app.core.errors.errors` says what
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
        effort_policy: EffortPolicy | None = None,
        further_keys: Sequence[str] = (),
        timeouts: Timeouts | None = None,
        max_attempts: int = 3,
        metrics: UpstreamMetrics | None = None,
        lifecycle: Lifecycle | None = None,
        concurrency_limiter: ConcurrencyLimiter | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        # It supplies address and headers. It sends nothing, for that is several times slower (docs/decisions).
        self._client = openai.AsyncOpenAI(
            api_key=api_key, base_url=base_url, organization=organization, project=project, http_client=_no_http()
        )
        self._redactor = redactor or Redactor([api_key, *further_keys])
        self._concurrency_limiter = concurrency_limiter or ConcurrencyLimiter(
            max_calls=4096, max_queued=0, queue_timeout_s=1
        )
        self._upstream = Upstream(
            str(self._client.base_url),
            self._headers(),
            ApiKeyPool([api_key, *further_keys]),
            redactor=self._redactor,
            timeouts=timeouts or Timeouts(),
            max_attempts=max_attempts,
            metrics=metrics or Metrics().upstream,
            concurrency_limiter=self._concurrency_limiter,
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
        self._effort_policy = effort_policy or EffortPolicy()
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
            RequestError: OpenAI cannot do what the request asks, or there is no place for the call.
            openai.APIError: the call failed.
        """
        call = await self._translated(request)
        try:
            with self._lifecycle.abortable(), UsageMeter(call.body) as usage_meter:
                response = await self._upstream.read(UpstreamRequest("POST", self._chat_url, call.body))
        except Aborted:
            return aborted_completion(request, call.plan)
        except openai.NotFoundError as exc:
            if not self._goes_on_after(exc, request, call):
                raise
            return await self.create_chat_completion(request)
        try:
            translated = chat_completion(request, call.plan, response)
        except ValueError as exc:
            raise self._not_expected(self._chat_url, response) from exc
        if translated.usage and translated.usage.total_tokens:
            usage_meter.record(translated.usage.total_tokens)
        else:
            usage_meter.estimate(written=len(response) // BYTES_PER_TOKEN)
        return translated

    async def stream_chat_completion(
        self, request: ChatCompletionRequest, permits: Permits | None = None, render: Render = encode_events
    ) -> ChatStream | AbortedStream:
        """The answer as a stream, once OpenAI has accepted the request. The caller owns it and must `aclose()` it.

        Its events are what `render` makes of the chunks. The call takes one of `places`, while there are, instead of
        queueing.

        Raises:
            RequestError: OpenAI cannot do what the request asks, or there is no place for the call.
            openai.APIError: the call failed.
        """
        call = await self._translated(request)
        translator = ChunkTranslator(request, call.plan)
        try:
            with self._lifecycle.abortable(), UsageMeter(call.body) as usage_meter:
                response = await self._upstream.open(
                    UpstreamRequest("POST", self._chat_url, call.body, is_stream=True), permits
                )
                if response.content_type != "text/event-stream":
                    with closing(response):
                        raise self._not_expected(self._chat_url, await _read_json(response))
        except Aborted:
            return AbortedStream(translator, render)
        except openai.NotFoundError as exc:
            if not self._goes_on_after(exc, request, call):
                raise
            return await self.stream_chat_completion(request, permits, render)
        return ChatStream(
            response,
            translator,
            redactor=self._redactor,
            lifecycle=self._lifecycle,
            usage_meter=usage_meter,
            render=render,
        )

    def reserve(self, calls: int) -> AbstractAsyncContextManager[Permits]:
        """Permits for up to `calls` calls at the same time, acquired at once; those that no call took are released.

        Raises:
            Overloaded: there is no room in the queue either, or no permit in time.
        """
        return self._concurrency_limiter.reserve(calls)

    def _not_expected(self, url: str, content: bytes) -> openai.APIError:
        """What an accepted response is that has another form than was asked for."""
        return unexpected_response_error(url, content, self._redactor)

    async def list_models(self) -> dict[str, date | None]:
        """The ids of every model that the key can use, each with the day OpenAI shuts it down, where that is known.

        Raises:
            openai.APIError: the call failed.
        """
        response = await self._upstream.read(UpstreamRequest("GET", self._models_url))
        try:
            listed = _UpstreamModels.model_validate_json(response).data
        except ValidationError as exc:
            raise self._not_expected(self._models_url, response) from exc
        return {model.id: model.shutdown_date for model in listed}

    async def has_model(self, model: str) -> bool:
        """Whether the key can use the model of this id.

        Raises:
            openai.APIError: the call failed in another way than not to find it.
        """
        try:
            await self._upstream.read(UpstreamRequest("GET", f"{self._models_url}/{quote(model, safe=':')}"))
        except openai.NotFoundError as exc:
            if exc.code != MODEL_NOT_FOUND:
                raise
            return False
        return True

    def _goes_on_after(self, exc: openai.NotFoundError, request: ChatCompletionRequest, call: UpstreamCall) -> bool:
        """Whether the request is to be sent once more, for the model that was not found has a successor by now.

        Raises:
            RequestError: the model has ended, and requests for it are refused.
        """
        return exc.code == MODEL_NOT_FOUND and self._catalogue.retire_not_found(request.model or "", call.model)

    async def _translated(self, request: ChatCompletionRequest) -> UpstreamCall:
        call = encode_request(
            request,
            self._catalogue,
            self._unsupported_params,
            usage_details=self._usage_details,
            effort_policy=self._effort_policy,
        )
        return await check_context_window(request, call)
