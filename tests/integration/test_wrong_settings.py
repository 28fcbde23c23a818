"""Every invalid setting prints one line to stderr that names it, and exits with status 2."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from app.__main__ import main
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.processes import started
from tests.serving import served_over

KEY = "sk-test-0123456789"
SECRET = "geheim"
NOT_UTF_8 = os.fsdecode(b"\xff\xfe")
DEEP = "[" * 5000
HUGE = "9" * 5000
LONG_LABEL = "a" * 70

BASE_URLS = [
    "localhost:8003/v1",
    "ftp://localhost/v1",
    "unix:///run/openai.sock",
    "/v1",
    "http:/localhost/v1",
    "http:///v1",
    "http://:8003/v1",
    "http://?v1",
    "http://127.0.0.1:abc/v1",
    "http://127.0.0.1:99999/v1",
    "http://127.0.0.1:0/v1",
    "http://127.0.0.1:/v1",
    f"http://127.0.0.1:{HUGE}/v1",
    "http://999.1.1.1/v1",
    "http://::1/v1",
    "http://[::1/v1",
    "http://[::1]x:80/v1",
    "http://[nonsense]/v1",
    "http://ex\u00e4mple.com/v1",
    "http://ex\u00e4mple..com/v1",
    "http://example..com/v1",
    f"http://{LONG_LABEL}.com/v1",
    "http://local host/v1",
    "http://localhost\\@elsewhere/v1",
    "http://localhost/v1\nHost: elsewhere",
    "http://localhost/%zz",
    "http://localhost/v1/../admin",
    f"http://{SECRET}@localhost/v1",
    f"http://me:{SECRET}@localhost/v1",
    f"http://localhost/v1?key={SECRET}",
    "http://localhost/v1?",
    "http://localhost/v1#part",
]
PROXIES = [
    "socks5://127.0.0.1:1080",
    f"socks5h://me:{SECRET}@127.0.0.1:1080",
    "ftp://proxy:21",
    f"me:{SECRET}@proxy:abc",
    f"http://me:{SECRET}@:3128",
    "http://proxy:99999",
    "http://",
    "://proxy",
    "pr\u00f6xy:3128",
    "proxy 3128",
    NOT_UTF_8,
]
SETTINGS = [
    ("OPENAI_API_KEY", ["sk-se cret", "sk-\u00e9", "sk-\nx", "sk-\x7f", NOT_UTF_8]),
    ("OPENAI_API_KEYS", ["sk-1,sk-se cret", "sk-1,sk-\u00e9", "sk-1,\x1b", NOT_UTF_8]),
    ("OPENAI_ORG_ID", ["org-\u00e9", "org- x", "org-\r\nX: y", NOT_UTF_8]),
    ("OPENAI_PROJECT_ID", ["proj_\u00e9", "proj_ x", NOT_UTF_8]),
    ("OPENAI_BASE_URL", BASE_URLS),
    ("DEFAULT_MODEL", [NOT_UTF_8, "a\x1bb"]),
    (
        "SERVED_MODELS",
        ["{", "[]", "{}", '"a"', DEEP, '{"a": 1}', '{"a\\nb": 1}', '{"a": "\\ud800"}', '{"": "a"}'],
    ),
    (
        "MODEL_FAMILIES",
        ["{", "[]", DEEP, '{"a": ' * 5000, '{"m": {"context": NaN}}', '{"m": {"context": 1e999}}', NOT_UTF_8],
    ),
    ("MODEL_FAMILIES", ['{"m\\n": {"context": 0}}', '{"m": {"contxt": 1}}', '{"m": {"efforts": ["much"]}}']),
    ("DEFAULT_TEMPERATURE", ["warm", "2.5", "-1", "nan", "inf", "1e999", HUGE]),
    ("COMPLETIONS_SYSTEM_PROMPT", [NOT_UTF_8]),
    ("UNSUPPORTED_PARAMS", ["ignore", NOT_UTF_8]),
    ("ENABLE_PROMPT_TOKENS_DETAILS", ["perhaps"]),
    ("ENABLE_TOKENIZER_INFO_ENDPOINT", ["2"]),
    ("VLLM_API_KEY", [" , ", "key\x1b", "ke\ny", NOT_UTF_8]),
    *[
        (name, ["-1", "x", "1.5", "nan", "inf", "1e999", "9" * 30, HUGE])
        for name in (
            "KEY_REQUESTS_PER_MINUTE",
            "KEY_TOKENS_PER_MINUTE",
            "KEY_CONCURRENT_REQUESTS",
            "MAX_UPSTREAM_CALLS",
            "MAX_NUM_QUEUED_REQS",
            "MAX_BODY_BYTES",
            "UPSTREAM_MAX_ATTEMPTS",
            "SHUTDOWN_TIMEOUT_S",
            "PORT",
        )
    ],
    *[
        (name, ["-1", "x", "nan", "inf", "1e999", "9" * 30, HUGE])
        for name in (
            "QUEUE_TIMEOUT_S",
            "UPSTREAM_CONNECT_TIMEOUT_S",
            "UPSTREAM_FIRST_BYTE_TIMEOUT_S",
            "UPSTREAM_IDLE_TIMEOUT_S",
            "UPSTREAM_TOTAL_TIMEOUT_S",
            "SSE_KEEP_ALIVE_INTERVAL",
        )
    ],
    *[
        (
            name,
            ["*", "https://page.example", '{"a": 1}', "[1]", '["\u00e9"]', '["a\\r\\nSet-Cookie: b"]', DEEP, NOT_UTF_8],
        )
        for name in ("ALLOWED_ORIGINS", "ALLOWED_METHODS", "ALLOWED_HEADERS")
    ],
    ("ALLOW_CREDENTIALS", ["perhaps"]),
    ("PORT", ["65536", "80 81", "http"]),
    (
        "HOST",
        [
            LONG_LABEL,
            "ex\u00e4mple..com",
            "nowhere.invalid",
            "unix:/run/x.sock",
            "[::1]",
            "192.0.2.1",
            "a b",
            NOT_UTF_8,
        ],
    ),
    ("SSL_CERTFILE", ["nope.pem", ".", "not-a-certificate.pem", NOT_UTF_8]),
    ("SSL_KEYFILE", ["server.pem", NOT_UTF_8]),
    ("SSL_CERT_REQS", ["3", "required", "1", "2"]),
    ("STARTUP_CHECK", ["yes"]),
    ("HTTPS_PROXY", PROXIES),
    ("https_proxy", PROXIES[:2]),
    ("ALL_PROXY", PROXIES),
    ("SSL_CERT_FILE", ["nope.pem", ".", "not-a-certificate.pem"]),
    ("SSL_CERT_DIR", ["nowhere"]),
]
CASES = [(name, value) for name, values in SETTINGS for value in values]


@pytest.fixture
def held_port() -> Iterator[int]:
    """A port that is in use, so that a server which finds nothing wrong with its settings does not start either."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder.getsockname()[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_port: int) -> Path:
    """The working directory of a server whose only problem is its port."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "not-a-certificate.pem").write_text("nonsense\n")
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    for name, value in {"OPENAI_API_KEY": KEY, "HOST": "127.0.0.1", "PORT": str(held_port)}.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a server prints if it cannot start."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.isprintable() or captured.err.removesuffix("\n").isprintable()
    assert SECRET not in captured.err
    assert KEY not in captured.err
    return captured.err.removesuffix("\n").removeprefix("llm-server: ")


@pytest.mark.parametrize(("name", "value"), CASES, ids=[f"{name}={ascii(value)[:30]}" for name, value in CASES])
@pytest.mark.usefixtures("folder")
def test_an_invalid_setting_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)

    line = said(capsys)

    assert name in line
    assert "in use" not in line
    assert len(line) < 400


@pytest.mark.usefixtures("folder")
def test_a_port_in_use_is_named(held_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys) == f"HOST, PORT: 127.0.0.1 port {held_port} is already in use"


def test_a_port_without_permission_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bind = socket.socket.bind

    def bind_as_a_user(self: socket.socket, address: tuple[str, int]) -> None:
        if address[1] < 1024:
            raise PermissionError(13, "Permission denied")
        bind(self, address)

    monkeypatch.setattr(socket.socket, "bind", bind_as_a_user)
    monkeypatch.setenv("PORT", "80")

    assert said(capsys) == "PORT: this user may not listen on port 80"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port"], "argument --port: expected one argument"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--port", "x"], "PORT: "),
        (["--host", LONG_LABEL], "HOST: "),
    ],
)
@pytest.mark.usefixtures("folder")
def test_an_invalid_flag_is_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in said(capsys, *arguments)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PORT=\xff\xfe\n", ".env cannot be read: it is not UTF-8"),
        ("PORT=8002\n".encode("utf-16"), ".env cannot be read: it is not UTF-8"),
        (b'DEFAULT_MODEL=a\nSERVED_MODELS="{\n', ".env: line 2 is not NAME=value"),
        (b"just words\n", ".env: line 1 is not NAME=value"),
        (b"OPENAI_BASEURL=http://localhost:1\n", "OPENAI_BASEURL in .env is not a setting"),
        (b"HTTPS_PROXY=http://proxy:1\n", "HTTPS_PROXY has no effect in .env: set it in the environment"),
        (b'DEFAULT_MODEL="a\0b"\n', "DEFAULT_MODEL: must have no control characters"),
        (b"\xef\xbb\xbfDEFAULT_TEMPERATURE=x\n", "DEFAULT_TEMPERATURE: Input should be a valid number"),
        (b"DEFAULT_TEMPERATURE\n", None),
    ],
)
def test_an_invalid_file_is_named(
    content: bytes, words: str | None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".env").write_bytes(content)

    assert (words or "is already in use") in said(capsys)


@pytest.mark.parametrize("target", [".", "nowhere", "/proc/self/mem"], ids=["a folder", "nothing", "unreadable"])
def test_an_unreadable_file_is_named(target: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / ".env").symlink_to(target)

    assert said(capsys).startswith(".env cannot be read: ")


@pytest.mark.parametrize(
    "variables",
    [
        {"OPENAI_BASE_URL": "http://127.0.0.1:99999/v1"},
        {"OPENAI_BASE_URL": "http://ex\u00e4mple..com/v1"},
        {"HOST": LONG_LABEL},
        {"VLLM_API_KEY": NOT_UTF_8},
        {"MODEL_FAMILIES": DEEP},
        {"HTTPS_PROXY": "socks5://127.0.0.1:1080"},
        {"SSL_CERT_FILE": "nope.pem"},
        {"PORT": "in use"},
    ],
    ids=lambda variables: next(iter(variables)),
)
async def test_the_process_prints_one_line_and_exits(variables: dict[str, str], held_port: int, tmp_path: Path) -> None:
    given = {"OPENAI_API_KEY": KEY, "HOST": "127.0.0.1", "PORT": str(held_port)}
    given |= {name: value for name, value in variables.items() if value != "in use"}
    async with started("-m", "app", cwd=tmp_path, **given) as server:
        assert await server.ended() == 2
        assert server.answers() == ""

    assert server.said.count("\n") == 1
    assert next(iter(variables)) in server.said.partition(": ")[2].partition(": ")[0]


@pytest.mark.parametrize("url", ["http://localhost:1", "http://localhost:1/", "http://localhost:1//"])
@pytest.mark.usefixtures("folder")
def test_a_base_url_without_a_path_is_completed_and_logged(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)

    assert main([]) == 2
    assert caplog.messages == ["OPENAI_BASE_URL has no path: http://localhost:1/v1 is used"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_BASE_URL", "http://[::1]:8003/v1"),
        ("OPENAI_BASE_URL", "HTTPS://llm_server.example.com./openai/v1/"),
        ("OPENAI_BASE_URL", "http://xn--exmple-cua.com/v1"),
        ("HTTPS_PROXY", "proxy:3128"),
        ("HTTPS_PROXY", f"me:{SECRET}@proxy:3128"),
        ("HTTPS_PROXY", f"https://me:{SECRET}@[::1]:3128/"),
        ("HTTP_PROXY", "socks5://of-no-concern"),
        ("VLLM_API_KEY", "schl\u00fcssel"),
        ("ALLOWED_ORIGINS", json.dumps(["https://page.example"])),
        ("WEB_CONCURRENCY", "many"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_valid_settings_are_accepted(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)

    assert said(capsys).endswith("is already in use")


async def test_calls_go_to_the_completed_base_url(simulator: Simulator) -> None:
    async with served_over(simulator.base_url.removesuffix("/v1")) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post(CHAT, json={"messages": [{"role": "user", "content": "hi"}]})

    assert response.status_code == 200
