"""`python -m app`: the server from the command line, with flags named as `vllm serve` names them."""

import argparse
import gc
import sys
from collections.abc import Sequence

import uvicorn
from fastapi import FastAPI

from app.core.access_log import log_nothing_that_is_not_written, logging_config
from app.core.config import Settings, SettingsError, load_settings
from app.core.log_records import log_all_output
from app.core.server import Connection, Server
from app.core.tls import tls_context
from app.main import create_app

WRONG_SETTINGS = 2

_PLAIN_FLAGS = {
    "--max-num-queued-reqs": "CALLS",
    "--allowed-origins": "JSON",
    "--allowed-methods": "JSON",
    "--allowed-headers": "JSON",
    "--ssl-keyfile": "FILE",
    "--ssl-certfile": "FILE",
    "--ssl-ca-certs": "FILE",
    "--ssl-cert-reqs": "0|1|2",
    "--ssl-ciphers": "LIST",
}


def parse_arguments(arguments: Sequence[str] | None) -> dict[str, object]:
    """The settings that the command line gives, by name.

    Raises:
        SystemExit: status 2, with the usage on standard error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m app",
        description="vLLM's HTTP interface, answered by OpenAI.",
        epilog=_settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--host", help="address to listen on (HOST)")
    parser.add_argument("--port", help="port to listen on (PORT)")
    parser.add_argument(
        "--api-key", dest="vllm_api_key", nargs="+", metavar="KEY", help="keys clients must bring (VLLM_API_KEY)"
    )
    for name, what in _PLAIN_FLAGS.items():
        parser.add_argument(name, metavar=what, help=f"({name[2:].upper().replace('-', '_')})")
    parser.add_argument("--allow-credentials", action=argparse.BooleanOptionalAction, help="(ALLOW_CREDENTIALS)")
    parser.add_argument("--shutdown-timeout", dest="shutdown_timeout_s", metavar="SECONDS", help="(SHUTDOWN_TIMEOUT_S)")
    parser.add_argument("--sse-keep-alive-interval", metavar="SECONDS", help="(SSE_KEEP_ALIVE_INTERVAL)")
    parser.add_argument(
        "--enable-tokenizer-info-endpoint",
        action=argparse.BooleanOptionalAction,
        help="answer GET /tokenizer_info (ENABLE_TOKENIZER_INFO_ENDPOINT)",
    )
    return vars(parser.parse_args(arguments))


def _settings_help() -> str:
    lines = [f"  {name.upper()}: {field.description}" for name, field in Settings.model_fields.items()]
    return "\n".join(["settings, from the environment or .env:", *lines])


def tune_gc() -> None:
    """Let it look less often, and never again at what stays: modules, models, routes.

    With Python's own thresholds it takes a third of the time of a request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; returns the process's exit status."""
    overrides = parse_arguments(arguments)
    try:
        settings = load_settings(**overrides)
        settings.require_api_key()
        app = create_app(settings)
        config = _listening(app, settings)
    except SettingsError as exc:
        print(f"llm-server: {exc}", file=sys.stderr)
        return WRONG_SETTINGS
    tune_gc()
    log_all_output()
    log_nothing_that_is_not_written()
    server = Server(config, app.state.components.lifecycle)
    try:
        server.run()
    except SystemExit:
        if server.refused_to_start:
            return WRONG_SETTINGS
        raise
    return 0 if server.started else 1


def _listening(app: FastAPI, settings: Settings) -> uvicorn.Config:
    tls = tls_context(settings)
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Connection,
        log_config=logging_config(),
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
        ssl_context_factory=(lambda _config, _default: tls) if tls else None,
    )


if __name__ == "__main__":
    sys.exit(main())
