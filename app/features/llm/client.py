"""Send vLLM's requests to OpenAI and return vLLM's responses; failures are the openai SDK's exceptions."""

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
"""How much of an unexpected response is read, such as an error instead of the requested stream."""

MODEL_NOT_FOUND = "model_not_found"
"""OpenAI's code for a model that is unknown, not available to the key, or shut down."""


def _date_or_none(value: object, validate: ValidatorFunctionWrapHandler) -> date | None:
    try:
        parsed: date | None = validate(value)
    except ValidationError:
        return None
    return parsed


class _UpstreamModel(BaseModel):
    id: str
    shutdown_date: Annotated[date | None, WrapValidator(_date_or_none)] = None


class _UpstreamModels(BaseModel):
    data: list[_UpstreamModel]


async def _read_json(response: UpstreamResponse) -> bytes:
    """Read a body that may be an error, up to about `MAX_ERROR_BYTES`. Empty if its type is not JSON."""
    content = b""
    while "json" in response.content_type and len(content) < MAX_ERROR_BYTES and (more := await response.read()):
        content += more
    return content


def _unused_http_client() -> httpx2.AsyncClient:
    """Replace the SDK's HTTP client, which is never used but would load certificates."""
    return httpx2.AsyncClient(transport=httpx2.AsyncBaseTransport(), trust_env=False)


class OpenAIClient:
    """Serves vLLM's requests by calling OpenAI.

    A failed call raises the openai SDK's exception for it; `app.core.errors.upstream_errors` maps each to a response.
    Calls use `api_key` or one of `further_keys`.
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
        # The SDK only supplies the URL and headers. Sending with it is several times slower (docs/decisions/0001).
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            organization=organization,
            project=project,
            http_client=_unused_http_client(),
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
        # The SDK adds a slash unless the URL has no path.
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
        # The SDK has a marker for headers to omit, and sends an empty OPENAI_ORG_ID.
        return {name: value for name, value in headers.items() if isinstance(value, str) and value}

    def attach(self, session: aiohttp.ClientSession) -> None:
        """Use `session` for all further calls. The caller closes it."""
        self._upstream.attach(session)

    async def create_chat_completion(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        """Return the response to a request that is not a stream; an aborted one if the server shuts down first.

        Raises:
            RequestError: OpenAI does not support the request, or no permit is free.
            openai.APIError: the call failed.
        """
        call = await self._encode(request)
        try:
            with self._lifecycle.abortable(), UsageMeter(call.body) as usage_meter:
                response = await self._upstream.read(UpstreamRequest("POST", self._chat_url, call.body))
        except Aborted:
            return aborted_completion(request, call.plan)
        except openai.NotFoundError as exc:
            if not self._has_successor(exc, request, call):
                raise
            return await self.create_chat_completion(request)
        try:
            translated = chat_completion(request, call.plan, response)
        except ValueError as exc:
            raise self._unexpected_response(self._chat_url, response) from exc
        if translated.usage and translated.usage.total_tokens:
            usage_meter.record(translated.usage.total_tokens)
        else:
            usage_meter.estimate(written=len(response) // BYTES_PER_TOKEN)
        return translated

    async def stream_chat_completion(
        self, request: ChatCompletionRequest, permits: Permits | None = None, render: Render = encode_events
    ) -> ChatStream | AbortedStream:
        """Return the response as a stream once OpenAI has accepted the request. The caller must `aclose()` it.

        `render` encodes its chunks as events. The call uses one of `permits` while there are any; otherwise it queues.

        Raises:
            RequestError: OpenAI does not support the request, or no permit is free.
            openai.APIError: the call failed.
        """
        call = await self._encode(request)
        translator = ChunkTranslator(request, call.plan)
        try:
            with self._lifecycle.abortable(), UsageMeter(call.body) as usage_meter:
                response = await self._upstream.open(
                    UpstreamRequest("POST", self._chat_url, call.body, is_stream=True), permits
                )
                if response.content_type != "text/event-stream":
                    with closing(response):
                        raise self._unexpected_response(self._chat_url, await _read_json(response))
        except Aborted:
            return AbortedStream(translator, render)
        except openai.NotFoundError as exc:
            if not self._has_successor(exc, request, call):
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
        """Acquire up to `calls` permits together, for concurrent calls. Unused ones are released on exit.

        Raises:
            Overloaded: the queue is full too, or no permit was free in time.
        """
        return self._concurrency_limiter.reserve(calls)

    def _unexpected_response(self, url: str, content: bytes) -> openai.APIError:
        """Return the error for a successful response in an unexpected form."""
        return unexpected_response_error(url, content, self._redactor)

    async def list_models(self) -> dict[str, date | None]:
        """Return the id of every model that the key can use, with its shutdown date if known.

        Raises:
            openai.APIError: the call failed.
        """
        response = await self._upstream.read(UpstreamRequest("GET", self._models_url))
        try:
            listed = _UpstreamModels.model_validate_json(response).data
        except ValidationError as exc:
            raise self._unexpected_response(self._models_url, response) from exc
        return {model.id: model.shutdown_date for model in listed}

    async def has_model(self, model: str) -> bool:
        """Whether the key can use the model of this id.

        Raises:
            openai.APIError: the call failed for another reason than an unknown model.
        """
        try:
            await self._upstream.read(UpstreamRequest("GET", f"{self._models_url}/{quote(model, safe=':')}"))
        except openai.NotFoundError as exc:
            if exc.code != MODEL_NOT_FOUND:
                raise
            return False
        return True

    def _has_successor(self, exc: openai.NotFoundError, request: ChatCompletionRequest, call: UpstreamCall) -> bool:
        """Whether the model that was not found has a successor to retry the request with.

        Raises:
            RequestError: the model has been shut down, and requests for it are rejected.
        """
        return exc.code == MODEL_NOT_FOUND and self._catalogue.retire_not_found(request.model or "", call.model)

    async def _encode(self, request: ChatCompletionRequest) -> UpstreamCall:
        call = encode_request(
            request,
            self._catalogue,
            self._unsupported_params,
            usage_details=self._usage_details,
            effort_policy=self._effort_policy,
        )
        return await check_context_window(request, call)
