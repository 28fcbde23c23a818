"""The simulator's command line."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx
import pytest

from app.simulator.__main__ import main

Start = Callable[..., Coroutine[Any, Any, Process]]

READY = "simulator: OpenAI API on http://127.0.0.1:"
# Waits without missing a signal; prints the one that arrived and those still pending.
WAITS_FOR_SIGNALS = """
import signal, sys
awaited = {signal.SIGTERM, signal.SIGINT}
signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
print("child ready", flush=True)
print(int(signal.sigwait(awaited)), signal.sigpending(), flush=True)
sys.exit(7)
"""


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    running: list[Process] = []

    async def begin(*arguments: str) -> Process:
        command = (sys.executable, "-m", "app.simulator", *arguments)
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.returncode is None:
            process.terminate()
        # A command that outlives the simulator would keep the pipes open.
        async with asyncio.timeout(60):
            await process.communicate()


async def line(process: Process) -> str:
    assert process.stdout
    async with asyncio.timeout(60):
        return (await process.stdout.readline()).decode().rstrip("\n")


async def outcome(process: Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode, (out or b"").decode(), err.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_with_status_zero(start: Start, number: int) -> None:
    process = await start("--port", "0")
    ready = await line(process)
    assert ready.startswith(READY)
    assert ready.endswith("/v1")
    process.send_signal(number)
    assert await outcome(process) == (0, "", "")


async def test_a_signal_ends_the_process_during_a_response(start: Start) -> None:
    process = await start("--port", "0", "--time-to-first-token-s", "600")
    url = (await line(process)).rpartition(" ")[2]
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    headers = {"Authorization": "Bearer sk-a"}
    async with (
        httpx.AsyncClient() as client,
        client.stream("POST", url + "/chat/completions", json=body, headers=headers) as response,
    ):
        assert response.status_code == 200
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await process.wait() == 0


async def test_options_reach_the_server(start: Start) -> None:
    process = await start("--host", "localhost", "--port", "0", "--api-key", "mine", "--time-per-token-s", "0.001")
    url = (await line(process)).rpartition(" ")[2]
    assert url.startswith("http://localhost:")
    async with httpx.AsyncClient() as client:
        statuses = [
            (await client.get(url + "/models", headers={"Authorization": f"Bearer {key}"})).status_code
            for key in ("mine", "sk-other")
        ]
    assert statuses == [200, 401]


@pytest.mark.parametrize("by", ["flag", "variable"])
async def test_the_date_can_be_set(start: Start, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    monkeypatch.setenv("SIMULATOR_TODAY", "2027-01-15" if by == "variable" else "2027-01-13")
    given = ["--today", "2027-01-15"] if by == "flag" else []
    process = await start("--port", "0", "--no-shutdown-dates", *given)
    url = (await line(process)).rpartition(" ")[2]
    async with httpx.AsyncClient(headers={"Authorization": "Bearer sk-a"}) as client:
        shown = await client.get(url + "/models/gpt-4o-mini")
        other = await client.get(url + "/models/gpt-6-luna")
    assert (shown.status_code, other.status_code) == (404, 200)
    assert "shutdown_date" not in other.json()


@pytest.mark.parametrize("dashes", [["--"], []], ids=["dashes", "none"])
async def test_a_command_finds_the_simulator_in_its_environment(start: Start, dashes: list[str]) -> None:
    show = "import os; print(os.environ['OPENAI_BASE_URL'], os.environ['OPENAI_API_KEY'], os.environ['PATH'])"
    process = await start("--port", "0", *dashes, sys.executable, "-c", show)
    url = (await line(process)).rpartition(" ")[2]
    assert await outcome(process) == (0, f"{url} sk-simulator0123456789ABCD {os.environ['PATH']}\n", "")


async def test_a_command_gets_the_configured_key(start: Start) -> None:
    show = "import os; print(os.environ['OPENAI_API_KEY'])"
    process = await start("--port", "0", "--api-key", "mine", sys.executable, "-c", show)
    await line(process)
    assert await outcome(process) == (0, "mine\n", "")


async def test_the_simulator_serves_while_the_command_runs(start: Start) -> None:
    ask = (
        "import os, urllib.request as r;"
        "request = r.Request(os.environ['OPENAI_BASE_URL'] + '/models/gpt-4o',"
        " headers={'Authorization': 'Bearer ' + os.environ['OPENAI_API_KEY']});"
        "print(r.urlopen(request).status)"
    )
    process = await start("--port", "0", sys.executable, "-c", ask)
    await line(process)
    assert await outcome(process) == (0, "200\n", "")


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise SystemExit(5)", 5), ("import os; os.kill(os.getpid(), 9)", 137)],
    ids=["exit", "killed"],
)
async def test_the_exit_status_is_the_commands(start: Start, code: str, status: int) -> None:
    process = await start("--port", "0", sys.executable, "-c", code)
    assert (await outcome(process))[0] == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_is_forwarded_to_the_command_once(start: Start, number: int) -> None:
    process = await start("--port", "0", sys.executable, "-c", WAITS_FOR_SIGNALS)
    await line(process)
    assert await line(process) == "child ready"
    process.send_signal(number)
    assert await outcome(process) == (7, f"{int(number)} set()\n", "")


async def test_ctrl_c_reaches_the_command_only_through_the_simulator(start: Start) -> None:
    show = "import os; print(os.getpgrp() == os.getpid())"
    process = await start("--port", "0", sys.executable, "-c", show)
    await line(process)
    assert await outcome(process) == (0, "True\n", "")


async def test_a_missing_command_is_reported(start: Start) -> None:
    process = await start("--port", "0", "no-such-command")
    await line(process)
    assert await outcome(process) == (127, "", "simulator: cannot run no-such-command: No such file or directory\n")


async def test_a_closed_standard_output_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = (sys.executable, "-m", "app.simulator", "--port", "0", sys.executable, "-c", "")
    process = await asyncio.create_subprocess_exec(*command, stdout=writing, stderr=PIPE)
    os.close(writing)
    assert await outcome(process) == (0, "", "")


async def test_a_port_in_use_is_reported_in_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await start("--port", str(port))
        expected = f"simulator: cannot listen on 127.0.0.1:{port}: Address already in use\n"
        assert await outcome(process) == (2, "", expected)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--port", "many"], "argument --port: many is not between 0 and 65535"),
        (["--port", "65536"], "argument --port: 65536 is not between 0 and 65535"),
        (["--time-per-token-s", "-1"], "argument --time-per-token-s: -1 is not a number of seconds"),
        (["--time-to-first-token-s", "."], "argument --time-to-first-token-s: . is not a number of seconds"),
        (["--time-to-first-token-s", "nan"], "argument --time-to-first-token-s: nan is not a number of seconds"),
        (["--today", "15.1.2027"], "argument --today: 15.1.2027 is not a date such as 2027-01-15"),
        (["--speed", "1"], "unrecognized arguments: --speed"),
        (["--host", "256.0.0.1", "--port", "0"], "cannot listen on 256.0.0.1:0: "),
        (["--host", "a" * 70, "--port", "0"], f"cannot listen on {'a' * 70}:0: no host name"),
    ],
)
def test_an_invalid_option_is_reported_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"simulator: {problem}")
    assert captured.err.count("\n") == 1
