"""The validation errors that vLLM's own checks raise."""

from typing import NoReturn

from pydantic_core import PydanticCustomError

from app.core.errors.validation_errors import VLLM_ERROR


def fail(message: str, param: str | None) -> NoReturn:
    """Reject a request with vLLM's text.

    Raises:
        PydanticCustomError: always.
    """
    raise PydanticCustomError(VLLM_ERROR, "{message}", {"message": message, "param": param})


def fail_with_value(message: str, param: str, value: object = None) -> NoReturn:
    """Reject a request in the form of vLLM's validation class: the message repeats the parameter and its value.

    Raises:
        PydanticCustomError: always.
    """
    shown = f"parameter={param}" if value is None else f"parameter={param}, value={value}"
    fail(f"{message} ({shown})", param)
