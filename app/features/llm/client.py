"""The only module that talks to OpenAI: vLLM's request in, vLLM's answer out, the openai SDK's exceptions up."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx2
import openai
from pydantic import ValidationError
from pydantic_core import from_json

from app.core.record import current_record
from app.features.llm.answers import ChunkTranslator, chat_answer
from app.features.llm.catalogue import Catalogue
from app.features.llm.schema import ChatCompletionRequest, ChatCompletionResponse, JSONObject
from app.features.llm.sse import EventDecoder
from app.features.llm.translation import encode_request

MAX_CONNECTIONS = 4096
"""aiohttp's own default is 100, which stalls the hundred-and-first stream."""
KEEPALIVE_S = 60

_STATUS_ERRORS: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
}

# Told to the client under these names. All else stays here: cookies, account ids, what OpenAI's proxies add.
_PASSED_HEADERS = {
    "x-request-id": "x-openai-request-id",
    "retry-after": "retry-after",
    "retry-after-ms": "retry-after-ms",
    "openai-processing-ms": "openai-processing-ms",
    **{
        name: name
        for what in ("requests", "tokens")
        for name in (f"x-ratelimit-limit-{what}", f"x-ratelimit-remaining-{what}", f"x-ratelimit-reset-{what}")
    },
}

# The SDK gets the body decoded, so these would lie.
_BODY_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding"})


@dataclass(slots=True)
class _Connection:
    """What the session's trace tells about the connection of one call."""

    reused: bool = False


async def _mark_reused(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.reused = True


def new_session(*, connect_timeout_s: float, read_timeout_s: float) -> aiohttp.ClientSession:
    """The session that carries all calls of a process. The caller closes it.

    It follows the environment's proxies (`HTTPS_PROXY`, `NO_PROXY`) and keeps no cookies: they would be one
    client's on another's calls. Both limits are in seconds; a stream may last as long as it is not silent.
    """
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_mark_reused)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s, sock_read=read_timeout_s),
        trace_configs=[trace],
        trust_env=True,
    )


class OpenAIClient:
    """OpenAI behind vLLM's requests and answers.

    Every failure of a call is raised as the openai SDK's exception class for it; `app.core.errors` says what
    becomes of each.
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
    ) -> None:
        # It supplies address and headers; it sends nothing, which is several times slower (docs/decisions).
        self._client = openai.AsyncOpenAI(
            api_key=api_key, base_url=base_url, organization=organization, project=project, max_retries=0
        )
        headers = {**self._client.default_headers, **self._client.auth_headers, "Accept-Encoding": "identity"}
        # The SDK marks what is not to be sent, and takes an empty OPENAI_ORG_ID for an organization.
        self._headers = {name: value for name, value in headers.items() if isinstance(value, str) and value}
        self._chat_url = f"{self._client.base_url}chat/completions"
        self._models_url = f"{self._client.base_url}models"
        self._catalogue = catalogue or Catalogue()
        self._session = session

    def attach(self, session: aiohttp.ClientSession) -> None:
        """Use `session` for all calls from now on; whoever opened it closes it."""
        self._session = session

    async def create_chat_completion(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        """The whole answer to a request that does not ask for a stream.

        Raises:
            Refusal: OpenAI cannot do what the request asks.
            openai.APIError: the call failed.
        """
        body = encode_request(request, self._catalogue)
        answer = await self._call("POST", self._chat_url, body)
        try:
            return chat_answer(request, answer)
        except ValidationError as exc:
            raise _not_understood(self._chat_url, answer) from exc

    async def stream_chat_completion(self, request: ChatCompletionRequest) -> "ChatStream":
        """The answer as a stream, once OpenAI has accepted the request. The caller owns it and must `aclose()` it.

        Raises:
            Refusal: OpenAI cannot do what the request asks.
            openai.APIError: the call failed.
        """
        body = encode_request(request, self._catalogue)
        response = await self._open("POST", self._chat_url, body)
        if response.content_type != "text/event-stream":
            response.close()
            raise _not_understood(self._chat_url, response.content_type.encode())
        return ChatStream(response, ChunkTranslator(request))

    async def list_models(self) -> list[str]:
        """The ids of every model that the key can use.

        Raises:
            openai.APIError: the call failed.
        """
        answer = await self._call("GET", self._models_url)
        try:
            return [model["id"] for model in from_json(answer)["data"]]
        except (ValueError, KeyError, TypeError) as exc:
            raise _not_understood(self._models_url, answer) from exc

    async def _call(self, method: str, url: str, body: bytes | None = None) -> bytes:
        response = await self._open(method, url, body)
        with _sdk_errors(url):
            async with response:
                return await response.read()

    async def _open(self, method: str, url: str, body: bytes | None = None) -> aiohttp.ClientResponse:
        """An accepted answer whose body is unread; the caller closes it."""
        with _sdk_errors(url):
            response = await self._send(method, url, body)
            current_record().upstream_headers = _passed_headers(response.headers)
            if response.status == 200:
                return response
            async with response:
                raise _status_error(response, await response.read())

    async def _send(self, method: str, url: str, body: bytes | None) -> aiohttp.ClientResponse:
        connection = _Connection()
        try:
            return await self._request(method, url, body, connection)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            # An idle connection may be closed by the other side just as it is used again; nothing was answered
            # then, so the call is made once more.
            if not connection.reused:
                raise
        return await self._request(method, url, body, _Connection())

    async def _request(
        self, method: str, url: str, body: bytes | None, connection: _Connection
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("OpenAIClient has no session yet: the application's lifespan attaches it")
        return await self._session.request(
            method,
            url,
            data=body,
            headers=self._headers,
            # A redirect would post the prompt to another host.
            allow_redirects=False,
            trace_request_ctx=connection,
        )


class ChatStream:
    """vLLM's chunks of one answer, in batches: as many as a read of the network brought.

    The end is OpenAI's `[DONE]`; anything else raises the openai SDK's exception for it, after the chunks that
    came before.
    """

    def __init__(self, response: aiohttp.ClientResponse, translator: ChunkTranslator) -> None:
        self._response = response
        self._url = str(response.url)
        self._translator = translator
        self._decoder = EventDecoder()
        self._done = False
        self._failure: openai.APIError | None = None

    def __aiter__(self) -> "ChatStream":
        return self

    async def __anext__(self) -> list[JSONObject]:
        while not self._done:
            if self._failure:
                raise self._failure
            batch = self._translated(await self._read())
            if batch:
                return batch
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Give the connection back if the answer has been read to its end; close it otherwise, which stops OpenAI."""
        self._response.close()

    async def _read(self) -> bytes:
        content = self._response.content
        with _sdk_errors(self._url):
            try:
                data = await content.readany()
            except aiohttp.ClientError:
                # aiohttp raises before it hands out what arrived just before the break, and only this gives it.
                data = content._read_nowait(-1)
                if not data:
                    raise
        if not data:
            raise _connection_error(self._url, "The upstream service ended the stream before the answer was complete.")
        return data

    def _translated(self, data: bytes) -> list[JSONObject]:
        batch: list[JSONObject] = []
        for payload in self._decoder.feed(data):
            if payload == b"[DONE]":
                self._done = True
                break
            try:
                event = self._event(payload)
            except openai.APIError as exc:
                self._failure = exc
                break
            batch += self._translator.chunks(event)
        return batch

    def _event(self, payload: bytes) -> JSONObject:
        try:
            event = from_json(payload)
        except ValueError as exc:
            raise _not_understood(self._url, payload) from exc
        if not isinstance(event, dict) or "error" in event:
            raise _event_error(self._url, event)
        return event


# --- the SDK's exceptions ---------------------------------------------------------------------------------------------


@contextmanager
def _sdk_errors(url: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise openai.APITimeoutError(_sdk_request(url)) from exc
    except aiohttp.ClientConnectorError as exc:
        raise _connection_error(url, "The upstream service could not be reached.") from exc
    except (aiohttp.ClientError, OSError) as exc:
        raise _connection_error(url, "The connection to the upstream service broke.") from exc


def _sdk_request(url: str) -> httpx2.Request:
    return httpx2.Request("POST", url)


def _connection_error(url: str, message: str) -> openai.APIConnectionError:
    return openai.APIConnectionError(message=message, request=_sdk_request(url))


def _not_understood(url: str, content: bytes) -> openai.APIResponseValidationError:
    response = httpx2.Response(200, content=content, request=_sdk_request(url))
    return openai.APIResponseValidationError(response, None)


def _event_error(url: str, event: object) -> openai.APIError:
    body = event.get("error") if isinstance(event, dict) else event
    return openai.APIError("The upstream service failed during the stream.", _sdk_request(url), body=body)


def _status_error(response: aiohttp.ClientResponse, content: bytes) -> openai.APIStatusError:
    """What the SDK raises for this answer: same class, message and attributes."""
    headers = [(name, value) for name, value in response.headers.items() if name.lower() not in _BODY_HEADERS]
    mirrored = httpx2.Response(
        response.status, headers=headers, content=content, request=_sdk_request(str(response.url))
    )
    body = _parsed(mirrored.text.strip())
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message") if isinstance(error, dict) and isinstance(body, dict) else None
    text = f"Error code: {response.status}" + (f" - {message}" if isinstance(message, str) and message else "")
    fallback = openai.InternalServerError if response.status >= 500 else openai.APIStatusError
    return _STATUS_ERRORS.get(response.status, fallback)(text, response=mirrored, body=error)


def _parsed(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        return text


def _passed_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {passed: headers[name] for name, passed in _PASSED_HEADERS.items() if name in headers}
