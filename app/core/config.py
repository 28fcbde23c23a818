"""Settings, read from the environment and from `.env`.

The command line, docs/settings.md, `.env.example` and the lists in docker-compose.yml are generated from `Settings`.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from dotenv.parser import Binding, parse_stream
from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.core.settings.environment import VARIABLES, check_environment
from app.core.settings.types import (
    BaseURL,
    ClientKeys,
    Count,
    EffortMap,
    HeaderSecret,
    HeaderSecrets,
    HeaderText,
    HeaderTexts,
    JSONObject,
    Seconds,
    SecondsOrZero,
    ServedModels,
    TemplateKwargs,
    check_text,
)

logger = logging.getLogger(__name__)

ENV_FILE = ".env"
ENV_FILE_ENCODING = "utf-8-sig"
EVERY_MODEL = "*"
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}|[a-z][a-z0-9_]{0,63}")


class SettingsError(Exception):
    """The server cannot start with these settings. The text is one line, names the setting and quotes no secret."""


class _EmptyIsUnset(PydanticBaseSettingsSource):
    """A source whose empty variables count as unset, because compose passes them; an empty temperature is `None`."""

    def __init__(self, source: PydanticBaseSettingsSource) -> None:
        super().__init__(source.settings_cls)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Unused: pydantic-settings calls the source as a whole."""
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in self._source().items()}
        given = {name: value for name, value in stripped.items() if value != ""}
        return {**given, "default_temperature": None} if stripped.get("default_temperature") == "" else given


def _setting(
    default: Any, description: str, *, section: str = "", flag: str = "", metavar: str = "", **constraints: Any
) -> Any:
    """A field with its documentation. `section` starts a section of the documents; `flag` is named as in vLLM."""
    documentation: dict[str, JsonValue] = {"section": section, "flag": flag, "metavar": metavar}
    return Field(default, description=description, json_schema_extra=documentation, **constraints)


class Settings(BaseSettings):
    """The validated configuration of the server.

    Raises:
        ValidationError: a value is invalid, or `.env` has a key that is not a setting.
    """

    model_config = SettingsConfigDict(
        env_file=ENV_FILE, env_file_encoding=ENV_FILE_ENCODING, extra="forbid", frozen=True
    )

    openai_api_key: HeaderSecret | None = _setting(
        None,
        "API key for OpenAI. Required unless `OPENAI_API_KEYS` is set.",
        section="OpenAI account",
    )
    openai_api_keys: HeaderSecrets = _setting(
        (), "More API keys, separated by commas. Each call uses the key with the fewest calls in flight."
    )
    openai_base_url: BaseURL = _setting(
        "https://api.openai.com/v1", "Base URL of the OpenAI API. A URL without a path gets `/v1`."
    )
    openai_org_id: HeaderText | None = _setting(None, "Organization that calls are billed to. Unset: the key's own.")
    openai_project_id: HeaderText | None = _setting(None, "Project that calls are billed to. Unset: the key's own.")

    default_model: str = _setting(
        "gpt-4o-mini",
        "Model of requests that name none. If only `SERVED_MODELS` is set, its first name.",
        section="Models and parameters",
    )
    served_models: ServedModels = _setting(
        None,
        "Model names that clients may use, each with its OpenAI model, as a JSON object: "
        '`{"meta-llama/Llama-3.1-8B-Instruct": "gpt-4o-mini"}`. `*`: every OpenAI model. Unset: `DEFAULT_MODEL` only.',
    )
    model_families: JSONObject = _setting(
        {},
        "What OpenAI models accept that this server does not know, as a JSON object: "
        '`{"new-model": {"context": 200000, "output": 32000, "efforts": ["low", "high"], "default_effort": "low"}}` '
        'or `{"my-deployment": {"like": "gpt-4.1"}}`. The keys are the fields of `ModelFamily` in the code.',
    )
    default_temperature: float | None = _setting(
        0.7,
        "Temperature of chat requests that set none, 0 to 2. Set but empty: OpenAI's default, which is vLLM's (1).",
        ge=0,
        le=2,
    )
    default_chat_template_kwargs: TemplateKwargs = _setting(
        {},
        'Reasoning of requests that set none, as a JSON object: `{"enable_thinking": false}` or '
        '`{"reasoning_effort": "low"}`. Other keys have no effect.',
        flag="--default-chat-template-kwargs",
        metavar="JSON",
    )
    reasoning_effort_map: EffortMap = _setting(
        {},
        'Reasoning effort to use for each that a client may set, as a JSON object: `{"medium": "low"}`.',
        flag="--reasoning-effort-map",
        metavar="JSON",
    )
    reasoning_reserve_tokens: int = _setting(
        0,
        "Tokens added to a client's `max_tokens` for reasoning. The text is still cut at the client's value.",
        ge=0,
        le=128_000,
    )
    retired_models: Literal["auto", "switch", "refuse"] = _setting(
        "auto",
        "Requests for a model that OpenAI shut down: `switch` continues with its successor, `refuse` returns 400, "
        "`auto` continues for gpt-4o-mini and returns 400 for others.",
    )
    completions_system_prompt: str = _setting(
        "", "System message before each prompt of `/v1/completions`. Unset: no system message."
    )
    unsupported_params: Literal["drop", "reject", "silent"] = _setting(
        "drop",
        "Handling of request fields that OpenAI does not support: `drop` ignores them and names them in "
        "`X-Ignored-Params`, `reject` returns 400, `silent` ignores them without naming them.",
    )
    enable_prompt_tokens_details: bool = _setting(
        False,
        "Include OpenAI's token details, such as cached tokens, in `usage`.",
        flag="--enable-prompt-tokens-details",
    )
    enable_tokenizer_info_endpoint: bool = _setting(
        False, "Serve `GET /tokenizer_info`, which evaluation tools use.", flag="--enable-tokenizer-info-endpoint"
    )

    vllm_api_key: ClientKeys = _setting(
        (),
        "API keys that clients must send as `Authorization: Bearer KEY`, separated by commas. Unset: no key is needed.",
        section="Client access",
        flag="--api-key",
        metavar="KEY",
    )
    key_requests_per_minute: Count = _setting(
        0, "Requests per client key in any 60 seconds. Clients without a key share one limit. 0: no limit."
    )
    key_tokens_per_minute: Count = _setting(
        0, "Tokens per client key in any 60 seconds; once they are used, requests get 429. 0: no limit."
    )
    key_concurrent_requests: Count = _setting(0, "Concurrent requests per client key. 0: no limit.")

    allowed_origins: HeaderTexts = _setting(
        (),
        'Origins whose pages may call this server, as a JSON list. `[]`: none. `["*"]`: any.',
        section="Browsers (CORS)",
        flag="--allowed-origins",
        metavar="JSON",
    )
    allowed_methods: HeaderTexts = _setting(
        ("*",), "HTTP methods that such pages may use, as a JSON list.", flag="--allowed-methods", metavar="JSON"
    )
    allowed_headers: HeaderTexts = _setting(
        ("*",), "Request headers that such pages may send, as a JSON list.", flag="--allowed-headers", metavar="JSON"
    )
    allow_credentials: bool = _setting(
        False, "Let such pages send the browser's cookies and credentials.", flag="--allow-credentials"
    )

    host: str = _setting(
        "0.0.0.0",
        "Address or host name to listen on.",
        section="Listening and TLS (`python -m app` only)",
        flag="--host",
        metavar="HOST",
    )
    port: int = _setting(8002, "Port to listen on. 0: any free port.", flag="--port", metavar="PORT", ge=0, le=65_535)
    ssl_keyfile: str | None = _setting(
        None, "PEM file with the TLS key. Unset: the key is in `SSL_CERTFILE`.", flag="--ssl-keyfile", metavar="FILE"
    )
    ssl_certfile: str | None = _setting(
        None, "PEM file with the TLS certificate chain. Unset: plain HTTP.", flag="--ssl-certfile", metavar="FILE"
    )
    ssl_ca_certs: str | None = _setting(
        None,
        "PEM file with the certificate authorities to trust for client certificates.",
        flag="--ssl-ca-certs",
        metavar="FILE",
    )
    ssl_cert_reqs: Literal["0", "1", "2"] = _setting(
        "0",
        "Client certificates: `0` are not requested, `1` are optional, `2` are required.",
        flag="--ssl-cert-reqs",
        metavar="0|1|2",
    )
    ssl_ciphers: str | None = _setting(
        None,
        "Ciphers of TLS 1.2, as an OpenSSL cipher list. Unset: OpenSSL's default.",
        flag="--ssl-ciphers",
        metavar="LIST",
    )

    max_upstream_calls: int = _setting(
        2048, "Concurrent calls to OpenAI. A stream counts until it ends.", section="Limits", ge=1, le=4096
    )
    max_num_queued_reqs: Count = _setting(
        1024,
        "Calls that may wait for another to end. When the queue is full, requests get 503. 0: no queue.",
        flag="--max-num-queued-reqs",
        metavar="CALLS",
    )
    queue_timeout_s: Seconds = _setting(10.0, "Longest wait in that queue, in seconds; then the request gets 503.")
    max_body_bytes: int = _setting(
        33_554_432,
        "Largest request body in bytes, both as sent and decompressed. Larger bodies get 413.",
        ge=1024,
        le=2**31,
    )

    upstream_connect_timeout_s: Seconds = _setting(
        5.0, "Longest wait for a connection to OpenAI, in seconds.", section="Timeouts and retries"
    )
    upstream_first_byte_timeout_s: Seconds = _setting(
        600.0, "Longest wait for the first byte of a response, in seconds from the start of the call, retries included."
    )
    upstream_idle_timeout_s: Seconds = _setting(120.0, "Longest pause within a response, in seconds.")
    upstream_total_timeout_s: Seconds = _setting(
        600.0, "Longest wait for a complete response, in seconds. Streams have no such limit."
    )
    upstream_max_attempts: int = _setting(3, "Attempts per call if failures are transient. 1: no retries.", ge=1, le=10)

    startup_check: Literal["warn", "require", "off"] = _setting(
        "warn",
        "Check of connection, key and models with OpenAI at start: `warn` logs a problem, `require` does not start "
        "with one, `off` does not check. It uses no tokens.",
        section="Start, streams and shutdown",
    )
    sse_keep_alive_interval: SecondsOrZero = _setting(
        0.0,
        "Seconds of silence after which a stream gets a comment, so that proxies keep it open. 0: no comments.",
        flag="--sse-keep-alive-interval",
        metavar="SECONDS",
    )
    shutdown_timeout_s: int = _setting(
        30,
        "Seconds that requests in flight have to finish after SIGTERM or SIGINT (`python -m app` only).",
        flag="--shutdown-timeout",
        metavar="SECONDS",
        ge=0,
        le=86_400,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, environment and `.env`, in order of precedence."""
        return _EmptyIsUnset(init_settings), _EmptyIsUnset(env_settings), _EmptyIsUnset(dotenv_settings)

    @field_validator("*", mode="before")
    @classmethod
    def _check_text(cls, value: object) -> object:
        return check_text(value)

    @field_validator("openai_base_url")
    @classmethod
    def _add_base_url_path(cls, url: str) -> str:
        if urlsplit(url).path:
            return url
        logger.warning("OPENAI_BASE_URL has no path: %s/v1 is used", url)
        return f"{url}/v1"

    @model_validator(mode="after")
    def _check_served_models(self) -> Self:
        if not isinstance(self.served_models, dict):
            return self
        if not self.served_models or not all(name and model for name, model in self.served_models.items()):
            raise ValueError("SERVED_MODELS must name at least one model, and none may be empty")
        if "default_model" in self.model_fields_set and self.default_model not in self.served_models:
            raise ValueError(f"DEFAULT_MODEL {self.default_model!r} is not one of SERVED_MODELS")
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        given = {
            "SSL_KEYFILE": self.ssl_keyfile,
            "SSL_CA_CERTS": self.ssl_ca_certs,
            "SSL_CERT_REQS": self.ssl_cert_reqs != "0",
            "SSL_CIPHERS": self.ssl_ciphers,
        }
        unusable = next((name for name, is_given in given.items() if is_given and not self.ssl_certfile), None)
        if unusable:
            raise ValueError(f"{unusable} needs SSL_CERTFILE")
        if self.ssl_cert_reqs != "0" and not self.ssl_ca_certs:
            raise ValueError("SSL_CERT_REQS needs SSL_CA_CERTS")
        return self

    @property
    def api_keys(self) -> tuple[str, ...]:
        """The keys to call OpenAI with: OPENAI_API_KEY, then OPENAI_API_KEYS."""
        first = () if self.openai_api_key is None else (self.openai_api_key,)
        return tuple(key.get_secret_value() for key in (*first, *self.openai_api_keys))

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that no log and no response may contain: all keys, and the organization and project ids."""
        clients = [key.get_secret_value() for key in self.vllm_api_key]
        accounts = [name for name in (self.openai_org_id, self.openai_project_id) if name]
        return (*self.api_keys, *clients, *accounts)

    def require_api_key(self) -> str:
        """The first key to call OpenAI with.

        Raises:
            SettingsError: no key is set.
        """
        if not self.api_keys:
            raise SettingsError("OPENAI_API_KEY is not set: set it in the environment or in .env")
        return self.api_keys[0]


@dataclass(frozen=True, slots=True)
class SettingDocumentation:
    """One setting as shown in the documents and in the command-line help. An empty string means none."""

    field: str
    section: str
    description: str
    default: object
    flag: str
    metavar: str
    is_switch: bool

    @property
    def name(self) -> str:
        """The environment variable."""
        return self.field.upper()


def documented_settings() -> list[SettingDocumentation]:
    """Every setting in order, each with the title of its section."""
    found: list[SettingDocumentation] = []
    section = ""
    for name, field in Settings.model_fields.items():
        extra = field.json_schema_extra
        documentation = extra if isinstance(extra, dict) else {}
        section = str(documentation["section"] or section)
        flag, metavar = str(documentation["flag"]), str(documentation["metavar"])
        is_switch = field.annotation is bool
        found.append(
            SettingDocumentation(name, section, field.description or "", field.default, flag, metavar, is_switch)
        )
    return found


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment and `.env`; `overrides` win over both.

    Raises:
        SettingsError: a setting, a proxy or a certificate authority variable is invalid.
    """
    try:
        _check_env_file(Path(ENV_FILE))
        settings = Settings(**overrides)
        check_environment(settings.openai_base_url)
    except ValidationError as exc:
        raise settings_error(exc) from None
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise SettingsError(f"{ENV_FILE} cannot be read: {reason or exc}") from None
    except ValueError as exc:
        raise SettingsError(str(exc)) from None
    return settings


def _check_env_file(path: Path) -> None:
    """Reject what pydantic-settings would ignore: a path that is not a file, and lines that are not assignments."""
    if path.is_fifo() or not (path.exists() or path.is_symlink()):
        return
    lines = parse_stream(StringIO(path.read_text(encoding=ENV_FILE_ENCODING)))
    if invalid := next((line.original for line in lines if not _is_assignment(line)), None):
        empty_lines = invalid.string[: -len(invalid.string.lstrip())].count("\n")
        raise ValueError(f"{ENV_FILE}: line {invalid.line + empty_lines} is not NAME=value")


def _is_assignment(line: Binding) -> bool:
    """True if the line is an assignment whose name an error may quote. A bare API key may look like one."""
    if line.error or line.key is None or line.key.lower() in Settings.model_fields:
        return not line.error
    return bool(_VARIABLE.fullmatch(line.key)) and (line.value or "").strip("=") != ""


def settings_error(exc: ValidationError, *location: str) -> SettingsError:
    """All errors of the settings, or of the value at `location`, in one line that quotes no value."""
    texts = [_error_text((*location, *error["loc"]), error["msg"]) for error in exc.errors(include_input=False)]
    return SettingsError("; ".join(texts))


def _error_text(location: Sequence[int | str], message: str) -> str:
    message = message.removeprefix("Value error, ")
    if not location:
        return message
    setting, *keys = map(str, location)
    # Next to keys, pydantic lists validators of a union, such as "function-wrap[check()]".
    name = ".".join([setting.upper(), *[key for key in keys if "[" not in key]])
    # Keys of a JSON object may be any text.
    shown = name if name.isprintable() and len(name) <= 200 else ascii(name)[1:-1][:200]
    if message == "Extra inputs are not permitted":
        if shown in VARIABLES:
            return f"{shown} has no effect in {ENV_FILE}: set it in the environment"
        return f"{shown} in {ENV_FILE} is not a setting of this server"
    return f"{shown}: {message}"
