"""vLLM's behaviour over the client: served names, defaults, and the checks that need a model's limits."""

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
from app.features.llm.completions.merged_stream import MergedStream, Source, StreamWithTrailer, gather_or_cancel
from app.features.llm.completions.request import characters_to_encode, chat_request, only_echoes, prompts_of
from app.features.llm.completions.response import CompletionTranslator, sum_usage
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

UPSTREAM_MODELS_KEPT_S = 300.0
UPSTREAM_MODELS_FAILURE_KEPT_S = 5.0
CALLS_AT_ONCE = 16
"""Calls to OpenAI that one request makes at the same time, for its conversations or prompts."""


class LLMService:
    """What vLLM's endpoints do, answered by OpenAI."""

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
        """The whole answer.

        Raises:
            RequestError: the model is not served, or the request is beyond its limits.
            UpstreamError: OpenAI failed or refused.
        """
        return await self._client.create_chat_completion(self._with_defaults(request))

    async def stream_chat_completion(self, request: ChatCompletionRequest) -> ChatStream | AbortedStream:
        """The answer as a stream that OpenAI has accepted. The caller owns it and must `aclose()` it.

        Raises:
            RequestError: the model is not served, or the request is beyond its limits.
            UpstreamError: OpenAI failed or refused.
        """
        return await self._client.stream_chat_completion(self._with_defaults(request))

    async def create_batch(self, batch: BatchChatCompletionRequest) -> ChatCompletionResponse:
        """One answer with a choice for each conversation, in their order; usage is that of all together.

        Raises:
            RequestError: the model is not served, or the request is beyond its limits.
            UpstreamError: OpenAI failed or refused one of them; the others are cancelled.
        """
        responses = await self._responses([self._with_defaults(request) for request in batch.conversations()])
        choices = [
            choice.model_copy(update={"index": index})
            for index, response in enumerate(responses)
            for choice in response.choices[:1]
        ]
        usage = sum_usage([response.usage for response in responses])
        return responses[0].model_copy(update={"choices": choices, "usage": usage, "prompt_token_ids": None})

    async def create_completion(self, request: CompletionRequest) -> CompletionResponse:
        """The whole answer to a text completion: a chat for each prompt, so many at the same time.

        Raises:
            RequestError: the model is not served, or the request is beyond its limits.
            UpstreamError: OpenAI failed or refused one of them; the others are cancelled.
        """
        translator, chats = await self._text_completion(request)
        return translator.response(await self._responses(chats)) if chats else translator.echoes()

    async def stream_completion(self, request: CompletionRequest) -> StreamWithTrailer:
        """The same as a stream whose first calls OpenAI has accepted. The caller owns it and must `aclose()` it.

        Raises:
            RequestError: the model is not served, or the request is beyond its limits.
            UpstreamError: OpenAI failed or refused; none of the calls goes on.
        """
        translator, chats = await self._text_completion(request)
        async with self._client.reserve(min(len(chats), CALLS_AT_ONCE)) as permits:
            sources = [
                Source(partial(self._client.stream_chat_completion, chat, permits, partial(translator.events, number)))
                for number, chat in enumerate(chats)
            ]
            stream = sources[0] if len(sources) == 1 else MergedStream(sources, at_once=permits.total)
            await stream.open()
        return StreamWithTrailer(stream, translator.trailer)

    async def get_models(self) -> ModelsResponse:
        """A card for each name that clients may use.

        Raises:
            UpstreamError: every model of upstream is served, and its list could not be had.
        """
        names = self._catalogue.names
        if names is None:
            names = await self._upstream_models.names()
        return ModelsResponse(data=[self._card(name) for name in names])

    async def _responses(self, requests: Sequence[ChatCompletionRequest]) -> list[ChatCompletionResponse]:
        at_once = asyncio.Semaphore(CALLS_AT_ONCE)

        async def response(request: ChatCompletionRequest) -> ChatCompletionResponse:
            async with at_once:
                return await self._client.create_chat_completion(request)

        return await gather_or_cancel([response(request) for request in requests])

    async def _text_completion(
        self, request: CompletionRequest
    ) -> tuple[CompletionTranslator, list[ChatCompletionRequest]]:
        """The chats that answer a text completion, and what makes their answers into its own."""
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
        """The request with this server's model and temperature where the client left them out."""
        model = self._served_model(request)
        has_temperature = request.temperature is not None and "temperature" in request.model_fields_set
        if has_temperature and request.model == model:
            return request
        temperature = request.temperature if has_temperature else self._default_temperature
        completed = request.model_copy(update={"model": model, "temperature": temperature})
        if not has_temperature:
            # The client is not to be told that a model takes no temperature if it sent none.
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
    """The list of upstream's models, asked for once in a while and never twice at the same time."""

    def __init__(self, client: OpenAIClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._names: tuple[str, ...] = ()
        self._failure: UpstreamError | None = None
        self._expires_at = -math.inf
        self._asking = asyncio.Lock()

    async def names(self) -> tuple[str, ...]:
        """The ids, at most five minutes old, or older where OpenAI does not answer.

        Raises:
            UpstreamError: the list was never had.
        """
        async with self._asking:
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
            # The list of before is better than none. Without one, whoever asks in the next seconds is told the same.
            self._failure = None if self._names else exc
            if self._failure:
                self._expires_at = self._clock() + UPSTREAM_MODELS_FAILURE_KEPT_S
                return
        self._expires_at = self._clock() + UPSTREAM_MODELS_KEPT_S
