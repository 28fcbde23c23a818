"""Serve vLLM's endpoints through the client: served names, defaults, batches and text completions."""

import asyncio
import math
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial

from app.core.errors.upstream_errors import UpstreamError
from app.core.tokenization import encoding, to_thread_if_large
from app.features.llm.catalogue import Catalogue
from app.features.llm.client import OpenAIClient
from app.features.llm.completions.from_chat import CompletionTranslator, sum_usage
from app.features.llm.completions.merged_stream import MergedStream, Source, StreamWithTrailer, gather_or_cancel
from app.features.llm.completions.to_chat import characters_to_encode, chat_request, only_echoes, prompts_of
from app.features.llm.from_openai.stream import AbortedStream, ChatStream
from app.features.llm.schema import (
    BatchChatCompletionRequest,
    ChatCompletionRequest,
    ChatCompletionResponse,
    CompletionRequest,
    CompletionResponse,
    ModelInfo,
    ModelPermission,
    ModelsResponse,
)

UPSTREAM_MODELS_TTL_S = 300.0
UPSTREAM_MODELS_FAILURE_TTL_S = 5.0
CALLS_AT_ONCE = 16
"""The maximum of concurrent calls to OpenAI per request, one for each conversation or prompt."""


class LLMService:
    """The operations of vLLM's endpoints, served by OpenAI."""

    def __init__(
        self,
        openai_client: OpenAIClient,
        *,
        default_model: str = "gpt-4o-mini",
        default_temperature: float | None = 0.7,
        catalogue: Catalogue | None = None,
        completions_system_prompt: str = "",
    ) -> None:
        self._client = openai_client
        self._default_model = default_model
        self._default_temperature = default_temperature
        self._catalogue = catalogue or Catalogue({default_model: default_model})
        self._completions_system_prompt = completions_system_prompt
        self._upstream_models = UpstreamModels(openai_client)

    async def create_chat_completion(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        """Return the complete response.

        Raises:
            RequestError: the model is not served, or the request exceeds its limits.
            UpstreamError: OpenAI failed or rejected the call.
        """
        return await self._client.create_chat_completion(self._with_defaults(request))

    async def stream_chat_completion(self, request: ChatCompletionRequest) -> ChatStream | AbortedStream:
        """Return the response as a stream that OpenAI has accepted. The caller must `aclose()` it.

        Raises:
            RequestError: the model is not served, or the request exceeds its limits.
            UpstreamError: OpenAI failed or rejected the call.
        """
        return await self._client.stream_chat_completion(self._with_defaults(request))

    async def create_batch(self, batch: BatchChatCompletionRequest) -> ChatCompletionResponse:
        """Return one response with a choice for each conversation, in order, and the sum of their usage.

        Raises:
            RequestError: the model is not served, or the request exceeds its limits.
            UpstreamError: OpenAI failed or rejected one of the calls; the others are cancelled.
        """
        responses = await self._gather_responses([self._with_defaults(request) for request in batch.conversations()])
        choices = [
            choice.model_copy(update={"index": index})
            for index, response in enumerate(responses)
            for choice in response.choices[:1]
        ]
        usage = sum_usage([response.usage for response in responses])
        return responses[0].model_copy(update={"choices": choices, "usage": usage, "prompt_token_ids": None})

    async def create_completion(self, request: CompletionRequest) -> CompletionResponse:
        """Return the complete response to a text completion, by one chat completion for each prompt.

        Raises:
            RequestError: the model is not served, or the request exceeds its limits.
            UpstreamError: OpenAI failed or rejected one of the calls; the others are cancelled.
        """
        translator, chats = await self._split_completion(request)
        return translator.response(await self._gather_responses(chats)) if chats else translator.echoes()

    async def stream_completion(self, request: CompletionRequest) -> StreamWithTrailer:
        """Return the response as a stream whose first calls OpenAI has accepted. The caller must `aclose()` it.

        Raises:
            RequestError: the model is not served, or the request exceeds its limits.
            UpstreamError: OpenAI failed or rejected a call; the others are cancelled.
        """
        translator, chats = await self._split_completion(request)
        async with self._client.reserve(min(len(chats), CALLS_AT_ONCE)) as permits:
            sources = [
                Source(partial(self._client.stream_chat_completion, chat, permits, partial(translator.events, number)))
                for number, chat in enumerate(chats)
            ]
            stream = sources[0] if len(sources) == 1 else MergedStream(sources, at_once=permits.total)
            await stream.open()
        return StreamWithTrailer(stream, translator.trailer)

    async def get_models(self) -> ModelsResponse:
        """Return vLLM's model card for each name that clients may use.

        Raises:
            UpstreamError: every upstream model is served, and listing them failed.
        """
        names = self._catalogue.names
        if names is None:
            names = await self._upstream_models.names()
        return ModelsResponse(data=[self._card(name) for name in names])

    async def _gather_responses(self, requests: Sequence[ChatCompletionRequest]) -> list[ChatCompletionResponse]:
        semaphore = asyncio.Semaphore(CALLS_AT_ONCE)

        async def response(request: ChatCompletionRequest) -> ChatCompletionResponse:
            async with semaphore:
                return await self._client.create_chat_completion(request)

        return await gather_or_cancel([response(request) for request in requests])

    async def _split_completion(
        self, request: CompletionRequest
    ) -> tuple[CompletionTranslator, list[ChatCompletionRequest]]:
        """Return the chat requests for a text completion, and the translator of their responses."""
        model = self._served_model(request)
        make = partial(
            prompts_of,
            request,
            family=self._catalogue.family(model),
            load=lambda: encoding(self._catalogue.encoding(model)),
        )
        prompts = await to_thread_if_large(characters_to_encode(request), make)
        continued = [] if only_echoes(request) else prompts
        chats = [chat_request(request, prompt, model, self._completions_system_prompt) for prompt in continued]
        return CompletionTranslator(request, model, prompts), chats

    def _with_defaults(self, request: ChatCompletionRequest) -> ChatCompletionRequest:
        """Return the request with the default model and temperature if the client named none."""
        model = self._served_model(request)
        has_temperature = request.temperature is not None and "temperature" in request.model_fields_set
        if has_temperature and request.model == model:
            return request
        temperature = request.temperature if has_temperature else self._default_temperature
        completed = request.model_copy(update={"model": model, "temperature": temperature})
        if not has_temperature:
            # A temperature that the client did not send must not be reported as dropped.
            completed.model_fields_set.discard("temperature")
        return completed

    def _served_model(self, request: ChatCompletionRequest | CompletionRequest) -> str:
        model = (request.model if "model" in request.model_fields_set else None) or self._default_model
        self._catalogue.require_served(model)
        return model

    def _card(self, name: str) -> ModelInfo:
        now = int(time.time())
        return ModelInfo(
            id=name,
            created=now,
            root=self._catalogue.upstream_model(name),
            max_model_len=self._catalogue.family(name).context,
            permission=[ModelPermission(id=f"modelperm-{uuid.uuid4().hex[:16]}", created=now)],
        )


class UpstreamModels:
    """A cache of upstream's model list, with at most one request for it at a time."""

    def __init__(self, client: OpenAIClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._names: tuple[str, ...] = ()
        self._failure: UpstreamError | None = None
        self._expires_at = -math.inf
        self._refresh_lock = asyncio.Lock()

    async def names(self) -> tuple[str, ...]:
        """Return the model ids, at most five minutes old, or older while OpenAI fails.

        Raises:
            UpstreamError: OpenAI failed, and there is no earlier list.
        """
        async with self._refresh_lock:
            if self._clock() >= self._expires_at:
                await self._refresh()
            if self._failure:
                raise self._failure
            return self._names

    async def _refresh(self) -> None:
        try:
            self._names = tuple(await self._client.list_models())
            self._failure = None
        except UpstreamError as exc:
            # An old list is better than none. Without one, the failure is cached for a few seconds.
            self._failure = None if self._names else exc
            if self._failure:
                self._expires_at = self._clock() + UPSTREAM_MODELS_FAILURE_TTL_S
                return
        self._expires_at = self._clock() + UPSTREAM_MODELS_TTL_S
