"""Types for lists and mappings of any length, whose validation errors stay few."""

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import CoreSchema, core_schema

LONG_ITEMS = 64
"""A list of up to this many items has all of its errors reported, as in vLLM; a longer one only the first."""

# Not identifiers: the error renderer leaves such tags out of an error's location.
_SHORT = "a list"
_LONG = "a long list"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _FirstErrorIfLong:
    """Annotation of a list type. Collecting the errors of a million items takes seconds, and few are reported."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        complete = handler(source)
        return core_schema.tagged_union_schema({_SHORT: complete, _LONG: {**complete, "fail_fast": True}}, _list_tag)

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(schema["choices"][_SHORT])


def _list_tag(value: object) -> str:
    return _LONG if isinstance(value, list) and len(value) > LONG_ITEMS else _SHORT


def _validate_in_slices(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    if not isinstance(value, dict) or len(value) <= LONG_ITEMS:
        return validate(value)
    items = list(value.items())
    validated: dict[object, object] = {}
    for start in range(0, len(items), LONG_ITEMS):
        validated |= validate(dict(items[start : start + LONG_ITEMS]))
    return validated


LongList = Annotated[list[T], _FirstErrorIfLong()]
"""A list of any length, empty or not."""
OneOrMore = Annotated[list[T], Field(min_length=1), _FirstErrorIfLong()]
"""A list of at least one item."""
LongMapping = Annotated[dict[str, T], WrapValidator(_validate_in_slices)]
"""A mapping of any length, validated in slices so that the first invalid slice ends it."""
