"""vLLM's request and answer models of its tokenizer routes (vLLM 0.32.0). Keys it does not know are left out."""

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from app.features.llm.schema import JSONObject, Message, Tool
from app.features.llm.validation import raw_body_rules, value_rules
from app.features.llm.validation.bounded_types import LongList, LongMapping

TokenId = Annotated[int, Field(ge=0, le=2**63 - 1)]


class _Request(BaseModel):
    # An error's text would show the prompt, and texts of errors reach logs.
    model_config = ConfigDict(hide_input_in_errors=True)

    model: str | None = None


class TokenizePromptRequest(_Request):
    """A text to be made into tokens. OpenAI's models put no special tokens before one."""

    prompt: str
    add_special_tokens: bool = True
    return_token_strs: bool | None = False


class TokenizeChatRequest(_Request):
    """A conversation to be made into tokens."""

    messages: LongList[Message]
    add_generation_prompt: bool = True
    return_token_strs: bool | None = False
    continue_final_message: bool = False
    add_special_tokens: bool = False
    chat_template: str | None = None
    chat_template_kwargs: JSONObject | None = None
    media_io_kwargs: LongMapping[JSONObject] | None = None
    mm_processor_kwargs: JSONObject | None = None
    tools: LongList[Tool] | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_raw_body(cls, body: object) -> object:
        if isinstance(body, dict):
            raw_body_rules.check_prompt_ending(body)
        return body

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        value_rules.check_conversation(self.messages)
        return self


class _TokenizeNothing(TokenizePromptRequest):
    messages: LongList[Message]


TokenizeRequest = TokenizePromptRequest | TokenizeChatRequest

_BY_KEY: dict[str, type[TokenizeRequest]] = {"prompt": TokenizePromptRequest, "messages": TokenizeChatRequest}


def tokenize_model(body: object) -> type[TokenizeRequest]:
    """The model of a body, by its key; where it has neither, the one that says that both are missing."""
    keys = body if isinstance(body, dict) else {}
    return next((model for key, model in _BY_KEY.items() if key in keys), _TokenizeNothing)


class DetokenizeRequest(_Request):
    """Ids to be made into a text. Of several that are wrong the first is told: there may be very many."""

    tokens: Annotated[list[TokenId], FailFast()]


# Dataclasses: to check hundreds of thousands of our own ids again would take as long as to make them.


@dataclass(frozen=True, slots=True)
class TokenizeResponse:
    """`max_model_len` is null for a model whose context is not known; `token_strs` unless they are asked for."""

    count: int
    max_model_len: int | None
    tokens: list[int]
    token_strs: list[str] | None = None


@dataclass(frozen=True, slots=True)
class DetokenizeResponse:
    """The text of the ids."""

    prompt: str
