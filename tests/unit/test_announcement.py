"""What `make run` says before it starts anything."""

from pathlib import Path

import pytest

from app.announcement import HAS_KEY, NO_KEY, WRONG_SETTINGS, main


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_a_key_the_simulator_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == NO_KEY
    said = capsys.readouterr().out
    assert said.startswith("No OPENAI_API_KEY is set: responses come from the built-in simulator")
    assert "curl http://localhost:8002/v1/chat/completions" in said


def test_the_command_fits_the_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"OPENAI_API_KEYS": "sk-x", "PORT": "9000", "SSL_CERTFILE": "server.pem", "VLLM_API_KEY": "secret"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    assert main() == HAS_KEY
    said = capsys.readouterr().out
    assert said.startswith("Responses come from OpenAI")
    assert "curl https://localhost:9000/v1/chat/completions" in said
    assert "Authorization: Bearer KEY" in said
    assert "secret" not in said


def test_a_setting_that_cannot_work_is_no_missing_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("PORT", "x")

    assert main() == WRONG_SETTINGS
    assert capsys.readouterr().err.startswith("llm-server: PORT: ")
