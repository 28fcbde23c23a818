"""`python -m app`: the server from the command line, with flags named as `vllm serve` names them."""

import argparse
import gc
import sys
from collections.abc import Sequence

import uvicorn

from app.core.config import Settings, SettingsError, load_settings
from app.core.server import Connection, Server
from app.main import create_app

WRONG_SETTINGS = 2


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
    parser.add_argument("--max-num-queued-reqs", metavar="CALLS", help="(MAX_NUM_QUEUED_REQS)")
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


def spare_the_garbage_collector() -> None:
    """Let it look less often, and never again at what stays: modules, models, routes.

    With Python's own thresholds it takes a third of the time of a request (docs/benchmark.md).
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
    except SettingsError as exc:
        print(f"llm-server: {exc}", file=sys.stderr)
        return WRONG_SETTINGS
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Connection,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
    )
    spare_the_garbage_collector()
    server = Server(config, app.state.components.lifecycle)
    server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
