"""What `make run` prints before it starts anything."""

from pathlib import Path

import pytest

from app.announcement import HAS_KEY, NO_KEY, WRONG_SETTINGS, main


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_a_key_the_simulator_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == NO_KEY
    output = capsys.readouterr().out
    assert output.startswith("No OPENAI_API_KEY is set: responses come from the built-in simulator")
    assert "curl http://localhost:8002/v1/chat/completions" in output


def test_the_command_fits_the_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"OPENAI_API_KEYS": "sk-x", "PORT": "9000", "SSL_CERTFILE": "server.pem", "VLLM_API_KEY": "secret"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    assert main() == HAS_KEY
    output = capsys.readouterr().out
    assert output.startswith("Responses come from OpenAI")
    assert "curl https://localhost:9000/v1/chat/completions" in output
    assert "Authorization: Bearer KEY" in output
    assert "secret" not in output


def test_an_invalid_setting_is_not_reported_as_a_missing_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("PORT", "x")

    assert main() == WRONG_SETTINGS
    assert capsys.readouterr().err.startswith("llm-server: PORT: ")
