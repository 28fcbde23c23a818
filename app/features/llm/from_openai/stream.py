"""Stream OpenAI's response as vLLM's events."""

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
"""Encodes chat completion chunks as the events that the client gets."""

_CUT_SHORT = "The upstream service ended the stream before the answer was complete."


class ChatStream:
    """Iterates over vLLM's events of one response, encoded by `render`; each item has the events of one network read.

    It ends at OpenAI's `[DONE]` after every choice has finished. Any other end raises the openai SDK's exception,
    after the chunks before it. If the server shuts down first, the choices finish with `abort`.
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
            # Not a function of its own: a coroutine costs two more calls per event.
            try:
                data = await self._response.read()
            except openai.APIError:
                if not self._aborted:
                    raise
                data = b""
            if not data and not self._aborted:
                raise connection_error(self._url, _CUT_SHORT)
            events = self._translate(data)
            if self._aborted and not (self._done or self._failure):
                events += self._aborted_end()
            if events:
                return events
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Return the connection to the pool if the response is complete; otherwise close it, so that OpenAI stops."""
        self._lifecycle.forget(self._abort)
        # OpenAI sends one token per event, so the events received estimate the tokens written.
        self._usage_meter.estimate(written=self._events)
        try:
            if self._ended_by_upstream:
                await self._read_end_of_body()
        finally:
            self._response.close()

    async def _read_end_of_body(self) -> None:
        # The last bytes sometimes come in a separate packet. A short wait costs less than a new connection.
        with suppress(TimeoutError, openai.APIError):
            async with asyncio.timeout(END_OF_BODY_S):
                await self._response.read_all()

    def _abort(self) -> None:
        self._aborted = True
        # This wakes a pending read.
        self._response.close()

    def _aborted_end(self) -> bytes:
        self._done = True
        return self._render(self._translator.aborted_chunks())

    def _translate(self, data: bytes) -> bytes:
        try:
            events = self._decoder.feed(data)
        except ValueError as exc:
            raise invalid_response_error(self._url, b"") from exc
        translated: list[bytes] = []
        at = 0
        while (end := events.find(END, at)) >= 0 and not (self._done or self._failure):
            rendered = self._templates.render(events, at)
            if rendered is None:
                translated.append(self._translate_event(events[at:end]))
                at = end + len(END)
            else:
                run, count, at = rendered
                translated.append(run)
                self._events += count
        return b"".join(translated)

    def _translate_event(self, event: bytes) -> bytes:
        payload = event_data(event)
        if payload is None:
            return b""
        if payload == b"[DONE]":
            self._finish()
            return b""
        try:
            chunk = self._parse_event(payload, is_error=b"\n" in event and event_type(event) == b"error")
            chunks = self._translator.chunks(chunk)
        except openai.APIError as exc:
            self._failure = exc
            return b""
        except ValueError as exc:
            # It is not JSON, or not a chunk.
            self._failure = invalid_response_error(self._url, payload)
            self._failure.__cause__ = exc
            return b""
        self._done = self._translator.complete
        rendered = self._render(chunks) if chunks else b""
        text = self._translator.plain_text(chunk)
        if text is not None:
            self._templates.learn(event, rendered, text)
        return rendered

    def _finish(self) -> None:
        if self._translator.finished:
            self._done = self._ended_by_upstream = True
        else:
            self._failure = connection_error(self._url, _CUT_SHORT)

    def _parse_event(self, payload: bytes, *, is_error: bool) -> Chunk:
        """Parse an event's data as a chunk.

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
    """The stream of a call that was aborted before OpenAI accepted it: each choice finishes without text."""

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
        """Do nothing: there is no connection."""
