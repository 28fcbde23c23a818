"""TLS and CORS by vLLM's flags."""

import asyncio
import json
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from app.__main__ import main
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.processes import environment, started
from tests.serving import served_over

SERVER = ("-m", "app", "--host", "127.0.0.1", "--port", "0")
ORIGIN = "https://page.example"


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    made.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    return made


async def test_the_server_supports_tls(authority: trustme.CA, tmp_path: Path) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    flags = ("--ssl-certfile", "server.pem", "--ssl-ca-certs", "ca.pem", "--ssl-cert-reqs", "2")
    async with started(*SERVER, *flags, cwd=tmp_path, OPENAI_API_KEY="sk-x") as server:
        url = (await server.wait_for_line(r"running on (https://\S+)"))[1]
        async with httpx.AsyncClient(base_url=url, verify=trusting) as stranger:
            with pytest.raises((httpx.TransportError, ssl.SSLError)):
                await stranger.get("/health")
        authority.issue_cert("client").configure_cert(trusting)
        async with httpx.AsyncClient(base_url=url, verify=trusting) as client:
            assert (await client.get("/health")).status_code == 200


async def test_clients_without_tls_1_3_get_a_modern_cipher(authority: trustme.CA, tmp_path: Path) -> None:
    old = ssl.create_default_context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    authority.configure_trust(old)
    async with started(*SERVER, "--ssl-certfile", "server.pem", cwd=tmp_path, OPENAI_API_KEY="sk-x") as server:
        port = int((await server.wait_for_line(r"running on https://\S+:(\d+)"))[1])
        _reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=old)
        name, *_ = writer.get_extra_info("cipher")
        writer.close()

    assert name.startswith("ECDHE-")
    assert "GCM" in name or "CHACHA20" in name


@pytest.mark.parametrize("asked", ["0", "2"])
async def test_the_docker_health_check_works_over_tls(asked: str, authority: trustme.CA, tmp_path: Path) -> None:
    variables = {"SSL_CERTFILE": "server.pem", "SSL_CA_CERTS": "ca.pem", "SSL_CERT_REQS": asked}
    async with started(*SERVER, cwd=tmp_path, OPENAI_API_KEY="sk-x", **variables) as server:
        port = (await server.wait_for_line(r"running on https://\S+:(\d+)"))[1]
        assert is_healthy(port, **variables)
        assert not is_healthy(port)
    assert not is_healthy(port, **variables)


async def test_the_docker_health_check_works_without_tls(tmp_path: Path) -> None:
    async with started(*SERVER, cwd=tmp_path, OPENAI_API_KEY="sk-x") as server:
        port = (await server.url()).rpartition(":")[2]
        assert is_healthy(port)
    assert not is_healthy(port)


def is_healthy(port: str, **variables: str) -> bool:
    """Run the image's health check; return its result."""
    command = [sys.executable, "-m", "app.healthcheck"]
    return not subprocess.run(
        command, env=environment(PORT=port, **variables), capture_output=True, check=False
    ).returncode


def encrypted(key: bytes) -> bytes:
    """A private key with a password."""
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"SSL_CERTFILE": "nope.pem"}, "SSL_CERTFILE, SSL_KEYFILE: "),
        ({"SSL_CERTFILE": "ca.pem"}, "SSL_CERTFILE, SSL_KEYFILE: "),
        ({"SSL_CERTFILE": "server.pem", "SSL_CIPHERS": "nope"}, "SSL_CIPHERS: "),
        ({"SSL_CERTFILE": "server.pem", "SSL_KEYFILE": "other.pem"}, "SSL_CERTFILE, SSL_KEYFILE: "),
        ({"SSL_CERTFILE": "server.pem", "SSL_KEYFILE": "encrypted.pem"}, "SSL_CERTFILE, SSL_KEYFILE: "),
        ({"SSL_CERTFILE": "server.pem", "SSL_CA_CERTS": ".env"}, "SSL_CA_CERTS: "),
        ({"SSL_KEYFILE": "server.pem"}, "SSL_KEYFILE needs SSL_CERTFILE"),
        ({"SSL_CERTFILE": "server.pem", "SSL_CERT_REQS": "2"}, "SSL_CERT_REQS needs SSL_CA_CERTS"),
        ({"ALLOWED_ORIGINS": "https://page.example"}, "ALLOWED_ORIGINS: must be JSON"),
    ],
    ids=[
        "no file",
        "no key in it",
        "ciphers",
        "another key",
        "an encrypted key",
        "no CAs in it",
        "only a key",
        "no authority",
        "no list",
    ],
)
def test_an_invalid_tls_or_cors_setting_is_one_line(
    authority: trustme.CA,
    variables: dict[str, str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / ".env").write_text("DEFAULT_TEMPERATURE=1\n")
    trustme.CA().issue_cert("other").private_key_pem.write_to_path(tmp_path / "other.pem")
    (tmp_path / "encrypted.pem").write_bytes(encrypted(authority.issue_cert("x").private_key_pem.bytes()))
    monkeypatch.chdir(tmp_path)
    for name, value in {"OPENAI_API_KEY": "sk-x", **variables}.items():
        monkeypatch.setenv(name, value)

    # An address that is none: what is not found wrong ends all the same.
    assert main(["--host", "256.0.0.1", "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


async def test_only_configured_origins_are_allowed(simulator: Simulator) -> None:
    asking = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    answers = []
    for origins in ("[]", f'["{ORIGIN}"]'):
        async with (
            served_over(simulator.base_url, allowed_origins=origins, vllm_api_key="k") as url,
            httpx.AsyncClient(base_url=url) as client,
        ):
            answers += [await client.options(CHAT, headers=asking), await client.get("/health", headers=asking)]

    assert [answer.status_code for answer in answers] == [400, 200, 200, 200]
    assert [answer.headers.get("access-control-allow-origin") for answer in answers] == [None, None, ORIGIN, ORIGIN]


@pytest.mark.parametrize("origins", [["*"], [ORIGIN], []])
async def test_responses_vary_by_origin_with_and_without_the_header(simulator: Simulator, origins: list[str]) -> None:
    async with (
        served_over(simulator.base_url, allowed_origins=json.dumps(origins)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        answers = [await client.get("/v1/models", headers=headers) for headers in ({}, {"Origin": "https://x.example"})]

    assert [answer.headers.get("vary") for answer in answers] == ["Origin", "Origin"]
