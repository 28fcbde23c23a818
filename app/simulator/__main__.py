"""Command line of the simulator: runs it alone, or while a command that uses it runs."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from datetime import date
from typing import NoReturn

from app.simulator.server import Catalogue, Pacing, Simulator

DEFAULT_KEY = "sk-simulator0123456789ABCD"
TODAY_VARIABLE = "SIMULATOR_TODAY"
LAST_PORT = 65_535
MAX_PACE_S = 86_400.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# As in shells.
USAGE_ERROR = 2
COMMAND_NOT_FOUND = 127
KILLED_BY_SIGNAL = 128


def _announce(base_url: str) -> None:
    try:
        print(f"simulator: OpenAI API on {base_url}", flush=True)
    except OSError:
        # Standard output is closed. Python would write its buffer again at exit, and fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class UsageError(Exception):
    """The command line is invalid; the message says why."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until a signal or until the command ends, and return the exit status."""
    try:
        return asyncio.run(_run(_parser().parse_args(argv)))
    except UsageError as error:
        print(f"simulator: {error}", file=sys.stderr)
        return USAGE_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m app.simulator", description="OpenAI's API, without OpenAI.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=_port, default=8003, help="port to listen on, 0 for a free one (%(default)s)")
    parser.add_argument("--api-key", help="the only key to accept (any that begins with sk-)")
    parser.add_argument("--time-to-first-token-s", type=_seconds, default=0.0, help="seconds before the first token")
    parser.add_argument("--time-per-token-s", type=_seconds, default=0.0, help="seconds between two tokens")
    parser.add_argument(
        "--today",
        type=_date,
        default=os.environ.get(TODAY_VARIABLE) or None,
        help=f"date that decides which models have ended, as YYYY-MM-DD (${TODAY_VARIABLE}; without one, none has)",
    )
    parser.add_argument("--no-shutdown-dates", action="store_true", help="list models without the date of their end")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="a command to run against the simulator")
    return parser


def _port(word: str) -> int:
    if not word.isdecimal() or int(word) > LAST_PORT:
        raise argparse.ArgumentTypeError(f"{word} is not between 0 and {LAST_PORT}")
    return int(word)


def _seconds(word: str) -> float:
    # float() would also accept "nan", "1e9" and "-1".
    if not word.replace(".", "", 1).isdecimal():
        raise argparse.ArgumentTypeError(f"{word} is not a number of seconds")
    return min(float(word), MAX_PACE_S)


def _date(word: str) -> date:
    try:
        return date.fromisoformat(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word} is not a date such as 2027-01-15") from None


async def _run(options: argparse.Namespace) -> int:
    pacing = Pacing(options.time_to_first_token_s, options.time_per_token_s)
    catalogue = Catalogue(options.today, shutdown_dates=not options.no_shutdown_dates)
    simulator = Simulator(
        api_key=options.api_key, pacing=pacing, host=options.host, port=options.port, catalogue=catalogue
    )
    signals = _Signals()
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(simulator)
        except (OSError, UnicodeError) as error:
            raise UsageError(f"cannot listen on {options.host}:{options.port}: {_reason(error)}") from error
        _announce(simulator.base_url)
        command = options.command[1:] if options.command[:1] == ["--"] else options.command
        if not command:
            await signals.first()
            return 0
        return await _run_command(command, _environment(simulator.base_url, options.api_key), signals)


async def _run_command(command: Sequence[str], environment: Mapping[str, str], signals: "_Signals") -> int:
    try:
        # In its own process group: otherwise it would receive Ctrl-C twice, from the terminal and from us.
        process = await asyncio.create_subprocess_exec(*command, env=environment, process_group=0)
    except OSError as error:
        print(f"simulator: cannot run {command[0]}: {_reason(error)}", file=sys.stderr)
        return COMMAND_NOT_FOUND
    signals.pass_on_to(process)
    status = await process.wait()
    return status if status >= 0 else KILLED_BY_SIGNAL - status


class _Signals:
    """Records SIGINT and SIGTERM from the start and forwards them to a process once there is one."""

    def __init__(self) -> None:
        self._received: list[signal.Signals] = []
        self._arrived = asyncio.Event()
        self._process: Process | None = None
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._receive, number)

    async def first(self) -> None:
        """Return once a signal has arrived."""
        await self._arrived.wait()

    def pass_on_to(self, process: Process) -> None:
        """Forward all signals, past and future, to ``process``."""
        self._process = process
        self._pass_on()

    def _receive(self, number: signal.Signals) -> None:
        self._received.append(number)
        self._arrived.set()
        self._pass_on()

    def _pass_on(self) -> None:
        while self._process is not None and self._received:
            # The command may just have ended.
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(self._received.pop(0))


def _environment(base_url: str, api_key: str | None) -> Mapping[str, str]:
    return {**os.environ, "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": api_key or DEFAULT_KEY}


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "no host name"
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


if __name__ == "__main__":
    sys.exit(main())
