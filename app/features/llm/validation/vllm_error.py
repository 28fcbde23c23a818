"""The failure of one of vLLM's own checks."""

from typing import NoReturn

from pydantic_core import PydanticCustomError

from app.core.errors.validation_errors import VLLM_ERROR


def fail(message: str, param: str | None) -> NoReturn:
    """Fail as vLLM's checks do.

    Raises:
        PydanticCustomError: always.
    """
    raise PydanticCustomError(VLLM_ERROR, "{message}", {"message": message, "param": param})


def fail_with_value(message: str, param: str, value: object = None) -> NoReturn:
    """Fail as vLLM's own validation class does, which repeats the parameter and its value in the message.

    Raises:
        PydanticCustomError: always.
    """
    shown = f"parameter={param}" if value is None else f"parameter={param}, value={value}"
    fail(f"{message} ({shown})", param)
