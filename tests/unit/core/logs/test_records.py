"""Foreign text in logs: one line, no secret, and no exception text that may quote data."""

import asyncio
import gc
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import openai
import pytest
from pydantic import BaseModel, ValidationError

from app.core.logs.records import LOG_TEXT_CHARACTERS, exception_for_log, for_log, protect_logs
from app.core.redaction import Redactor
from tests.processes import started

KEY = "configured+key/1"
FORMS = [KEY, "configured\\u002bkey\\/1", "configured%2Bkey%2F1", "configured&#43;key&#x2f;1"]
UNPRINTABLE = [
    "\n",
    "\r",
    "\t",
    "\0",
    "\x1b[2J",
    "\x7f",
    "\x85",
    "\u200b",
    "\u2028",
    "\u2029",
    "\u202e",
    "\u2066",
    "\ud800",
]
PROMPT = "the prompt"


class Model(BaseModel):
    number: int
    texts: dict[str, int]


class Foreign:
    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


class Log:
    """Collects the log as it is written."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    @property
    def text(self) -> str:
        return self.stream.getvalue()


@pytest.fixture
def log() -> Iterator[Log]:
    redactor = Redactor([KEY])
    protect_logs(redactor)
    log = Log()
    logging.getLogger().addHandler(log.handler)
    yield log
    logging.getLogger().removeHandler(log.handler)


def log_exception(text: str) -> None:
    try:
        raise RuntimeError(text)
    except RuntimeError:
        foreign_logger.exception("failed")


foreign_logger = logging.getLogger("anybody.else")
WAYS: dict[str, Callable[[str], None]] = {
    "a message": lambda text: foreign_logger.error(text),
    "a message that is no text": lambda text: foreign_logger.error(Foreign(text)),
    "an argument": lambda text: foreign_logger.error("%s, %d", text, 7),
    "a quoted argument": lambda text: foreign_logger.error("%r", text),
    "an argument by name": lambda text: foreign_logger.error("%(name)s", {"name": text}),
    "an argument that is no text": lambda text: foreign_logger.error("%s and %r", Foreign(text), [text]),
    "an exception as an argument": lambda text: foreign_logger.error("%s", OSError(text)),
    "an exception's text": log_exception,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("character", UNPRINTABLE, ids=ascii)
def test_no_text_forges_a_line_or_moves_the_cursor(character: str, way: str, log: Log) -> None:
    WAYS[way](f"a{character}ERROR anybody.else: forged")

    assert not [line for line in log.text.splitlines() if line.startswith("ERROR anybody.else: forged")]
    assert log.text.replace("\n", "").isprintable()
    assert log.text.count("\n") == 1 or way == "an exception's text"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_a_key_is_logged(form: str, way: str, log: Log) -> None:
    WAYS[way](f"the key ({form})")

    assert "configured" not in log.text
    assert "[redacted]" in log.text


@pytest.mark.parametrize("way", WAYS)
def test_long_texts_are_cut(way: str, log: Log) -> None:
    WAYS[way]("x" * 100_000)

    assert "xxx...[truncated]" in log.text
    assert log.text.count("x") < 3 * LOG_TEXT_CHARACTERS


def test_numbers_and_readable_text_are_unchanged(log: Log) -> None:
    foreign_logger.warning("%d of %.3g s for %r: %s", 3, 0.5, "my-model", "déjà vu 100%")

    assert log.text == "WARNING anybody.else: 3 of 0.5 s for 'my-model': déjà vu 100%\n"


def test_a_trailing_line_break_is_removed(log: Log) -> None:
    foreign_logger.error("Exception in ASGI application\n")

    assert log.text == "ERROR anybody.else: Exception in ASGI application\n"


def test_only_the_length_of_bytes_is_logged(log: Log) -> None:
    foreign_logger.warning("got %s", b"the prompt")

    assert log.text == "WARNING anybody.else: got <10 bytes>\n"


def invalid() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"number": PROMPT, "texts": {PROMPT: PROMPT}})
    return caught.value


REQUEST = httpx2.Request("POST", "http://x")
QUOTING = [
    pytest.param(KeyError(PROMPT), "KeyError", id="KeyError"),
    pytest.param(ValueError(f"invalid literal: {PROMPT!r}"), "ValueError", id="ValueError"),
    pytest.param(openai.APIError(PROMPT, REQUEST, body={"message": PROMPT}), "APIError", id="openai"),
    pytest.param(invalid(), "ValidationError: 2 errors (int_parsing)", id="pydantic"),
]


@pytest.mark.parametrize(("exc", "shown"), QUOTING)
def test_only_the_class_of_an_exception_that_may_quote_a_prompt_is_logged(exc: Exception, shown: str, log: Log) -> None:
    foreign_logger.error("%s", exc)
    foreign_logger.error("failed", exc_info=exc)
    foreign_logger.error(exc)

    assert log.text.count(shown) == 3
    assert PROMPT not in log.text


def test_an_exception_that_cannot_quote_a_prompt_is_logged_with_its_text(log: Log) -> None:
    assert exception_for_log(TypeError("'NoneType' object is not subscriptable")) == (
        "TypeError: 'NoneType' object is not subscriptable"
    )
    assert exception_for_log(ConnectionResetError(104, "reset")) == "ConnectionResetError: [Errno 104] reset"


def fail_for(cause: Exception) -> None:
    try:
        raise cause
    except Exception as exc:
        raise TypeError("what came of it") from exc


def test_a_traceback_has_frames_and_causes(log: Log) -> None:
    try:
        fail_for(KeyError(PROMPT))
    except TypeError:
        foreign_logger.exception("failed")

    first, second = log.text.split("\n\n")
    assert first.startswith("ERROR anybody.else: failed\nTraceback (most recent call last):\n")
    assert first.endswith("\nKeyError")
    assert f'File "{__file__}", line' in first
    assert "in fail_for" in second
    assert second.endswith("TypeError: what came of it\n")
    assert PROMPT not in log.text


def test_every_exception_of_a_group_is_in_the_traceback_once(log: Log) -> None:
    cause = KeyError(PROMPT)
    group = ExceptionGroup(PROMPT, [ValueError(PROMPT), OSError("second")])
    group.__context__ = cause
    cause.__context__ = group
    foreign_logger.error("failed", exc_info=group)

    names = [line for line in log.text.splitlines() if not line.startswith(("ERROR", "Traceback", " ")) and line]
    assert sorted(names) == ["ExceptionGroup", "KeyError", "OSError: second", "ValueError"]


def raise_in_callback(text: str) -> None:
    raise KeyError(text)


async def test_asyncios_messages_about_lost_exceptions_quote_nothing(log: Log) -> None:
    async def lost() -> None:
        raise KeyError(PROMPT)

    task = asyncio.create_task(lost())
    await asyncio.wait([task])
    del task
    gc.collect()
    asyncio.get_running_loop().call_soon(raise_in_callback, PROMPT)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert "ERROR asyncio: Task exception was never retrieved\n" in log.text
    assert "ERROR asyncio: Exception in callback raise_in_callback\n" in log.text
    assert log.text.splitlines().count("KeyError") == 2
    assert PROMPT not in log.text


def test_secrets_of_a_deleted_application_are_forgotten(log: Log) -> None:
    protect_logs(Redactor(["its-own-secret"]))
    gc.collect()

    assert for_log("its-own-secret") == "its-own-secret"


async def test_warnings_and_unhandled_exceptions_are_logged(tmp_path: Path) -> None:
    script = """if True:
        import threading, warnings
        from app.core.logs.records import log_all_output, protect_logs
        from app.core.redaction import Redactor

        redactor = Redactor(["configured-key"])
        protect_logs(redactor)
        log_all_output()

        class Unraisable:
            def __del__(self):
                fail()

        def fail():
            raise OSError("raised\\nforged configured-key")

        warnings.warn("warned\\nforged configured-key")
        Unraisable()
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        fail()
    """
    async with started("-c", script, cwd=tmp_path) as process:
        assert await process.ended() == 1

    lines = process.said.splitlines()
    assert [line for line in lines if line.endswith(": UserWarning: warned\\nforged [redacted]")] == lines[:1]
    assert lines.count("OSError: raised\\nforged [redacted]") == lines.count("Uncaught OSError") == 3
