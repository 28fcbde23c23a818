"""vLLM's constraints on the response text, converted to OpenAI's `response_format`."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from app.core.errors.request_errors import RequestError
from app.core.json_encoding import encode_json
from app.features.llm.from_openai.plan import Envelope
from app.features.llm.schema import ChatCompletionRequest, JSONObject, JSONSchemaFormat, StructuredOutputs
from app.features.llm.to_openai.structured_outputs.json_schema import (
    choice_schema,
    prepare_schema,
    regex_schema,
    valid_name,
)
from app.features.llm.to_openai.structured_outputs.strict_schema import UNSUPPORTED_PATTERN

MAX_CHOICES = 1000
"""OpenAI's limit on the values of an enumeration."""

LONG_LIST, LONG_LIST_CHARACTERS = 250, 15_000
"""OpenAI's limit on the characters of an enumeration with more values than `LONG_LIST`."""

_OUTPUTS_FIELD = "structured_outputs"
_FORMAT_FIELD = "response_format"

# vLLM removed these keys in 0.12; many clients still send them.
GUIDED = {"guided_json": "json", "guided_regex": "regex", "guided_choice": "choice"}


@dataclass(frozen=True, slots=True)
class Constraint:
    """OpenAI's `response_format`, and how to treat the response text."""

    response_format: JSONObject
    envelope: Envelope | None = None
    not_enforced: str | None = None
    """The field whose schema OpenAI cannot enforce; it is sent as a hint."""

    @property
    def needs_json_mention(self) -> bool:
        """Whether OpenAI requires a message that mentions "json"."""
        return bool(self.response_format["type"] == "json_object")


_JSON_OBJECT = Constraint({"type": "json_object"})


def constraint_of(request: ChatCompletionRequest) -> Constraint | None:
    """Return the constraint of a request. `response_format` wins over a schema in `structured_outputs`, as in vLLM.

    Raises:
        RequestError: there are several constraints, or OpenAI cannot enforce this kind.
    """
    outputs, field = _structured_outputs(request)
    requested = request.response_format
    if requested is None or requested.type == "text":
        return _outputs_constraint(outputs, field) if outputs else None
    if outputs and outputs.json_ is None:
        raise RequestError(
            "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice').",
            param=field,
        )
    if requested.type == "json_object":
        return _JSON_OBJECT
    if requested.type == "structural_tag" or requested.json_schema is None:
        raise RequestError(
            "response_format of type 'structural_tag' is not available with this upstream.", param=_FORMAT_FIELD
        )
    return _schema_constraint(requested.json_schema, _FORMAT_FIELD)


def guided_keys(request: ChatCompletionRequest) -> set[str]:
    """Return the removed `guided_*` keys that have an effect in this request."""
    extra = request.model_extra
    if not extra or request.structured_outputs:
        return set()
    return {name for name in GUIDED if _is_usable(name, extra.get(name))}


def _is_usable(name: str, value: object) -> bool:
    # vLLM ignores these keys, so an invalid value must not be an error.
    if name == "guided_choice":
        return isinstance(value, list) and bool(value) and all(isinstance(choice, str) for choice in value)
    return bool(value) and isinstance(value, str | dict if name == "guided_json" else str)


def _structured_outputs(request: ChatCompletionRequest) -> tuple[StructuredOutputs | None, str]:
    """Return the structured outputs of a request and the field that they come from."""
    if request.structured_outputs:
        return request.structured_outputs, _OUTPUTS_FIELD
    names = guided_keys(request)
    if not names:
        return None, _OUTPUTS_FIELD
    if len(names) > 1:
        raise RequestError(f"Only one of {', '.join(sorted(names))} can be used.", param=min(names))
    [name] = names
    return StructuredOutputs.model_validate({GUIDED[name]: (request.model_extra or {})[name]}), name


def _outputs_constraint(outputs: StructuredOutputs, field: str) -> Constraint:
    if outputs.json_ is not None:
        return _schema_constraint(JSONSchemaFormat(name="answer", schema=_parse_schema(outputs.json_, field)), field)
    if outputs.choice is not None:
        return _text_constraint(choice_schema(_check_choices(outputs.choice, field)), field)
    if outputs.regex is not None:
        return _text_constraint(regex_schema(_check_regex(outputs.regex, field)), field)
    if outputs.json_object:
        return _JSON_OBJECT
    kind = "grammar" if outputs.grammar is not None else "structural_tag"
    raise RequestError(f"structured_outputs.{kind} is not available with this upstream.", param=field)


def _schema_constraint(requested: JSONSchemaFormat, field: str) -> Constraint:
    json_schema: JSONObject = {"name": valid_name(requested.name)}
    if requested.description is not None:
        json_schema["description"] = requested.description
    if requested.schema_ is None:
        return Constraint({"type": "json_schema", "json_schema": json_schema})
    encode_json(requested.schema_, param=field)
    prepared = prepare_schema(requested.schema_, strict=requested.strict, param=field)
    json_schema |= {"schema": prepared.schema, "strict": prepared.strict}
    return Constraint(
        {"type": "json_schema", "json_schema": json_schema},
        Envelope.JSON if prepared.wrapped else None,
        None if prepared.strict or requested.strict is False else f"{field}.strict",
    )


def _text_constraint(schema: JSONObject, field: str) -> Constraint:
    prepared = prepare_schema(schema, strict=True, param=field)
    json_schema = {"name": "answer", "schema": prepared.schema, "strict": True}
    return Constraint({"type": "json_schema", "json_schema": json_schema}, Envelope.TEXT)


def _parse_schema(schema: str | JSONObject, field: str) -> Any:
    if not isinstance(schema, str):
        return schema
    try:
        parsed = from_json(schema)
    except ValueError as exc:
        raise RequestError(f"The schema in {field} is not JSON: {exc}", param=field) from None
    if not isinstance(parsed, dict):
        raise RequestError(f"The schema in {field} must be an object.", param=field)
    return parsed


def _check_choices(choices: list[str], field: str) -> list[str]:
    if len(set(choices)) > MAX_CHOICES:
        message = f"The choices in {field} can be at most {MAX_CHOICES}, got {len(set(choices))}."
        raise RequestError(message, param=field)
    if len(choices) > LONG_LIST and sum(map(len, set(choices))) > LONG_LIST_CHARACTERS:
        message = f"More than {LONG_LIST} choices in {field} can have {LONG_LIST_CHARACTERS} characters at most."
        raise RequestError(message, param=field)
    return choices


def _check_regex(pattern: str, field: str) -> str:
    try:
        re.compile(f"^(?:{pattern})$")
    except (re.error, RecursionError, OverflowError) as exc:
        # Other regex dialects have escapes that Python lacks; OpenAI decides whether to accept them.
        if not str(exc).startswith("bad escape"):
            raise RequestError(f"Grammar error: invalid regex {pattern[:200]!r}: {exc}", param=field) from None
    if UNSUPPORTED_PATTERN.search(pattern):
        raise RequestError(f"The upstream supports no look-around and no back-references: {field}.", param=field)
    if "\0" in pattern:
        raise RequestError(f"The regex in {field} cannot contain NUL.", param=field)
    return pattern
