"""The server as a process: startup, startup errors and shutdown."""

import asyncio
import re
import signal
import ssl
import sys
from pathlib import Path
from tempfile import TemporaryFile

import httpx
import pytest
import trustme

from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.processes import ROOT, Process, environment, started
from tests.serving import served_over

KEY = "sk-test-0123456789"
SERVER = ("-m", "app", "--host", "127.0.0.1", "--port", "0")
UVICORN = ("-m", "uvicorn", "app.main:app", "--port", "0")


def hello(text: str = "hi", **fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}], **fields}


@pytest.mark.parametrize("command", [SERVER, UVICORN], ids=["python -m app", "uvicorn"])
async def test_a_started_server_responds_and_logs_each_request(
    command: tuple[str, ...], simulator: Simulator, tmp_path: Path
) -> None:
    variables = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url}
    async with started(*command, cwd=tmp_path, **variables) as server:
        async with httpx.AsyncClient(base_url=await server.url()) as client:
            response = await client.post(f"{CHAT}?secret=1", json=hello("안녕하세요"))
            await client.get("/nope")
            await client.get("/health")
        server.process.terminate()
        await server.ended()
        lines = server.answers().splitlines()

    assert response.status_code == 200
    assert KEY not in server.said
    assert [re.sub(r"127\.0\.0\.1:\d+", "CLIENT", line) for line in lines] == [
        f'INFO:     CLIENT - "POST {CHAT} HTTP/1.1" 200 OK',
        'INFO:     CLIENT - "GET /nope HTTP/1.1" 404 Not Found',
    ]


NO_KEY = "OPENAI_API_KEY is not set: set it in the environment or in .env"
BAD = {"OPENAI_API_KEY": KEY, "SERVED_MODELS": "{"}


@pytest.mark.parametrize(
    ("command", "status", "prefix", "variables", "line"),
    [
        (SERVER, 2, "llm-server: ", {}, NO_KEY),
        (UVICORN, 3, "ERROR:    ", BAD, "SERVED_MODELS: must be * or a JSON object of names"),
    ],
    ids=["no key", "bad setting, uvicorn"],
)
async def test_a_startup_error_is_one_line(
    command: tuple[str, ...], status: int, prefix: str, variables: dict[str, str], line: str, tmp_path: Path
) -> None:
    async with started(*command, cwd=tmp_path, **variables) as server:
        assert await server.ended() == status

    assert f"{prefix}{line}" in server.said
    assert "Traceback" not in server.said
    assert KEY not in server.said


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
async def test_a_stream_in_flight_is_finished_at_shutdown(
    sent: signal.Signals, simulator: Simulator, tmp_path: Path
) -> None:
    variables = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url}
    body = hello("[sim tokens=20 itl=0.02]", stream=True)
    async with started(*SERVER, cwd=tmp_path, **variables) as server, httpx.AsyncClient() as client:
        url = await server.url()
        async with client.stream("POST", url + CHAT, json=body) as response:
            lines = response.aiter_lines()
            await anext(lines)
            server.process.send_signal(sent)
            rest = [line async for line in lines if line]

        assert rest[-1] == "data: [DONE]"
        assert await server.ended() == 0


async def test_requests_beyond_the_shutdown_timeout_are_aborted_as_in_vllm(
    simulator: Simulator, tmp_path: Path
) -> None:
    variables = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url}
    command = (*SERVER, "--shutdown-timeout", "0")
    async with started(*command, cwd=tmp_path, **variables) as server, httpx.AsyncClient() as client:
        url = await server.url()
        bodies = [hello("[sim fault=slow seconds=600]", stream=stream) for stream in (False, True)]
        answering = asyncio.gather(*(client.post(url + CHAT, json=body) for body in bodies))
        await simulator.traffic.wait_for(lambda traffic: traffic.live == 2)
        server.process.terminate()

        for response in await answering:
            assert (response.status_code, response.text.count('"finish_reason":"abort"')) == (200, 1)
        assert await server.ended() == 0
    assert "Traceback" not in server.said
    await simulator.traffic.wait_for(lambda traffic: traffic.live == 0)


async def test_a_second_signal_stops_the_server_at_once(simulator: Simulator, tmp_path: Path) -> None:
    variables = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url}
    body = hello("[sim fault=stall seconds=600 after=1]", stream=True)
    async with started(*SERVER, cwd=tmp_path, **variables) as server, httpx.AsyncClient() as client:
        url = await server.url()
        with pytest.raises(httpx.RemoteProtocolError):
            async with client.stream("POST", url + CHAT, json=body) as response:
                lines = response.aiter_lines()
                await anext(lines)
                server.process.terminate()
                await server.wait_for_line("Waiting for connections|Shutting down")
                server.process.terminate()
                [line async for line in lines]

        assert await server.ended() == 0
    assert "Traceback" not in server.said
    await simulator.traffic.wait_for(lambda traffic: traffic.live == 0)


REFUSED = "OPENAI_API_KEY is refused by OpenAI: no request can be answered with it"


async def test_a_problem_with_openai_is_logged_at_startup(tmp_path: Path) -> None:
    async with Simulator(api_key="sk-another") as simulator:
        variables = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url, "STARTUP_CHECK": "warn"}
        async with started(*SERVER, cwd=tmp_path, **variables) as server:
            await server.wait_for_line(REFUSED)
            server.process.terminate()

            assert await server.ended() == 0
    assert "Traceback" not in server.said
    assert KEY not in server.said


@pytest.mark.parametrize(("command", "status"), [(SERVER, 2), (UVICORN, 3)], ids=["python -m app", "uvicorn"])
async def test_a_problem_with_openai_prevents_startup_if_configured(
    command: tuple[str, ...], status: int, tmp_path: Path
) -> None:
    async with Simulator(api_key="sk-another") as simulator:
        variables = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url, "STARTUP_CHECK": "require"}
        async with started(*command, cwd=tmp_path, **variables) as server:
            assert await server.ended() == status

    assert server.said.count(REFUSED) == 1
    assert "Traceback" not in server.said


async def test_a_silent_openai_delays_neither_startup_nor_shutdown(tmp_path: Path) -> None:
    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(be_silent, "127.0.0.1", 0)
    variables = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/v1",
        "STARTUP_CHECK": "warn",
    }
    async with silent, started(*SERVER, cwd=tmp_path, **variables) as server:
        async with httpx.AsyncClient(base_url=await server.url()) as client:
            assert (await client.get("/health")).status_code == 200
        server.process.terminate()

        assert await server.ended() == 0
    # It would be said at the end of the check, had that been waited for.
    assert "cannot be reached" not in server.said
    assert "Traceback" not in server.said


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_a_hanging_startup_check(sent: signal.Signals, tmp_path: Path) -> None:
    checking = asyncio.Event()

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        checking.set()
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(be_silent, "127.0.0.1", 0)
    variables = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/v1",
        "STARTUP_CHECK": "require",
    }
    async with silent, started(*SERVER, cwd=tmp_path, **variables) as server:
        async with asyncio.timeout(20):
            await checking.wait()
        server.process.send_signal(sent)

        assert await server.ended(timeout_s=5) == 0
    assert "Traceback" not in server.said
    assert "cannot be reached" not in server.said
    assert "running on" not in server.said


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_during_loading_ends_the_process(sent: signal.Signals, tmp_path: Path) -> None:
    loading = "import signal, sys\nprint('loading', file=sys.stderr, flush=True)\nsignal.pause()\n"
    (tmp_path / "uvicorn.py").write_text(loading)
    async with started(*SERVER, cwd=tmp_path, OPENAI_API_KEY=KEY) as server:
        await server.wait_for_line("loading")
        server.process.send_signal(sent)

        assert await server.ended(timeout_s=5) == 0
    assert server.said == "loading\n"


async def test_a_hanging_name_lookup_does_not_block_shutdown(tmp_path: Path) -> None:
    looking_up = """
import socket, sys, threading
look_up = socket.getaddrinfo
def look_up_or_hang(host, *rest, **more):
    if host != "hangs.invalid":
        return look_up(host, *rest, **more)
    print("looking up", file=sys.stderr, flush=True)
    threading.Event().wait()
socket.getaddrinfo = look_up_or_hang
"""
    (tmp_path / "sitecustomize.py").write_text(looking_up)
    # It would look up names in C.
    (tmp_path / "uvloop.py").write_text("raise ImportError")
    variables = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": "http://hangs.invalid/v1",
        "STARTUP_CHECK": "warn",
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
    }
    async with started(*SERVER, cwd=tmp_path, **variables) as server:
        await server.wait_for_line("looking up")
        server.process.terminate()

        assert await server.ended(timeout_s=5) == 0
    assert "Traceback" not in server.said


STREAMS = {
    "no standard output": ">&-",
    "no standard input and output": "<&- >&-",
    "nobody reads standard output": "> >(exec true)",
}


@pytest.mark.parametrize("redirection", STREAMS.values(), ids=STREAMS)
async def test_an_unwritable_access_log_does_not_stop_the_server(
    redirection: str, simulator: Simulator, tmp_path: Path
) -> None:
    command = ("bash", "-c", f'exec "$@" {redirection}', "bash", sys.executable, *SERVER)
    variables = environment(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=simulator.base_url)
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, env=variables, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    with TemporaryFile() as out:
        server = Process(process, out)
        try:
            async with httpx.AsyncClient(base_url=await server.url()) as client:
                statuses = [(await client.post(CHAT, json=hello())).status_code for _ in range(10)]
            process.terminate()
            status = await server.ended(timeout_s=5)
        finally:
            if process.returncode is None:
                process.kill()

    assert statuses == [200] * 10
    assert status == 0
    assert all(line.startswith(("INFO:     ", "OpenAI shuts down")) for line in server.said.splitlines())
    assert CHAT not in server.said


@pytest.mark.parametrize("keeps", ["standard output", "neither"])
async def test_a_closed_error_log_does_not_stop_the_server(keeps: str, simulator: Simulator, tmp_path: Path) -> None:
    with TemporaryFile() as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *SERVER,
            cwd=tmp_path,
            env=environment(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=simulator.base_url),
            stdout=out if keeps == "standard output" else asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        server = Process(process, out)
        try:
            url = await server.url()
            for number, pipe in ((1, process.stdout), (2, process.stderr)):
                if pipe:
                    process._transport.get_pipe_transport(number).close()  # type: ignore[attr-defined]
            async with httpx.AsyncClient(base_url=url) as client:
                statuses = [(await client.post(CHAT, json=hello("[sim fault=server_error]"))).status_code for _ in "ab"]
                statuses.append((await client.post(CHAT, json=hello())).status_code)
            process.terminate()
            async with asyncio.timeout(5):
                status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        lines = server.answers().splitlines()

    assert statuses == [500, 500, 200]
    assert status == 0
    assert len(lines) == (3 if keeps == "standard output" else 0)


class Proxy:
    """An HTTP proxy that records targets and connects to none."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readline()).decode().strip())
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
        writer.close()


@pytest.mark.parametrize(
    ("no_proxy", "asked"),
    [("", ["CONNECT api.example.test:443 HTTP/1.1"]), ("api.example.test", [])],
    ids=["HTTPS_PROXY", "NO_PROXY"],
)
async def test_the_environments_proxies_are_used(
    no_proxy: str, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy()
    listening = await asyncio.start_server(proxy, "127.0.0.1", 0)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    async with listening, served_over("https://api.example.test/v1") as url, httpx.AsyncClient() as client:
        response = await client.post(url + CHAT, json=hello())

    assert response.status_code == 502
    assert proxy.asked == asked


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_private_certificate_authority_from_the_environment_is_trusted(trusted: bool, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(str(bundle))

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 400 Bad Request\r\ncontent-length: 29\r\n\r\n{"error":{"message":"heard"}}')
        writer.close()

    upstream = await asyncio.start_server(refuse, "localhost", 0, ssl=context)
    variables = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": f"https://localhost:{upstream.sockets[0].getsockname()[1]}/v1",
        "SSL_CERT_FILE": str(bundle),
    }
    async with upstream, started(*SERVER, cwd=tmp_path, **variables) as server, httpx.AsyncClient() as client:
        response = await client.post(await server.url() + CHAT, json=hello())

    assert response.status_code == (400 if trusted else 502)
