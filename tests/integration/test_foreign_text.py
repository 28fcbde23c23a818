"""Foreign text in responses and in all output of a server process: no key, no prompt, no forged line."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.conftest import CHAT
from tests.processes import Process, started
from tests.raw_upstream import http_response, raw_server

KEY = "Zyx+wvU/tsR==0123"
CLIENTS_KEY = "clients+key/456"
FURTHER = {"OPENAI_API_KEYS": "further+key/789", "OPENAI_ORG_ID": "Acme-Corp", "OPENAI_PROJECT_ID": "Omega-Project"}
FORMS = {
    "plain": KEY,
    "JSON": KEY.replace("+", "\\u002b").replace("/", "\\/").replace("=", "\\u003d"),
    "JSON in JSON": KEY.replace("+", "\\\\u002b").replace("/", "\\\\\\/"),
    "percent": KEY.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D"),
    "percent in JSON": KEY.replace("+", "\\u00252B").replace("/", "%2f"),
    "HTML": KEY.replace("+", "&#43;").replace("/", "&#x2F;"),
    "HTML with zeros": KEY.replace("+", "&#0000000000043;").replace("/", "&#x00000000002F;"),
    "HTML without an end": KEY.replace("+", "&#43").replace("/", "&#0047"),
    "JavaScript": KEY.replace("+", "\\\\u{2b}"),
    "Python": KEY.replace("+", "\\\\U0000002b"),
    "octal": KEY.replace("+", "\\\\053"),
    "percent and u": KEY.replace("+", "%u002B"),
    "two lines": f"{KEY[:5]}\\r\\n    {KEY[5:]}",
    "quoted-printable": f"{KEY[:5]}=\\n{KEY[5:]}",
    "zero width": f"{KEY[:5]}\\u200b{KEY[5:]}",
    "soft hyphens": f"{KEY[:3]}\\u00ad\\u00ad{KEY[3:8]}\\u00ad{KEY[8:]}",
    "percent on two lines": f"{KEY[:5]}%0A{KEY[5:]}".replace("+", "%2B"),
}
"""The key as JSON text may spell it."""
PROMPT = "the patient has"
FORGED = 'INFO:     10.0.0.1:1 - "GET /forged HTTP/1.1" 200 OK'
GOOD = {
    "id": "x",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {}}],
}


@dataclass
class Upstream:
    """Sends `response` for every request."""

    response: bytes = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or b"0")
            await reader.readexactly(length)
            writer.write(self.response)
            await writer.drain()


@dataclass
class Running:
    """A server process, its client with all responses, and its upstream."""

    upstream: Upstream
    process: Process
    client: httpx.AsyncClient
    responses: list[str] = field(default_factory=list)

    async def post(self, response: bytes, *, prompt: str = PROMPT, headers: Any = None, **fields: Any) -> str:
        self.upstream.response = response
        body = {"messages": [{"role": "user", "content": prompt}], **fields}
        reply = await self.client.post(CHAT, json=body, headers=headers)
        text = "\n".join([*map(str, reply.headers.items()), reply.text])
        self.responses.append(text)
        return text

    async def log(self) -> str:
        """All output of the process, which this ends."""
        self.process.process.terminate()
        await self.process.ended()
        return self.process.said + self.process.answers()


@asynccontextmanager
async def running(folder: Path, **settings: str) -> AsyncIterator[Running]:
    upstream = Upstream()
    given = {"OPENAI_API_KEY": KEY, "VLLM_API_KEY": CLIENTS_KEY, "UPSTREAM_MAX_ATTEMPTS": "1", **settings}
    async with raw_server(upstream) as url:
        variables = {"OPENAI_BASE_URL": url, **given}
        async with started("-m", "app", "--host", "127.0.0.1", "--port", "0", cwd=folder, **variables) as process:
            headers = {"authorization": f"Bearer {CLIENTS_KEY}"}
            async with httpx.AsyncClient(base_url=await process.url(), headers=headers, timeout=20) as client:
                yield Running(upstream, process, client)


def error(written: str, *, status: str = "500 X", headers: str = "") -> bytes:
    """An error response with the JSON text `written` in each of its texts."""
    text = f'"{written}"'
    body = f'{{"error":{{"message":{text},"type":{text},"param":{text},"code":{text},{text}:1}}}}'
    return http_response(body.encode(), status=status, headers=headers)


def stream(*events: str) -> bytes:
    body = "".join(f"data: {event}\n\n" for event in events).encode()
    return http_response(body, headers="content-type: text/event-stream\r\n")


def shows_a_key(text: str) -> bool:
    return any(part in text for part in ("Zyx", "wvU", "tsR", "clients", "further", "Acme", "Omega"))


async def test_no_form_of_a_key_is_in_a_response_or_the_log(tmp_path: Path) -> None:
    async with running(tmp_path, **FURTHER) as server:
        for form in FORMS.values():
            written = f"the key {form}, the client's {CLIENTS_KEY}, {', '.join(FURTHER.values())}"
            for status in ("400 X", "404 X", "408 X", "429 X", "500 X", "520 X"):
                await server.post(error(written, status=status))
            await server.post(
                stream(json.dumps(GOOD), f'{{"error":{{"message":"{written}","code":"{form}"}}}}'), stream=True
            )
            await server.post(http_response(f'{{"error":"{written}"}}'.encode()))
            await server.post(http_response(f"<html>{written}".encode(), status="502 X"))
        log = await server.log()

    assert sum("[redacted]" in text for text in server.responses) == len(FORMS) * 7
    assert [text for text in server.responses if shows_a_key(text)] == []
    assert "OpenAI: InternalServerError, status 500" in log
    assert not shows_a_key(log)


async def test_no_key_is_in_a_header_that_is_passed_on(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        for value in (KEY, f"req-{KEY}", "Zyx%2BwvU%2FtsR%3D%3D0123", "sk-proj-abc***def", CLIENTS_KEY):
            names = ("x-request-id", "openai-processing-ms", "x-ratelimit-reset-tokens", "retry-after")
            headers = "".join(f"{name}: {value}\r\n" for name in names)
            text = await server.post(error("No.", status="500 X", headers=headers))
            assert text.count("[redacted]") == len(names)
        text = await server.post(error("No.", headers="x-request-id: req_1\r\n"))
        log = await server.log()

    assert "('x-openai-request-id', 'req_1')" in text
    assert not any(map(shows_a_key, server.responses))
    assert not shows_a_key(log)
    assert "status 500, request req_1" in log


async def test_the_log_quotes_no_prompt_and_no_response(tmp_path: Path) -> None:
    whole = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": PROMPT}}]})
    async with running(tmp_path) as server:
        for status in ("400 X", "401 X", "403 X", "409 X", "429 X", "500 X", "520 X"):
            await server.post(error(f"I cannot answer: {PROMPT}", status=status))
        await server.post(http_response(whole.encode()))
        await server.post(http_response(whole[:-9].encode()))
        await server.post(stream(json.dumps({"choices": PROMPT}), whole), stream=True)
        await server.post(stream(json.dumps({**GOOD, "choices": [{PROMPT: PROMPT}]})), stream=True)
        await server.post(stream(f'{{"error":{{"message":"{PROMPT}","type":"server_error"}}}}'), stream=True)
        await server.post(stream(f'{{"{PROMPT}'), stream=True)
        log = await server.log()

    assert PROMPT not in log
    assert "input_value" not in log
    assert "OpenAI: AuthenticationError, status 401, answered with 502" in log
    assert "OpenAI: APIError, type server_error, answered with 500" in log


UNPRINTABLE = ["\n", "\r", "\x1b[2J", "\x85", "\u2028", "\u202e", "\0"]


async def test_no_text_forges_a_line_of_the_log(tmp_path: Path) -> None:
    async with running(tmp_path, SERVED_MODELS="*") as server:
        for character in UNPRINTABLE:
            text = f"x{character}{FORGED}{character}"
            written = json.dumps(text)[1:-1]
            for status in ("403 X", "500 X"):
                await server.post(error(written, status=status), model=text)
            await server.post(stream(f'{{"error":{{"message":"{written}","type":"{written}"}}}}'), stream=True)
            await server.client.get(f"/v1/{quote(text)}")
        await server.post(error("No."), headers={"x-forwarded-for": f"10.0.0.2\x85{FORGED}".encode("latin-1")})
        await server.post(error("No."), headers={"x-forwarded-for": FORGED.removeprefix("INFO:     ")})
        await server.client.get(f"/v1/{'x' * 9_000}")
        log = await server.log()

    assert FORGED not in log.splitlines()
    assert log.replace("\n", "").isprintable()
    assert "10.0.0.2%5Cx85INFO:" in log
    assert '"GET /forged' not in log
    assert max(map(len, log.splitlines())) < 1_200


@pytest.mark.parametrize("check", ["warn", "require"])
async def test_a_proxys_password_is_not_shown(check: str, tmp_path: Path) -> None:
    proxy = Upstream(http_response(b"", status="407 Proxy Authentication Required"))
    async with raw_server(proxy) as url:
        settings = {
            "HTTPS_PROXY": url.removesuffix("/v1").replace("//", "//operator:pass-w%400rd@"),
            "OPENAI_BASE_URL": "https://api.example.test/v1",
            "STARTUP_CHECK": check,
            "OPENAI_API_KEY": KEY,
        }
        async with started("-m", "app", "--host", "127.0.0.1", "--port", "0", cwd=tmp_path, **settings) as process:
            if check == "warn":
                async with httpx.AsyncClient(base_url=await process.url(), timeout=20) as client:
                    response = await client.post(CHAT, json={"messages": [{"role": "user", "content": "hi"}]})
                assert (response.status_code, "pass-w" in response.text) == (502, False)
                process.process.terminate()
            await process.ended()
            output = process.said + process.answers()

    assert "pass-w" not in output
    assert "407" in output
    assert "://[redacted]@127.0.0.1" in output
