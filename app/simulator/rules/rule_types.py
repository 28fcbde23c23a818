"""Rules for JSON values, with OpenAI's error messages.

A rule has a description of what it expects and a check for each JSON type it accepts. Rules combine into rules, so
that a whole request is one table.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.simulator.errors import OpenAIError, bad_request

Check = Callable[[Any, str], None]

NULL, BOOLEAN, INTEGER, DECIMAL = "null", "a boolean", "an integer", "a decimal"
STRING, ARRAY, OBJECT = "a string", "an array", "an object"
KINDS = {type(None): NULL, bool: BOOLEAN, int: INTEGER, float: DECIMAL, str: STRING, list: ARRAY, dict: OBJECT}
PLURALS = {STRING: "strings", OBJECT: "objects", INTEGER: "integers", ARRAY: "arrays"}


@dataclass(frozen=True)
class Rule:
    """``expected`` as OpenAI describes it, and the check for each accepted type of value."""

    expected: str
    checks: Mapping[str, Check]

    def check(self, value: Any, path: str) -> None:
        """Check ``value``, which is at ``path`` of the request.

        Raises:
            OpenAIError: 400 that names the path.
        """
        kind = KINDS[type(value)]
        if kind not in self.checks:
            message = f"Invalid type for '{path}': expected {self.expected}, but got {kind} instead."
            raise bad_request(message, param=path, code="invalid_type")
        self.checks[kind](value, path)


def _anything(_: Any, __: str) -> None:
    return None


def nullable(rule: Rule) -> Rule:
    """Return a rule that also accepts null."""
    return Rule(rule.expected, {**rule.checks, NULL: _anything})


def either(*rules: Rule) -> Rule:
    """Return a rule that accepts what any of ``rules`` accepts; their types must be disjoint."""
    checks = {kind: check for rule in rules for kind, check in rule.checks.items()}
    return Rule("one of " + " or ".join(_without_article(rule.expected, rules) for rule in rules), checks)


def boolean() -> Rule:
    """Return a rule for true and false."""
    return Rule(BOOLEAN, {BOOLEAN: _anything})


def integer(minimum: int | None = None, maximum: int | None = None) -> Rule:
    """Return a rule for whole numbers within inclusive limits."""
    return Rule(INTEGER, {INTEGER: _within("integer", minimum, maximum)})


def decimal(minimum: float, maximum: float) -> Rule:
    """Return a rule for numbers within inclusive limits."""
    check = _within("decimal", minimum, maximum)
    return Rule(DECIMAL, {INTEGER: check, DECIMAL: check})


def string(*, minimum: int = 0, maximum: int | None = None, pattern: str | None = None) -> Rule:
    """Return a rule for text of ``minimum`` to ``maximum`` characters that matches ``pattern``."""

    def check(value: str, path: str) -> None:
        if len(value) < minimum:
            got = "an empty string" if not value else f"a string with length {len(value)}"
            raise _invalid(path, "empty string", f"a string with minimum length {minimum}", got, "empty_string")
        if maximum is not None and len(value) > maximum:
            expected, got = f"a string with maximum length {maximum}", f"a string with length {len(value)}"
            raise _invalid(path, "string too long", expected, got, "string_above_max_length")
        if pattern is not None and not re.search(pattern, value):
            message = f"Invalid '{path}': string does not match pattern. Expected a string that matches the pattern"
            raise bad_request(f"{message} '{pattern}'.", param=path, code="invalid_value")

    return Rule(STRING, {STRING: check})


def one_of(*values: str) -> Rule:
    """Return a rule for one of ``values``."""

    def check(value: str, path: str) -> None:
        if value not in values:
            raise _unsupported(value, values, path)

    return Rule(STRING, {STRING: check})


def array(item: Rule, *, minimum: int = 0, maximum: int | None = None) -> Rule:
    """Return a rule for lists of ``minimum`` to ``maximum`` items that each satisfy ``item``."""

    def check(value: list[Any], path: str) -> None:
        if len(value) < minimum:
            expected = f"an array with minimum length {minimum}"
            raise _invalid(path, "empty array", expected, "an empty array", "empty_array")
        if maximum is not None and len(value) > maximum:
            expected, got = f"an array with maximum length {maximum}", f"an array with length {len(value)}"
            raise _invalid(path, "array too long", expected, got, "array_above_max_length")
        for position, member in enumerate(value):
            item.check(member, f"{path}[{position}]")

    plural = PLURALS.get(item.expected)
    return Rule(f"{ARRAY} of {plural}" if plural else ARRAY, {ARRAY: check})


def record(required: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None) -> Rule:
    """Return a rule for objects with these members and no others."""
    members = {**required, **(optional or {})}

    def check(value: dict[str, Any], path: str) -> None:
        for key in value:
            if key not in members:
                raise unknown(f"{path}.{key}")
        for key in required:
            if key not in value:
                raise missing(f"{path}.{key}")
        for key, member in value.items():
            members[key].check(member, f"{path}.{key}")

    return Rule(OBJECT, {OBJECT: check})


def mapping(member: Rule) -> Rule:
    """Return a rule for objects with any keys whose values satisfy ``member``."""

    def check(value: dict[str, Any], path: str) -> None:
        for key, found in value.items():
            member.check(found, f"{path}.{key}")

    return Rule(OBJECT, {OBJECT: check})


def any_object() -> Rule:
    """Return a rule for any object."""
    return Rule(OBJECT, {OBJECT: _anything})


def variants(tag: str, rules: Mapping[str, Rule]) -> Rule:
    """Return a rule for objects whose member ``tag`` selects one of ``rules``."""

    def check(value: dict[str, Any], path: str) -> None:
        if tag not in value:
            raise missing(f"{path}.{tag}")
        one_of(*rules).check(value[tag], f"{path}.{tag}")
        rules[value[tag]].check(value, path)

    return Rule(OBJECT, {OBJECT: check})


def also(rule: Rule, check: Check) -> Rule:
    """Return ``rule`` with an additional ``check`` on every accepted value."""

    def chain(first: Check) -> Check:
        def both(value: Any, path: str) -> None:
            first(value, path)
            check(value, path)

        return both

    return Rule(rule.expected, {kind: chain(first) for kind, first in rule.checks.items()})


def missing(path: str) -> OpenAIError:
    """Return OpenAI's 400 for a missing member."""
    return bad_request(f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter")


def unknown(path: str) -> OpenAIError:
    """Return OpenAI's 400 for an unknown member."""
    return bad_request(f"Unknown parameter: '{path}'.", param=path, code="unknown_parameter")


def listed(values: Sequence[str]) -> str:
    """Return ``values`` as a quoted list: 'a', 'b', and 'c'."""
    quoted = [f"'{value}'" for value in values]
    if len(quoted) < 3:
        return " and ".join(quoted)
    return ", ".join(quoted[:-1]) + f", and {quoted[-1]}"


def _within(noun: str, minimum: float | None, maximum: float | None) -> Check:
    def check(value: float, path: str) -> None:
        if maximum is not None and value > maximum:
            problem, code = f"{noun} above maximum value", f"{noun}_above_max_value"
            raise _invalid(path, problem, f"a value <= {maximum}", str(value), code)
        if minimum is not None and value < minimum:
            problem, code = f"{noun} below minimum value", f"{noun}_below_min_value"
            raise _invalid(path, problem, f"a value >= {minimum}", str(value), code)

    return check


def _invalid(path: str, problem: str, expected: str, got: str, code: str) -> OpenAIError:
    return bad_request(
        f"Invalid '{path}': {problem}. Expected {expected}, but got {got} instead.", param=path, code=code
    )


def _unsupported(value: str, values: Sequence[str], path: str) -> OpenAIError:
    message = f"Invalid value: '{value}'. Supported values are: {listed(values)}."
    return bad_request(message, param=path, code="invalid_value")


def _without_article(expected: str, rules: Sequence[Rule]) -> str:
    # OpenAI writes "one of a string or array of objects": only the first has its article.
    return expected if expected == rules[0].expected else expected.removeprefix("an ").removeprefix("a ")
