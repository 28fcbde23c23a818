"""The request model of vLLM's decisions route (vLLM 0.33.0). Unknown keys are rejected."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Label = Annotated[str, Field(max_length=2**20)]
Text = Annotated[str, Field(max_length=10 * 2**20)]


class _Strict(BaseModel):
    # Error texts reach logs, so they must not quote the prompt.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class DecisionInputText(_Strict):
    """A text part of a message."""

    type: Literal["input_text"]
    text: Text


class DecisionInputMessage(_Strict):
    """A message of the input."""

    role: Literal["user"]
    content: Text | Annotated[list[DecisionInputText], Field(max_length=2**14, fail_fast=True)]
    type: Literal["message"] = "message"


class _Question(_Strict):
    instructions: Label
    name: Label | None = None


class PredicateQuestion(_Question):
    """A yes-or-no question."""

    type: Literal["predicate"]


class ChoiceOption(_Strict):
    """One of the values to choose from."""

    value: str | bool
    description: Label = ""


class ChoiceQuestion(_Question):
    """A question that one of several values answers."""

    type: Literal["choice"]
    choices: Annotated[list[ChoiceOption], Field(min_length=2, max_length=255)]


class ScoreLevel(_Strict):
    """A level of a scale."""

    label: Label
    description: Label = ""


class ScoreQuestion(_Question):
    """A question that a level of a scale answers."""

    type: Literal["score"]
    levels: Annotated[list[ScoreLevel], Field(min_length=2, max_length=10)]


Question = Annotated[PredicateQuestion | ChoiceQuestion | ScoreQuestion, Field(discriminator="type")]


class DecisionRequest(_Strict):
    """The body of `POST /v1/decisions`.

    Raises:
        ValidationError: a type is wrong, or a key is unknown.
    """

    model: Label
    input: Text | Annotated[list[DecisionInputMessage], Field(max_length=2**17, fail_fast=True)]
    questions: Annotated[list[Question], Field(min_length=1, max_length=200)]
    safety_identifier: Annotated[str, Field(max_length=128)] | None = None
    joint: bool = False
    cache_salt: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
