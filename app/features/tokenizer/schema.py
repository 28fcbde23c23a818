"""Request and response models of vLLM's tokenizer routes (vLLM 0.33.0). Unknown keys are ignored."""

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from app.features.llm.schema import JSONObject, Message, Tool
from app.features.llm.validation import raw_body_rules, value_rules
from app.features.llm.validation.bounded_types import LongList, LongMapping

TokenId = Annotated[int, Field(ge=0, le=2**63 - 1)]


class _Request(BaseModel):
    # Error messages reach logs; they must not contain the prompt.
    model_config = ConfigDict(hide_input_in_errors=True)

    model: str | None = None


class TokenizePromptRequest(_Request):
    """A prompt to encode. `add_special_tokens` has no effect: OpenAI's models put none before a prompt."""

    prompt: str
    add_special_tokens: bool = True
    return_token_strs: bool | None = False


class TokenizeChatRequest(_Request):
    """A conversation to encode in OpenAI's chat format."""

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


class _TokenizeMissingInput(TokenizePromptRequest):
    messages: LongList[Message]


TokenizeRequest = TokenizePromptRequest | TokenizeChatRequest

_BY_KEY: dict[str, type[TokenizeRequest]] = {"prompt": TokenizePromptRequest, "messages": TokenizeChatRequest}


def tokenize_model(body: object) -> type[TokenizeRequest]:
    """Return the request model for a body, by its key; without one, a model whose errors report both as missing."""
    keys = body if isinstance(body, dict) else {}
    return next((model for key, model in _BY_KEY.items() if key in keys), _TokenizeMissingInput)


class DetokenizeRequest(_Request):
    """Token ids to decode. Only the first invalid id is reported: there may be very many."""

    tokens: Annotated[list[TokenId], FailFast()]


# Dataclasses, because validating hundreds of thousands of our own ids would take as long as encoding the text.


@dataclass(frozen=True, slots=True)
class TokenizeResponse:
    """Token ids. `max_model_len` is null if the context length is unknown, `token_strs` unless requested."""

    count: int
    max_model_len: int | None
    tokens: list[int]
    token_strs: list[str] | None = None


@dataclass(frozen=True, slots=True)
class DetokenizeResponse:
    """The decoded text."""

    prompt: str
