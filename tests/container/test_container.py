"""The container image. `make test-container` builds it first; requires a Docker engine."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch

import httpx
import pytest

from tests.conftest import CHAT, LIVE_TESTS
from tests.container.docker import IMAGE, Container, compose_command, docker, network, running
from tests.processes import ROOT, environment

KEY = "sk-container-test-key"
PUBLISHED = ("--publish", "127.0.0.1:0:8002")


@pytest.fixture(scope="module")
def simulated() -> Iterator[tuple[str, ...]]:
    """Options of `docker run` for a server that uses a simulator in another container."""
    simulator = ("--host", "0.0.0.0", "--port", "8003")
    with network() as name:
        options = ("--network", name, "--network-alias", "simulator", "--entrypoint", "python")
        with running(*options, arguments=("-m", "app.simulator", *simulator)):
            variables = (f"OPENAI_API_KEY={KEY}", "OPENAI_BASE_URL=http://simulator:8003/v1")
            yield ("--network", name, *PUBLISHED, *(word for variable in variables for word in ("--env", variable)))


@pytest.fixture(scope="module")
def server(simulated: tuple[str, ...]) -> Iterator[Container]:
    with running(*simulated, "--health-interval", "1s") as container:
        wait_for_health(container.url)
        yield container


def wait_for_health(url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)  # a container can only be polled
    raise TimeoutError(f"no response from {url}/health")


def run_live_scenarios(url: str) -> None:
    """Run the live tests against `url`; a failure shows their output."""
    tests = [sys.executable, "-m", "pytest", "-q", f"tests/integration/{LIVE_TESTS}"]
    done = subprocess.run(
        tests, cwd=ROOT, env=environment(LLM_SERVER_URL=url), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="as it is"),
        pytest.param(("--volume", f"{ROOT}:/app"), id="with the folder mounted"),
        pytest.param(("--read-only", "--cap-drop", "ALL"), id="read-only, without capabilities"),
    ],
)
def test_live_scenarios_pass(simulated: tuple[str, ...], options: tuple[str, ...]) -> None:
    with running(*simulated, *options) as container:
        run_live_scenarios(container.url)


def test_a_flag_reaches_the_server(simulated: tuple[str, ...]) -> None:
    with running(*simulated, arguments=("--shutdown-timeout", "-1")) as container:
        assert container.ended() == 2
        assert "SHUTDOWN_TIMEOUT_S: " in docker_logs(container)


def docker_logs(container: Container) -> str:
    done = subprocess.run(["docker", "logs", container.id], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_a_missing_key_is_reported_in_one_line() -> None:
    with running() as container:
        assert container.ended() == 2
        assert docker_logs(container) == (
            "llm-server: OPENAI_API_KEY is not set: set it in the environment or in .env\n"
        )


def health(container: Container) -> str:
    """Return the result of Docker's health check once there is one."""
    deadline = time.monotonic() + 30
    while (status := container.inspect("{{.State.Health.Status}}")) == "starting" and time.monotonic() < deadline:
        time.sleep(0.2)  # Docker can only be polled
    return status


def test_the_health_check_passes(server: Container) -> None:
    assert health(server) == "healthy"


def test_the_health_check_uses_the_configured_port(simulated: tuple[str, ...]) -> None:
    with running(*simulated, "--env", "PORT=9000", "--health-interval", "1s") as container:
        assert health(container) == "healthy"


def test_it_runs_as_one_process_without_a_shell_and_not_as_root(server: Container) -> None:
    processes = docker("top", server.id, "-o", "pid,uid,args").splitlines()[1:]
    config = json.loads(docker("inspect", "--format", "{{json .Config}}", IMAGE))

    assert [process.split()[1:] for process in processes] == [["10001", "python", "-m", "app"]]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["python", "-m", "app"]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["ExposedPorts"] == {"8002/tcp": {}}
    assert config["Labels"]["org.opencontainers.image.title"] == "llm-server"


@contextmanager
def streaming(url: str, text: str) -> Iterator[Iterator[str]]:
    """The lines of a stream whose first line has arrived."""
    body = {"messages": [{"role": "user", "content": text}], "stream": True}
    with httpx.stream("POST", url + CHAT, json=body, timeout=30) as response:
        lines = response.iter_lines()
        next(lines)
        yield (line for line in lines if line)


def test_sigterm_lets_a_stream_finish(simulated: tuple[str, ...]) -> None:
    with running(*simulated) as container:
        wait_for_health(container.url)
        with streaming(container.url, "[sim tokens=40 itl=0.05]") as lines:
            docker("kill", "--signal", "TERM", container.id)
            assert list(lines)[-1] == "data: [DONE]"

        assert container.ended() == 0


def test_sigterm_aborts_streams_after_the_timeout(simulated: tuple[str, ...]) -> None:
    with running(*simulated, "--env", "SHUTDOWN_TIMEOUT_S=1") as container:
        wait_for_health(container.url)
        with streaming(container.url, "[sim fault=stall after=1 seconds=600]") as lines:
            docker("kill", "--signal", "TERM", container.id)
            *_, finish, done = lines
            assert container.ended() == 0

        assert '"finish_reason":"abort"' in finish
        assert done == "data: [DONE]"
        assert "Traceback" not in docker_logs(container)


# Files that a running server does not need, as shell patterns.
UNWANTED = ("/app/*test*", "*/.env*", "/app/Makefile", "/app/.*", "*/.cache/*", "/opt/venv/bin/pip*", "*/gcc", "*/make")


def test_the_image_has_no_unneeded_files(server: Container) -> None:
    files = docker(
        "exec", "--user", "0", server.id, "find", "/app", "/opt", "/root", "/home", "-type", "f"
    ).splitlines()
    tools = server.run("sh", "-c", "command -v gcc cc g++ make curl git || true")

    assert "/app/app/main.py" in files
    assert [path for path in files if any(fnmatch(path, pattern) for pattern in UNWANTED)] == []
    assert tools == ""
    assert server.run("ls", "-A", "/app") == "app"


def test_the_server_cannot_write_its_own_files(server: Container) -> None:
    find = "find / -xdev -writable -not -type l -not -path '/proc/*' -not -path '/dev/*' 2>/dev/null || true"

    # World-writable in Debian; --read-only makes these read-only too.
    assert set(server.run("sh", "-c", find).splitlines()) <= {"/tmp", "/var/tmp", "/run/lock", "/var/lock"}


def test_nothing_is_writable_with_read_only(simulated: tuple[str, ...]) -> None:
    with running(*simulated, "--read-only") as container:
        wait_for_health(container.url)
        written = container.run("sh", "-c", "touch /tmp/x /app/x /opt/venv/x 2>/dev/null; ls /tmp /app")

    assert "x" not in written.split()


def test_the_image_size_over_its_base_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [int(docker("inspect", "--format", "{{.Size}}", image)) for image in (IMAGE, "python:3.13-slim")]

    with capsys.disabled():
        print(f"\nimage: {sizes[0] / 1e6:.0f} MB, of which {(sizes[0] - sizes[1]) / 1e6:.0f} MB over its base")
    # The vocabularies take 39 MB.
    assert sizes[0] - sizes[1] < 115e6


@contextmanager
def composed(*options: str, service: str, **variables: str) -> Iterator[list[str]]:
    """`docker-compose up -d SERVICE` as a separate project; yields the prefix of further commands."""
    compose = [*compose_command(), "--project-name", f"llmtest{uuid.uuid4().hex[:8]}", *options]
    env = {**os.environ, "PORT": "0", **variables}
    subprocess.run([*compose, "up", "--detach", service], cwd=ROOT, env=env, check=True)
    try:
        yield compose
    finally:
        subprocess.run([*compose, "down", "--volumes"], cwd=ROOT, env=env, check=True)


def published(compose: list[str], service: str) -> str:
    done = subprocess.run([*compose, "port", service, "8002"], cwd=ROOT, capture_output=True, text=True, check=True)
    return f"http://127.0.0.1:{done.stdout.strip().rpartition(':')[2]}"


def test_compose_runs_the_server_with_openai(simulated: tuple[str, ...]) -> None:
    service = "llm-server"
    variables = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http://simulator:8003/v1"}
    with composed(service=service, **variables) as compose:
        ids = subprocess.run([*compose, "ps", "-q"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        docker("network", "connect", simulated[1], ids.strip())
        run_live_scenarios(published(compose, service))


def test_compose_runs_the_server_with_the_simulator() -> None:
    service = "llm-server-simulated"
    with composed("--profile", "simulator", service=service) as compose:
        run_live_scenarios(published(compose, service))
