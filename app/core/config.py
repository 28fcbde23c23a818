"""Settings: every knob, read from the environment and from `.env`."""

import json
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

EVERY_MODEL = "*"
DAY_S = 86_400


ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class SettingsError(Exception):
    """The settings do not allow a start. The text is one line, names the setting and never repeats a secret."""


def _parse_served_models(value: object) -> object:
    if not isinstance(value, str) or value == EVERY_MODEL:
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError('must be * or a JSON object of names, such as {"my-model": "gpt-4o-mini"}') from None


def _parse_json(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as exc:
        raise ValueError(f"must be JSON: {exc}") from None


def _parse_list(value: object) -> object:
    return [item for part in value.split(",") if (item := part.strip())] if isinstance(value, str) else value


def _parse_client_keys(value: object) -> object:
    keys = _parse_list(value)
    if isinstance(value, str) and not keys:
        raise ValueError("names no key")
    return [key for key in keys if key] if isinstance(keys, list) else keys


def _fitting_a_header(value: str) -> str:
    if not all("!" <= character <= "~" for character in value):
        raise ValueError("must be printable ASCII without spaces")
    return value


class _Given(PydanticBaseSettingsSource):
    """What a source says. An empty variable counts as unset (compose passes them), but for the one that means none."""

    def __init__(self, source: PydanticBaseSettingsSource) -> None:
        super().__init__(source.settings_cls)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not asked for: the sources are read whole."""
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in self._source().items()}
        given = {name: value for name, value in stripped.items() if value != ""}
        return {**given, "default_temperature": None} if stripped.get("default_temperature") == "" else given


JSONStrings = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_json)]


class Settings(BaseSettings):
    """The server's configuration, checked as a whole.

    Raises:
        ValidationError: a value is out of its range, or `.env` has a key that is no setting.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="forbid", frozen=True)

    openai_api_key: SecretStr | None = Field(
        None, description="The key that pays for the answers. This or OPENAI_API_KEYS is required."
    )
    openai_api_keys: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_parse_list)] = Field(
        (), description="Further keys, separated by commas; each call uses the one with the fewest calls in flight."
    )
    openai_base_url: str = Field(
        "https://api.openai.com/v1", description="Where OpenAI's API is, with or without a slash at the end."
    )
    openai_org_id: str | None = Field(None, description="Organization the calls are counted for.")
    openai_project_id: str | None = Field(None, description="Project the calls are counted for.")
    default_model: str = Field("gpt-4o-mini", description="Model of a request that names none.")
    served_models: Annotated[dict[str, str] | Literal["*"] | None, NoDecode, BeforeValidator(_parse_served_models)] = (
        Field(
            None,
            description="Names clients may use and the OpenAI model each stands for, as a JSON object; "
            "`*`: every model OpenAI has. Default: `DEFAULT_MODEL` alone.",
        )
    )
    model_families: Annotated[dict[str, dict[str, Any]], NoDecode, BeforeValidator(_parse_json)] = Field(
        {},
        description="What OpenAI models accept that this server does not know, as a JSON object.",
    )
    default_temperature: float | None = Field(
        0.7, ge=0, le=2, description="Temperature of a chat request that names none; empty: OpenAI's own."
    )
    default_chat_template_kwargs: Annotated[dict[str, Any], NoDecode, BeforeValidator(_parse_json)] = Field(
        {},
        description="Thinking of a chat request that says nothing of its own, as a JSON object with `enable_thinking` "
        "or `reasoning_effort` (vLLM's --default-chat-template-kwargs).",
    )
    reasoning_effort_map: Annotated[dict[ReasoningEffort, ReasoningEffort], NoDecode, BeforeValidator(_parse_json)] = (
        Field(
            {},
            description="Effort that is used for one that a client asks for, as a JSON object such as "
            '`{"medium": "low"}` (vLLM\'s --reasoning-effort-map).',
        )
    )
    reasoning_reserve_tokens: int = Field(
        0,
        ge=0,
        le=128_000,
        description="Tokens for reasoning that are added to a client's `max_tokens`; the text is cut at what it asked.",
    )
    retired_models: Literal["auto", "switch", "refuse"] = Field(
        "auto",
        description="Requests for a model that OpenAI shut down: refused, but for gpt-4o-mini, which goes on with its "
        "successor (auto); go on with the successor (switch); refused (refuse).",
    )
    completions_system_prompt: str = Field(
        "", description="System message before each prompt of /v1/completions; empty: none."
    )
    unsupported_params: Literal["drop", "reject", "silent"] = Field(
        "drop", description="What becomes of fields OpenAI has no control for: dropped and told, refused, or dropped."
    )
    enable_prompt_tokens_details: bool = Field(
        False, description="Show OpenAI's details of the usage (vLLM's --enable-prompt-tokens-details)."
    )
    enable_tokenizer_info_endpoint: bool = Field(
        False, description="Answer GET /tokenizer_info (vLLM's --enable-tokenizer-info-endpoint)."
    )
    vllm_api_key: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_parse_client_keys)] = Field(
        (), description="Keys that clients must bring, separated by commas (vLLM's --api-key); none: anybody may ask."
    )
    key_requests_per_minute: int = Field(0, ge=0, description="Requests of a key in any 60 seconds; 0: no limit.")
    key_tokens_per_minute: int = Field(
        0, ge=0, description="Tokens in 60 seconds after which a key has to wait; 0: no limit."
    )
    key_concurrent_requests: int = Field(0, ge=0, description="Requests of a key at the same time; 0: no limit.")
    allowed_origins: JSONStrings = Field((), description='Origins whose pages may ask, as a JSON list; `["*"]`: all.')
    allowed_methods: JSONStrings = Field(("*",), description="Methods that such pages may use, as a JSON list.")
    allowed_headers: JSONStrings = Field(("*",), description="Headers that such pages may send, as a JSON list.")
    allow_credentials: bool = Field(False, description="Whether such pages may send cookies and keys of the browser's.")
    host: str = Field("0.0.0.0", description="Address to listen on (`python -m app`).")
    port: int = Field(8002, ge=0, le=65535, description="Port to listen on (`python -m app`); 0: a free one.")
    ssl_keyfile: str | None = Field(
        None, description="File of the TLS key (`python -m app`); in SSL_CERTFILE if unset."
    )
    ssl_certfile: str | None = Field(None, description="File of the TLS certificate (`python -m app`); none: no TLS.")
    ssl_ca_certs: str | None = Field(None, description="File of the CAs that clients' certificates are of.")
    ssl_cert_reqs: Literal["0", "1", "2"] = Field(
        "0", description="Whether clients need a certificate: 0 no, 1 if they have one it must be good, 2 yes."
    )
    ssl_ciphers: str | None = Field(None, description="Ciphers of TLS, in OpenSSL's notation.")
    max_upstream_calls: int = Field(
        2048, ge=1, le=4096, description="Calls to OpenAI at the same time; a stream is one until its end."
    )
    max_num_queued_reqs: int = Field(
        1024, ge=0, description="Calls that may wait for others to end (vLLM's --max-num-queued-reqs); 0: none."
    )
    queue_timeout_s: float = Field(10.0, gt=0, le=DAY_S, description="Longest wait of a call for others to end.")
    max_body_bytes: int = Field(
        33_554_432,
        ge=1024,
        le=2**31,
        description="Largest body of a request, also after it is unpacked; more is a 413.",
    )
    upstream_connect_timeout_s: float = Field(
        5.0, gt=0, le=DAY_S, description="Longest wait for a connection to OpenAI."
    )
    upstream_first_byte_timeout_s: float = Field(
        600.0,
        gt=0,
        le=DAY_S,
        description="Longest wait for OpenAI to begin its answer, from the beginning of the call.",
    )
    upstream_idle_timeout_s: float = Field(120.0, gt=0, le=DAY_S, description="Longest silence of OpenAI in an answer.")
    upstream_total_timeout_s: float = Field(
        600.0, gt=0, le=DAY_S, description="Longest time for a whole answer; a stream may last longer."
    )
    upstream_max_attempts: int = Field(
        3, ge=1, le=10, description="How often a call that failed for a while is made at most; 1: never again."
    )
    startup_check: Literal["warn", "require", "off"] = Field(
        "warn",
        description="Whether OpenAI is asked for its models at the start: what is wrong is warned of, or no start.",
    )
    sse_keep_alive_interval: float = Field(
        0.0, ge=0, le=DAY_S, description="Seconds of silence after which a stream gets a comment; 0: none."
    )
    shutdown_timeout_s: int = Field(
        30, ge=0, description="How long requests in flight may go on after SIGTERM (`python -m app`)."
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
        """The command line, the environment and `.env`, in this order."""
        return _Given(init_settings), _Given(env_settings), _Given(dotenv_settings)

    @field_validator("openai_org_id", "openai_project_id")
    @classmethod
    def _id_fits_a_header(cls, value: str | None) -> str | None:
        return _fitting_a_header(value) if value else value

    @field_validator("openai_api_key")
    @classmethod
    def _key_fits_a_header(cls, key: SecretStr | None) -> SecretStr | None:
        if key:
            _fitting_a_header(key.get_secret_value())
        return key

    @field_validator("openai_api_keys")
    @classmethod
    def _keys_fit_a_header(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in keys:
            _fitting_a_header(key.get_secret_value())
        return keys

    @field_validator("openai_base_url")
    @classmethod
    def _base_url_is_http(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be an http:// or https:// address")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("must have no user, query or fragment")
        return url.rstrip("/")

    @field_validator("default_chat_template_kwargs")
    @classmethod
    def _kwargs_have_their_types(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        for name in ("enable_thinking", "thinking"):
            if not isinstance(kwargs.get(name, True), bool):
                raise ValueError(f"{name} must be true or false")
        if kwargs.get("reasoning_effort", "none") not in get_args(ReasoningEffort):
            raise ValueError(f"reasoning_effort must be one of {', '.join(get_args(ReasoningEffort))}")
        return kwargs

    @model_validator(mode="after")
    def _default_model_is_served(self) -> Self:
        if not isinstance(self.served_models, dict):
            return self
        if not self.served_models or not all(name and model for name, model in self.served_models.items()):
            raise ValueError("SERVED_MODELS must name at least one model, and none may be empty")
        if "default_model" in self.model_fields_set and self.default_model not in self.served_models:
            raise ValueError(f"DEFAULT_MODEL {self.default_model!r} is not one of SERVED_MODELS")
        return self

    @model_validator(mode="after")
    def _tls_is_complete(self) -> Self:
        if not self.ssl_certfile and (self.ssl_keyfile or self.ssl_ca_certs or self.ssl_cert_reqs != "0"):
            raise ValueError("SSL_CERTFILE must be set for TLS")
        if self.ssl_cert_reqs != "0" and not self.ssl_ca_certs:
            raise ValueError("SSL_CERT_REQS needs SSL_CA_CERTS")
        return self

    @property
    def api_keys(self) -> tuple[str, ...]:
        """Every key there is to call OpenAI with: OPENAI_API_KEY, then OPENAI_API_KEYS."""
        first = () if self.openai_api_key is None else (self.openai_api_key,)
        return tuple(key.get_secret_value() for key in (*first, *self.openai_api_keys))

    def require_api_key(self) -> str:
        """The first key to call OpenAI with.

        Raises:
            SettingsError: there is none.
        """
        if not self.api_keys:
            raise SettingsError("OPENAI_API_KEY is not set: set it in the environment or in .env")
        return self.api_keys[0]


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment and `.env`; `overrides` win over both.

    Raises:
        SettingsError: something is wrong with them.
    """
    try:
        return Settings(**overrides)
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f".env cannot be read: {exc}") from None
    except ValidationError as exc:
        raise SettingsError(complaint(exc)) from None


def complaint(exc: ValidationError, *setting: str) -> str:
    """What is wrong with the settings, or with the one that is named, in one line and without their values."""
    return "; ".join(_complaint((*setting, *error["loc"]), error["msg"]) for error in exc.errors())


def _complaint(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    if not location:
        return message
    name = ".".join([str(location[0]).upper(), *(str(part) for part in location[1:] if "[" not in str(part))])
    if message == "Extra inputs are not permitted":
        return f"{name} in .env is not a setting of this server"
    return f"{name}: {message}"
