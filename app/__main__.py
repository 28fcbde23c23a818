"""`python -m app`: the command line of the server, with the flag names of `vllm serve`."""

import os
import signal

if __name__ == "__main__":
    # The imports below take a second. Until then SIGINT would print a traceback, and process 1 of a container would
    # ignore SIGTERM.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: os._exit(0))

import argparse
import asyncio
import gc
import socket
from collections.abc import Sequence
from typing import Any, NoReturn

import uvicorn
from fastapi import FastAPI

from app.core.config import Settings, SettingsError, documented_settings, load_settings
from app.core.logs.access_log import disable_unused_log_fields, logging_config
from app.core.logs.records import log_all_output
from app.core.server.connection import HttpConnection
from app.core.server.listening import bound_sockets
from app.core.server.process import exit_now, ignore_logging_errors, open_missing_streams, print_error
from app.core.server.server import Server
from app.core.server.tls import tls_context
from app.main import create_app

WRONG_SETTINGS = 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(message)


def parse_arguments(arguments: Sequence[str] | None) -> dict[str, object]:
    """Settings from the command line, by field name.

    Raises:
        SettingsError: the command line is invalid.
        SystemExit: status 0, after `--help`.
    """
    parser = _Parser(
        prog="llm-server",
        description="vLLM's HTTP interface, backed by the OpenAI API.",
        epilog=_settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    for setting in documented_settings():
        if not setting.flag:
            continue
        options: dict[str, Any] = {"dest": setting.field, "help": f"({setting.name})"}
        if setting.is_switch:
            parser.add_argument(setting.flag, action=argparse.BooleanOptionalAction, **options)
        else:
            options["nargs"] = "+" if setting.field == "vllm_api_key" else None
            parser.add_argument(setting.flag, metavar=setting.metavar, **options)
    return vars(parser.parse_args(arguments))


def _settings_help() -> str:
    lines = ["settings, from the environment or .env; an empty variable counts as unset:"]
    section = ""
    for setting in documented_settings():
        if setting.section != section:
            section = setting.section
            lines += ["", f"{section}:"]
        lines.append(f"  {setting.name}: {setting.description}")
    return "\n".join(lines).replace("`", "")


def tune_gc() -> None:
    """Run the garbage collector less often, and exclude what stays: modules, models, routes.

    With Python's default thresholds it takes a third of the time of a request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal arrives. Returns the exit status."""
    try:
        settings = load_settings(**parse_arguments(arguments))
        settings.require_api_key()
        app = create_app(settings)
        config = _configuration(app, settings)
        sockets = bound_sockets(settings)
    except SettingsError as exc:
        print_error(str(exc))
        return WRONG_SETTINGS
    tune_gc()
    log_all_output()
    disable_unused_log_fields()
    ignore_logging_errors()
    return _serve(Server(config, app.state.components.lifecycle), sockets)


def _serve(server: Server, sockets: list[socket.socket]) -> int:
    # Never closed, because that waits for threads: see `exit_now`.
    runner = asyncio.Runner(loop_factory=server.config.get_loop_factory())
    try:
        runner.run(server.serve(sockets))
    except OSError as exc:
        # Another process has started to listen since the sockets were bound.
        print_error(f"HOST, PORT: {exc.strerror}")
        return WRONG_SETTINGS
    except SystemExit:
        if server.startup_failed:
            return WRONG_SETTINGS
        raise
    return 0 if server.started else 1


def _configuration(app: FastAPI, settings: Settings) -> uvicorn.Config:
    tls = tls_context(settings)
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=HttpConnection,
        ws="none",
        log_config=logging_config(),
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
        ssl_context_factory=(lambda _config, _default: tls) if tls else None,
        # Otherwise uvicorn reads WEB_CONCURRENCY.
        workers=1,
    )


def run() -> NoReturn:
    """Console script: run `main` and exit with its status. Works without standard streams."""
    open_missing_streams()
    exit_now(main())


if __name__ == "__main__":
    run()
