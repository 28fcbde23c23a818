"""Log records without secrets, prompts or forged lines, for every logger and handler of the process."""

import logging
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any
from weakref import WeakSet

from pydantic import ValidationError

from app.core.redaction import Redactor

LOG_TEXT_CHARACTERS = 1_000
"""Maximum length of a message, and of each argument. A traceback shows ten exceptions of 50 frames each."""
_FRAMES = 50
_EXCEPTIONS = 10
_CUT = "...[truncated]"
_NO_SECRETS = Redactor(())

# Logging is per process: it needs the secrets of every application alive in it.
_redactors: WeakSet[Redactor] = WeakSet()
_markers = _NO_SECRETS.markers

# Their texts quote code, addresses and file names. Any other exception may quote a prompt or a response.
_QUOTES_NO_DATA = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    IndexError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
)
_HTTP_CLIENT = "aiohttp"
"""Package whose exceptions are logged with their text: they quote hosts and a proxy's status line, but no body."""

# asyncio appends reprs of arguments, tasks and handles to its messages; they contain exceptions and data.
_ASYNCIO_DETAILS = re.compile(r"(?:\((?!\))|\n).*", re.DOTALL)


def protect_logs(redactor: Redactor) -> None:
    """Make every log record of this process safe, and keep the secrets of `redactor` out while it is alive."""
    global _markers
    _redactors.add(redactor)
    _markers = tuple(dict.fromkeys([marker for known in _redactors for marker in known.markers]))
    logging.setLogRecordFactory(SafeRecord)


def log_all_output() -> None:
    """Log warnings and unhandled exceptions, which Python would write to stderr as they are."""
    logger = logging.getLogger("python")

    def warn(message: Warning | str, category: type[Warning], filename: str, line: int, *_: object) -> None:
        logger.warning("%s:%d: %s: %s", filename, line, category.__name__, str(message))

    def log_uncaught(kind: type[BaseException], value: BaseException | None, _: TracebackType | None) -> None:
        logger.critical("Uncaught %s", kind.__name__, exc_info=value)

    warnings.showwarning = warn  # type: ignore[assignment]
    sys.excepthook = log_uncaught
    threading.excepthook = lambda args: log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def for_log(text: str) -> str:
    """Foreign text for a log line: redacted, escaped and cut at 1,000 characters.

    Every character that is not printable is escaped: control characters, line separators, bidirectional controls.
    """
    is_printable = text.isprintable()
    for marker in _markers:
        if not is_printable or marker in text:
            for redactor in _redactors or (_NO_SECRETS,):
                text = redactor.redact(text, 4 * LOG_TEXT_CHARACTERS)
            break
    if not is_printable:
        text = "".join([c if c.isprintable() else ascii(c)[1:-1] for c in text[: 4 * LOG_TEXT_CHARACTERS]])
    return text if len(text) <= LOG_TEXT_CHARACTERS else text[: LOG_TEXT_CHARACTERS - len(_CUT)] + _CUT


def exception_for_log(exc: BaseException) -> str:
    """The exception's class, and its text if that cannot quote a request or a response."""
    name = type(exc).__qualname__
    if isinstance(exc, ValidationError):
        types = sorted({error["type"] for error in exc.errors(include_input=False, include_context=False)})
        return for_log(f"{name}: {exc.error_count()} errors ({', '.join(types)})")
    if isinstance(exc, _QUOTES_NO_DATA) or type(exc).__module__.partition(".")[0] == _HTTP_CLIENT:
        text = _text(exc)
        return for_log(f"{name}: {text}") if text else name
    return name


def traceback_for_log(exc: BaseException) -> str:
    """The tracebacks of an exception and its causes, each with its text from `exception_for_log`."""
    return "\n\n".join([_traceback(each) for each in list(_chain(exc))[:_EXCEPTIONS][::-1]])


def _traceback(exc: BaseException) -> str:
    frames = "".join(traceback.format_tb(exc.__traceback__, -_FRAMES))
    return f"Traceback (most recent call last):\n{frames}{exception_for_log(exc)}"


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """The exception, its causes, and the members of groups; each once."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [exc]
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        pending.append(each.__cause__ or (None if each.__suppress_context__ else each.__context__))
        pending += each.exceptions if isinstance(each, BaseExceptionGroup) else ()


class SafeRecord(logging.LogRecord):
    """A record whose message, arguments and exception are safe before any filter, formatter or handler sees it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.name == "asyncio":
            self.msg = _ASYNCIO_DETAILS.sub("", _text(self.msg))
        if not self.args:
            # uvicorn ends the message before a traceback with a line end.
            self.msg = str(_safe(self.msg)).removesuffix("\\n")
        elif isinstance(self.args, tuple):
            self.args = tuple([for_log(value) if type(value) is str else _safe(value) for value in self.args])
        else:
            self.args = {name: _safe(value) for name, value in self.args.items()}
        if self.exc_info:
            self.exc_text = traceback_for_log(self.exc_info[1]) if self.exc_info[1] else None
            self.exc_info = None


def _safe(value: object) -> object:
    if isinstance(value, str):
        return for_log(value)
    return value if value is None or isinstance(value, int | float) else _Shown(value)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return "<no text>"


class _Shown:
    """An argument that is made safe when it is formatted."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        if isinstance(self._value, BaseException):
            return exception_for_log(self._value)
        return f"<{len(self._value)} bytes>" if isinstance(self._value, bytes) else for_log(_text(self._value))

    __repr__ = __str__
