"""What the answer's text must look like: vLLM's ways to say it, made into OpenAI's `response_format`."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from app.core.errors.errors import RequestError
from app.core.json_encoding import encode_json
from app.features.llm.from_openai.plan import Envelope
from app.features.llm.schema import ChatCompletionRequest, JSONObject, JSONSchemaFormat, StructuredOutputs
from app.features.llm.to_openai.structured_outputs.json_schema import choice_schema, legal_name, prepared, regex_schema
from app.features.llm.to_openai.structured_outputs.strict_schema import UNSUPPORTED_PATTERN

MAX_CHOICES = 1000
"""OpenAI's limit on the values of an enumeration."""

LONG_LIST, LONG_LIST_CHARACTERS = 250, 15_000
"""OpenAI's limit on the text of an enumeration of more values than the first."""

_OUTPUTS = "structured_outputs"
_FORMAT = "response_format"

# Removed from vLLM in 0.12, still sent by many clients.
GUIDED = {"guided_json": "json", "guided_regex": "regex", "guided_choice": "choice"}


@dataclass(frozen=True, slots=True)
class Constraint:
    """OpenAI's `response_format`, and what to do about it on the way back."""

    response_format: JSONObject
    envelope: Envelope | None = None
    not_enforced: str | None = None
    """The field whose schema OpenAI cannot enforce and was sent as a hint."""

    @property
    def needs_the_word_json(self) -> bool:
        """Whether OpenAI takes it only beside a message that says "json"."""
        return bool(self.response_format["type"] == "json_object")


_JSON_OBJECT = Constraint({"type": "json_object"})


def constraint_of(request: ChatCompletionRequest) -> Constraint | None:
    """The one constraint of a request; `response_format` wins over a schema in `structured_outputs`, as in vLLM.

    Raises:
        RequestError: there are several, or OpenAI cannot hold this one.
    """
    outputs, field = _outputs(request)
    form = request.response_format
    if form is None or form.type == "text":
        return _of_outputs(outputs, field) if outputs else None
    if outputs and outputs.json_ is None:
        raise RequestError(
            "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice').",
            param=field,
        )
    if form.type == "json_object":
        return _JSON_OBJECT
    if form.type == "structural_tag" or form.json_schema is None:
        raise RequestError(
            "response_format of type 'structural_tag' is not available with this upstream.", param=_FORMAT
        )
    return _of_schema(form.json_schema, _FORMAT)


def guided_keys(request: ChatCompletionRequest) -> set[str]:
    """Those of the removed `guided_*` keys that have an effect."""
    given = request.model_extra
    if not given or request.structured_outputs:
        return set()
    return {name for name in GUIDED if _guides(name, given.get(name))}


def _guides(name: str, value: object) -> bool:
    # vLLM ignores these keys, so that a value it would not understand is no error either.
    if name == "guided_choice":
        return isinstance(value, list) and bool(value) and all(isinstance(choice, str) for choice in value)
    return bool(value) and isinstance(value, str | dict if name == "guided_json" else str)


def _outputs(request: ChatCompletionRequest) -> tuple[StructuredOutputs | None, str]:
    """The structured outputs of a request, and the field that has them."""
    if request.structured_outputs:
        return request.structured_outputs, _OUTPUTS
    names = guided_keys(request)
    if not names:
        return None, _OUTPUTS
    if len(names) > 1:
        raise RequestError(f"Only one of {', '.join(sorted(names))} can be used.", param=min(names))
    [name] = names
    return StructuredOutputs.model_validate({GUIDED[name]: (request.model_extra or {})[name]}), name


def _of_outputs(outputs: StructuredOutputs, field: str) -> Constraint:
    if outputs.json_ is not None:
        return _of_schema(JSONSchemaFormat(name="answer", schema=_parsed(outputs.json_, field)), field)
    if outputs.choice is not None:
        return _of_text(choice_schema(_checked_choices(outputs.choice, field)), field)
    if outputs.regex is not None:
        return _of_text(regex_schema(_checked_regex(outputs.regex, field)), field)
    if outputs.json_object:
        return _JSON_OBJECT
    kind = "grammar" if outputs.grammar is not None else "structural_tag"
    raise RequestError(f"structured_outputs.{kind} is not available with this upstream.", param=field)


def _of_schema(form: JSONSchemaFormat, field: str) -> Constraint:
    request_body_schema: JSONObject = {"name": legal_name(form.name)}
    if form.description is not None:
        request_body_schema["description"] = form.description
    if form.schema_ is None:
        return Constraint({"type": "json_schema", "json_schema": request_body_schema})
    encode_json(form.schema_, param=field)
    ready = prepared(form.schema_, strict=form.strict, param=field)
    request_body_schema |= {"schema": ready.schema, "strict": ready.strict}
    return Constraint(
        {"type": "json_schema", "json_schema": request_body_schema},
        Envelope.JSON if ready.wrapped else None,
        None if ready.strict or form.strict is False else f"{field}.strict",
    )


def _of_text(schema: JSONObject, field: str) -> Constraint:
    ready = prepared(schema, strict=True, param=field)
    form = {"name": "answer", "schema": ready.schema, "strict": True}
    return Constraint({"type": "json_schema", "json_schema": form}, Envelope.TEXT)


def _parsed(schema: str | JSONObject, field: str) -> Any:
    if not isinstance(schema, str):
        return schema
    try:
        parsed = from_json(schema)
    except ValueError as exc:
        raise RequestError(f"The schema in {field} is not JSON: {exc}", param=field) from None
    if not isinstance(parsed, dict):
        raise RequestError(f"The schema in {field} must be an object.", param=field)
    return parsed


def _checked_choices(choices: list[str], field: str) -> list[str]:
    if len(set(choices)) > MAX_CHOICES:
        message = f"The choices in {field} can be at most {MAX_CHOICES}, got {len(set(choices))}."
        raise RequestError(message, param=field)
    if len(choices) > LONG_LIST and sum(map(len, set(choices))) > LONG_LIST_CHARACTERS:
        message = f"More than {LONG_LIST} choices in {field} can have {LONG_LIST_CHARACTERS} characters at most."
        raise RequestError(message, param=field)
    return choices


def _checked_regex(pattern: str, field: str) -> str:
    try:
        re.compile(f"^(?:{pattern})$")
    except (re.error, RecursionError, OverflowError) as exc:
        # Other dialects have escapes that Python lacks; those are OpenAI's to judge.
        if not str(exc).startswith("bad escape"):
            raise RequestError(f"Grammar error: invalid regex {pattern[:200]!r}: {exc}", param=field) from None
    if UNSUPPORTED_PATTERN.search(pattern):
        raise RequestError(f"The upstream takes no look-around and no back-references: {field}.", param=field)
    if "\0" in pattern:
        raise RequestError(f"The regex in {field} cannot contain NUL.", param=field)
    return pattern
