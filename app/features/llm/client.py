"""The only module that talks to OpenAI: vLLM's request in, vLLM's answer out, the openai SDK's exceptions up."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import openai
from pydantic import BaseModel, ValidationError

from app.core.record import current_record
from app.features.llm.answers import ChunkTranslator, chat_answer
from app.features.llm.catalogue import Catalogue
from app.features.llm.chat_stream import REDACTED, ChatStream
from app.features.llm.draft import UnsupportedParams
from app.features.llm.schema import ChatCompletionRequest, ChatCompletionResponse
from app.features.llm.sdk_errors import not_understood, sdk_errors, status_error
from app.features.llm.translation import UpstreamCall, encode_request

MAX_CONNECTIONS = 4096
"""aiohttp's own default is 100, which stalls the hundred-and-first stream."""
KEEPALIVE_S = 60

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

_PASSED_HEADER_LIMIT_CHARACTERS = 256


class _UpstreamModel(BaseModel):
    id: str


class _UpstreamModels(BaseModel):
    data: list[_UpstreamModel]


@dataclass(slots=True)
class _Connection:
    """What the session's trace tells about the connection of one call."""

    reused: bool = False


async def _mark_reused(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.reused = True


def new_session(*, connect_timeout_s: float, read_timeout_s: float) -> aiohttp.ClientSession:
    """The session that carries all calls of a process. The caller closes it.

    It keeps no cookies: they would be one client's on another's calls. Both limits are in seconds; a stream may last
    as long as it is not silent.
    """
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_mark_reused)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s, sock_read=read_timeout_s),
        trace_configs=[trace],
    )


class OpenAIClient:
    """OpenAI behind vLLM's requests and answers.

    Every failure of a call is raised as the openai SDK's exception class for it; `app.core.errors` says what
    becomes of each. The environment's proxies are followed (`HTTPS_PROXY`, `NO_PROXY`).
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
        self._proxy = _environment_proxy(self._chat_url)
        self._api_key = api_key.encode()
        self._catalogue = catalogue or Catalogue()
        self._unsupported_params = unsupported_params
        self._usage_details = usage_details
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
        call = self._translated(request)
        answer = await self._call("POST", self._chat_url, call.body)
        try:
            return chat_answer(request, call.reading, answer)
        except ValidationError as exc:
            raise not_understood(self._chat_url, answer) from exc

    async def stream_chat_completion(self, request: ChatCompletionRequest) -> ChatStream:
        """The answer as a stream, once OpenAI has accepted the request. The caller owns it and must `aclose()` it.

        Raises:
            Refusal: OpenAI cannot do what the request asks.
            openai.APIError: the call failed.
        """
        call = self._translated(request)
        response = await self._open("POST", self._chat_url, call.body)
        if response.content_type != "text/event-stream":
            response.close()
            raise not_understood(self._chat_url, response.content_type.encode())
        return ChatStream(response, ChunkTranslator(request, call.reading), secret=self._api_key)

    async def list_models(self) -> list[str]:
        """The ids of every model that the key can use.

        Raises:
            openai.APIError: the call failed.
        """
        answer = await self._call("GET", self._models_url)
        try:
            return [model.id for model in _UpstreamModels.model_validate_json(answer).data]
        except ValidationError as exc:
            raise not_understood(self._models_url, answer) from exc

    def _translated(self, request: ChatCompletionRequest) -> UpstreamCall:
        call = encode_request(request, self._catalogue, self._unsupported_params)
        call.reading.usage_details = self._usage_details
        return call

    async def _call(self, method: str, url: str, body: bytes | None = None) -> bytes:
        response = await self._open(method, url, body)
        with sdk_errors(url):
            async with response:
                return await response.read()

    async def _open(self, method: str, url: str, body: bytes | None = None) -> aiohttp.ClientResponse:
        """An accepted answer whose body is unread; the caller closes it."""
        with sdk_errors(url):
            response = await self._send(method, url, body)
            current_record().upstream_headers = _passed_headers(response.headers)
            if response.status == 200:
                return response
            async with response:
                content = (await response.read()).replace(self._api_key, REDACTED)
                raise status_error(url, response.status, response.headers, content)

    async def _send(self, method: str, url: str, body: bytes | None) -> aiohttp.ClientResponse:
        while True:
            connection = _Connection()
            try:
                return await self._request(method, url, body, connection)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # The other side may close an idle connection just as it is used again. The call is made once more,
                # on the next idle one or on a new one, whose failure is a failure.
                if not connection.reused:
                    raise

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
            proxy=self._proxy,
            # A redirect would post the prompt to another host.
            allow_redirects=False,
            trace_request_ctx=connection,
        )


def _passed_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What the client is to see of OpenAI's headers, as far as it can be sent on in a header."""
    given = {passed: headers[name] for name, passed in _PASSED_HEADERS.items() if name in headers}
    return {name: value for name, value in given.items() if _is_plain(value)}


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and len(value) <= _PASSED_HEADER_LIMIT_CHARACTERS


def _environment_proxy(url: str) -> str | None:
    """The proxy that the environment names for `url`.

    aiohttp would look it up too, but only together with ~/.netrc, whose entries collide with the API key.
    """
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
