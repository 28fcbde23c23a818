"""Settings from the environment and `.env`, and the errors for invalid ones."""

import re
from ipaddress import IPv6Address
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from yarl import URL

from app.core.config import Settings, SettingsError, documented_settings, load_settings
from app.core.settings.environment import VARIABLES
from app.core.settings.types import check_http_url
from tests.settings_documents import DOCUMENTS

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_documented_defaults() -> None:
    settings = load_settings()

    assert settings.openai_base_url == "https://api.openai.com/v1"
    assert (settings.default_model, settings.default_temperature) == ("gpt-4o-mini", 0.7)
    assert settings.port == 8002
    assert settings.served_models is None


def test_the_environment_overrides_the_file(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_folder / ".env").write_text("DEFAULT_MODEL=gpt-4o\nPORT=9000\n")
    monkeypatch.setenv("PORT", "9001")

    settings = load_settings()

    assert (settings.default_model, settings.port) == ("gpt-4o", 9001)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "SERVED_MODELS", "PORT"):
        monkeypatch.setenv(name, " ")

    settings = load_settings()

    assert settings.openai_api_key is None
    assert settings.openai_org_id is None
    assert (settings.openai_base_url, settings.port) == ("https://api.openai.com/v1", 8002)


def test_an_empty_variable_does_not_override_the_file(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_folder / ".env").write_text("OPENAI_API_KEY=sk-of-the-file\nPORT=9000\n")
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.setenv("PORT", "")

    settings = load_settings()

    assert (settings.require_api_key(), settings.port) == ("sk-of-the-file", 9000)


def test_settings_are_immutable() -> None:
    settings = load_settings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]


def test_an_empty_temperature_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFAULT_TEMPERATURE", "")

    assert load_settings().default_temperature is None


def test_a_key_is_stripped_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "  sk-secret-key\n")

    settings = load_settings()

    assert settings.require_api_key() == "sk-secret-key"
    assert "secret" not in repr(settings)


def test_several_keys_are_separated_by_commas_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-first")
    monkeypatch.setenv("OPENAI_API_KEYS", " sk-second, sk-third ,")

    settings = load_settings()

    assert settings.api_keys == ("sk-first", "sk-second", "sk-third")
    assert "sk-" not in repr(settings)


def test_one_of_several_keys_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEYS", "sk-second,sk-third")

    assert load_settings().require_api_key() == "sk-second"


def test_a_trailing_slash_of_the_base_url_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1/")

    assert load_settings().openai_base_url == "http://localhost:1/v1"


@pytest.mark.parametrize(
    ("value", "served"),
    [("*", "*"), ('{"llama": "gpt-4o-mini"}', {"llama": "gpt-4o-mini"})],
)
def test_served_models_are_a_json_object_or_a_star(value: str, served: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVED_MODELS", value)

    assert load_settings().served_models == served


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OPENAI_API_KEY", "sk-se cret", "OPENAI_API_KEY: must be printable ASCII"),
        ("OPENAI_API_KEY", "sk-secr\u00e9t", "OPENAI_API_KEY: must be printable ASCII"),
        ("OPENAI_API_KEYS", "sk-1,sk-se cret", "OPENAI_API_KEYS.1: must be printable ASCII"),
        ("UPSTREAM_FIRST_BYTE_TIMEOUT_S", "0", "UPSTREAM_FIRST_BYTE_TIMEOUT_S: Input should be greater than 0"),
        ("UPSTREAM_TOTAL_TIMEOUT_S", "0", "UPSTREAM_TOTAL_TIMEOUT_S: Input should be greater than 0"),
        ("UPSTREAM_MAX_ATTEMPTS", "0", "UPSTREAM_MAX_ATTEMPTS: Input should be greater than or equal to 1"),
        ("OPENAI_BASE_URL", "api.openai.com", "OPENAI_BASE_URL: must be an http:// or https:// URL"),
        ("OPENAI_BASE_URL", "http://", "OPENAI_BASE_URL: must be an http:// or https:// URL"),
        ("OPENAI_BASE_URL", "http://me@localhost/v1", "OPENAI_BASE_URL: must have no"),
        ("OPENAI_BASE_URL", "http://localhost/v1?a=b", "OPENAI_BASE_URL: must have no"),
        ("OPENAI_BASE_URL", "http://localhost/v1#a", "OPENAI_BASE_URL: must have no"),
        ("OPENAI_ORG_ID", "org-\x07", "OPENAI_ORG_ID: must have no control characters"),
        ("OPENAI_PROJECT_ID", "proj\x07", "OPENAI_PROJECT_ID: must have no control characters"),
        ("DEFAULT_TEMPERATURE", "2.5", "DEFAULT_TEMPERATURE: Input should be less than or equal to 2"),
        ("DEFAULT_TEMPERATURE", "warm", "DEFAULT_TEMPERATURE: Input should be a valid number"),
        ("SERVED_MODELS", "{", "SERVED_MODELS: must be * or a JSON object"),
        ("DEFAULT_CHAT_TEMPLATE_KWARGS", "{", "DEFAULT_CHAT_TEMPLATE_KWARGS: must be JSON"),
        ("DEFAULT_CHAT_TEMPLATE_KWARGS", '{"enable_thinking": 0}', "enable_thinking must be true or false"),
        (
            "DEFAULT_CHAT_TEMPLATE_KWARGS",
            '{"reasoning_effort": "much"}',
            "reasoning_effort must be one of none, minimal",
        ),
        ("REASONING_EFFORT_MAP", '{"much": "low"}', "REASONING_EFFORT_MAP.much: Input should be 'none'"),
        ("REASONING_EFFORT_MAP", '{"low": "much"}', "REASONING_EFFORT_MAP.low: Input should be 'none'"),
        ("REASONING_RESERVE_TOKENS", "-1", "REASONING_RESERVE_TOKENS: Input should be greater than or equal to 0"),
        ("RETIRED_MODELS", "keep", "RETIRED_MODELS: Input should be 'auto', 'switch' or 'refuse'"),
        ("SERVED_MODELS", "[]", "SERVED_MODELS: "),
        ("SERVED_MODELS", "{}", "SERVED_MODELS must name at least one model"),
        ("SERVED_MODELS", '{"": "gpt-4o"}', "SERVED_MODELS must name at least one model, and none may be empty"),
        ("SERVED_MODELS", '{"llama": ""}', "SERVED_MODELS must name at least one model, and none may be empty"),
        ("PORT", "70000", "PORT: Input should be less than or equal to 65535"),
        ("UPSTREAM_IDLE_TIMEOUT_S", "0", "UPSTREAM_IDLE_TIMEOUT_S: Input should be greater than 0"),
        ("UPSTREAM_IDLE_TIMEOUT_S", "inf", "UPSTREAM_IDLE_TIMEOUT_S: Input should be less than"),
        ("UPSTREAM_IDLE_TIMEOUT_S", "nan", "UPSTREAM_IDLE_TIMEOUT_S: Input should be"),
        ("UPSTREAM_CONNECT_TIMEOUT_S", "0", "UPSTREAM_CONNECT_TIMEOUT_S: Input should be greater than 0"),
        ("UPSTREAM_CONNECT_TIMEOUT_S", "inf", "UPSTREAM_CONNECT_TIMEOUT_S: Input should be less than"),
        ("UPSTREAM_CONNECT_TIMEOUT_S", "nan", "UPSTREAM_CONNECT_TIMEOUT_S: Input should be"),
        ("SHUTDOWN_TIMEOUT_S", "-1", "SHUTDOWN_TIMEOUT_S: Input should be greater than or equal to 0"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_setting(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError) as caught:
        load_settings()

    text = str(caught.value)
    assert words in text
    assert "\n" not in text
    assert "cret" not in text
    assert "secr" not in text


def test_an_unknown_name_in_the_file_is_an_error(empty_folder: Path) -> None:
    (empty_folder / ".env").write_text("OPENAI_BASEURL=http://localhost:1\n")

    with pytest.raises(SettingsError, match=r"OPENAI_BASEURL in \.env is not a setting"):
        load_settings()


def test_a_file_that_is_not_text_is_an_error(empty_folder: Path) -> None:
    (empty_folder / ".env").write_bytes(b"PORT=\xff\xfe\n")

    with pytest.raises(SettingsError, match=r"\.env cannot be read"):
        load_settings()


def test_a_default_model_must_be_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVED_MODELS", '{"llama": "gpt-4o-mini"}')
    monkeypatch.setenv("DEFAULT_MODEL", "gpt-4o")

    with pytest.raises(SettingsError, match="DEFAULT_MODEL 'gpt-4o' is not one of SERVED_MODELS"):
        load_settings()


def test_a_missing_key_is_an_error() -> None:
    with pytest.raises(SettingsError, match="OPENAI_API_KEY is not set"):
        load_settings().require_api_key()


def test_the_example_file_shows_the_defaults(empty_folder: Path) -> None:
    example = (ROOT / ".env.example").read_text()
    (empty_folder / ".env").write_text(re.sub(r"^#(?=[A-Z_]+=)", "", example, flags=re.MULTILINE))

    assert load_settings(openai_api_key=None) == Settings(_env_file=None)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_generated_documents_are_up_to_date(name: str) -> None:
    """`make format` writes it."""
    text = (ROOT / name).read_text()

    assert text == DOCUMENTS[name](text)


def test_compose_passes_on_every_setting_but_host_and_port() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    service = compose.partition("  llm-server:")[2].partition("\n\n")[0]
    passed_on = re.findall(r"^      - ([A-Z_]+)$", service, re.MULTILINE)

    settings = [name.upper() for name in Settings.model_fields if name not in {"host", "port"}]
    assert passed_on == [*settings, "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"]


def test_every_setting_is_documented_in_a_section() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()

    assert re.findall(r"^\| `([A-Z_]+)` \|.*\| \w.*\|$|^\| `([A-Z_]+)` \| \w", page, re.MULTILINE) == [
        *((name.upper(), "") for name in Settings.model_fields),
        *(("", name) for name in VARIABLES),
    ]
    assert all(setting.section and setting.description for setting in documented_settings())


@given(
    st.text("ah1:/.@[]#?%\\ -_\u00e9\n", max_size=12)
    | st.from_regex(r"[a-c_-]{0,3}(\.[0-9a]{1,2}){0,3}(:[0-9]{0,6})?(/[v1.]*)*", fullmatch=True)
    | st.from_regex(r"(\[[0-9a:.]{0,8}\])(:[0-9]{0,6})?", fullmatch=True)
)
def test_every_library_parses_an_accepted_base_url_alike(rest: str) -> None:
    try:
        url = check_http_url(f"http://{rest}")
    except ValueError:
        return
    parsed = [(URL(url).raw_host, URL(url).port), (httpx2.URL(url).host, httpx2.URL(url).port or 80)]
    parsed = [(str(IPv6Address(host)) if host and ":" in host else host, port) for host, port in parsed]

    assert parsed[0] == parsed[1]
    assert "[" in url or str(parsed[0][0]) in url
