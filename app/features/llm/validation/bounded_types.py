"""Lists and mappings that a client may make long: of what is wrong with many items, only the first is told."""

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import CoreSchema, core_schema

LONG_ITEMS = 64
"""Of a list that is not longer, all errors are told, as by vLLM."""

# No identifiers, so that they are no part of the place that an error names.
_SHORT = "a list"
_LONG = "a long list"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _FirstErrorIfLong:
    """Marks a list. To write the errors of a million items would take seconds, and nobody is shown them."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        whole = handler(source)
        return core_schema.tagged_union_schema({_SHORT: whole, _LONG: {**whole, "fail_fast": True}}, _length)

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(schema["choices"][_SHORT])


def _length(value: object) -> str:
    return _LONG if isinstance(value, list) and len(value) > LONG_ITEMS else _SHORT


def _in_slices(value: object, check: ValidatorFunctionWrapHandler) -> object:
    if not isinstance(value, dict) or len(value) <= LONG_ITEMS:
        return check(value)
    items = list(value.items())
    checked: dict[object, object] = {}
    for start in range(0, len(items), LONG_ITEMS):
        checked |= check(dict(items[start : start + LONG_ITEMS]))
    return checked


LongList = Annotated[list[T], _FirstErrorIfLong()]
"""A list of any length."""
OneOrMore = Annotated[list[T], Field(min_length=1), _FirstErrorIfLong()]
"""The same, but not empty."""
LongMapping = Annotated[dict[str, T], WrapValidator(_in_slices)]
"""A mapping of any length."""
