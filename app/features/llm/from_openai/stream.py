"""One streamed answer of OpenAI's, read as vLLM's chunks."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

import openai
from pydantic_core import from_json

from app.core.lifecycle import Lifecycle
from app.core.redaction import Redactor
from app.features.llm.from_openai.chunk_translator import ChunkTranslator
from app.features.llm.from_openai.event_template import TemplateCache
from app.features.llm.from_openai.openai_chunks import Chunk, checked_chunk, token_counts
from app.features.llm.from_openai.usage_meter import UsageMeter
from app.features.llm.schema import JSONObject
from app.upstream.sdk_errors import connection_error, event_error, invalid_response_error, parse, says_error
from app.upstream.sse import END, EventDecoder, encode_events, event_data, event_type
from app.upstream.upstream_response import UpstreamResponse

END_OF_BODY_S = 0.1
Render = Callable[[Iterable[JSONObject]], bytes]
"""Makes chunks of a chat into the events that the client gets for them."""

_CUT_SHORT = "The upstream service ended the stream before the answer was complete."


class ChatStream:
    """vLLM's chunks of one answer as `render` makes them events, as many at a time as a read of the network brought.

    The end is OpenAI's `[DONE]` after every choice has ended; anything else raises the openai SDK's exception for it,
    after the chunks that came before. If the server ends first, the choices end as aborted.
    """

    def __init__(
        self,
        response: UpstreamResponse,
        translator: ChunkTranslator,
        *,
        redactor: Redactor,
        lifecycle: Lifecycle,
        usage_meter: UsageMeter,
        render: Render = encode_events,
    ) -> None:
        self._response = response
        self._redactor = redactor
        self._url = response.url
        self._translator = translator
        self._render = render
        self._decoder = EventDecoder()
        self._templates = TemplateCache()
        self._ended_by_upstream = False
        self._done = False
        self._aborted = False
        self._failure: openai.APIError | None = None
        self._lifecycle = lifecycle
        self._usage_meter = usage_meter
        self._events = 0
        lifecycle.on_abort(self._abort)

    def __aiter__(self) -> "ChatStream":
        return self

    async def __anext__(self) -> bytes:
        while not self._done:
            if self._failure:
                raise self._failure
            # Read here and not in a function of its own: whatever waits is called twice for each event.
            try:
                data = await self._response.read()
            except openai.APIError:
                if not self._aborted:
                    raise
                data = b""
            if not data and not self._aborted:
                raise connection_error(self._url, _CUT_SHORT)
            events = self._translated(data)
            if self._aborted and not (self._done or self._failure):
                events += self._end_aborted()
            if events:
                return events
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Give the connection back if the answer has been read to its end; close it otherwise, which stops OpenAI."""
        self._lifecycle.forget(self._abort)
        # OpenAI sends a token in an event of its own.
        self._usage_meter.estimate(written=self._events)
        try:
            if self._ended_by_upstream:
                await self._end_of_body()
        finally:
            self._response.close()

    async def _end_of_body(self) -> None:
        # It is a packet of its own now and then, and worth the wait: a new connection costs more.
        with suppress(TimeoutError, openai.APIError):
            async with asyncio.timeout(END_OF_BODY_S):
                await self._response.read_all()

    def _abort(self) -> None:
        self._aborted = True
        # Whoever waits for more is woken by it.
        self._response.close()

    def _end_aborted(self) -> bytes:
        self._done = True
        return self._render(self._translator.aborted_chunks())

    def _translated(self, data: bytes) -> bytes:
        try:
            events = self._decoder.feed(data)
        except ValueError as exc:
            raise invalid_response_error(self._url, b"") from exc
        made: list[bytes] = []
        at = 0
        while (end := events.find(END, at)) >= 0 and not (self._done or self._failure):
            rendered = self._templates.render(events, at)
            if rendered is None:
                made.append(self._made_of(events[at:end]))
                at = end + len(END)
            else:
                run, count, at = rendered
                made.append(run)
                self._events += count
        return b"".join(made)

    def _made_of(self, event: bytes) -> bytes:
        payload = event_data(event)
        if payload is None:
            return b""
        if payload == b"[DONE]":
            self._end()
            return b""
        try:
            chunk = self._understood(payload, is_error=b"\n" in event and event_type(event) == b"error")
            chunks = self._translator.chunks(chunk)
        except openai.APIError as exc:
            self._failure = exc
            return b""
        except ValueError as exc:
            # Not JSON, or not the shape of a chunk.
            self._failure = invalid_response_error(self._url, payload)
            self._failure.__cause__ = exc
            return b""
        self._done = self._translator.complete
        made = self._render(chunks) if chunks else b""
        text = self._translator.plain_text(chunk)
        if text is not None:
            self._templates.learn(event, made, text)
        return made

    def _end(self) -> None:
        if self._translator.finished:
            self._done = self._ended_by_upstream = True
        else:
            self._failure = connection_error(self._url, _CUT_SHORT)

    def _understood(self, payload: bytes, *, is_error: bool) -> Chunk:
        """The chunk that an event says.

        Raises:
            ValueError: it is neither a chunk nor an error.
            openai.APIError: it is an error.
        """
        event = parse(payload) if is_error else from_json(payload, allow_inf_nan=False)
        if is_error or says_error(event):
            raise event_error(self._url, event, self._redactor)
        chunk = checked_chunk(event)
        self._events += 1
        if chunk["usage"] and (counts := token_counts(chunk["usage"])):
            self._usage_meter.record(counts["total_tokens"])
        return chunk


class AbortedStream:
    """The chunks of a call that was given up before OpenAI accepted it: the end of its choices."""

    def __init__(self, translator: ChunkTranslator, render: Render) -> None:
        self._end: bytes | None = render(translator.aborted_chunks())

    def __aiter__(self) -> "AbortedStream":
        return self

    async def __anext__(self) -> bytes:
        if self._end is None:
            raise StopAsyncIteration
        end, self._end = self._end, None
        return end

    async def aclose(self) -> None:
        """There is nothing to close."""
