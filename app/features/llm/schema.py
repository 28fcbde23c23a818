"""vLLM's request and response models: its fields, in its order, with its defaults (vLLM 0.33.0)."""

from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, NotRequired, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    model_validator,
    with_config,
)
from typing_extensions import TypedDict

from app.core.request_record import MAX_REQUEST_ID_CHARACTERS
from app.features.llm.validation import raw_body_rules, value_rules
from app.features.llm.validation.bounded_types import LongList, LongMapping, OneOrMore

JSONObject = dict[str, Any]


class MessageRole(StrEnum):
    """The roles that OpenAI knows. vLLM accepts any string."""

    DEVELOPER = "developer"
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    FUNCTION = "function"


class ChatMessage(BaseModel):
    """A message of a response. `tool_calls` is left out if there are none, as in vLLM."""

    role: str = MessageRole.ASSISTANT
    content: str | None = None
    refusal: str | None = None
    annotations: list[JSONObject] | None = None
    audio: JSONObject | None = None
    function_call: JSONObject | None = None
    tool_calls: list[JSONObject] | None = Field(None, exclude_if=lambda calls: not calls)
    reasoning: str | None = None


_ROLES_WITHOUT_CONTENT = (MessageRole.ASSISTANT, MessageRole.FUNCTION)


def _as_dict(message: object) -> object:
    if isinstance(message, dict):
        if "content" in message and message["content"] is None:
            _check_null_content(message)
        return message
    return message.model_dump(exclude_unset=True) if isinstance(message, ChatMessage) else message


def _check_null_content(message: JSONObject) -> None:
    if message.get("role") in _ROLES_WITHOUT_CONTENT:
        return
    types = ("string_type", "list_type")
    raise ValidationError.from_exception_data(
        "RequestMessage", [{"type": type_, "loc": ("content",), "input": None} for type_ in types]
    )


@with_config(ConfigDict(extra="allow"))
class RequestMessage(TypedDict):
    """A message of a request. Other keys are kept: their meaning depends on the role."""

    role: str
    content: NotRequired[str | LongList[JSONObject | str] | None]
    name: NotRequired[str | None]
    tool_calls: NotRequired[LongList[JSONObject] | None]
    tool_call_id: NotRequired[str | None]


class StreamOptions(BaseModel):
    """Whether a stream reports its usage in a last chunk, and a running usage in every chunk."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class JSONSchemaFormat(BaseModel):
    """The schema of a `json_schema` response format. vLLM enforces it whatever `strict` says."""

    name: str
    description: str | None = None
    schema_: JSONObject | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """The required format of the response text; a `structural_tag` has further keys."""

    model_config = ConfigDict(extra="allow")

    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    json_schema: JSONSchemaFormat | None = None


class FunctionDefinition(BaseModel):
    """A function the model may call; `parameters` is a JSON schema."""

    model_config = ConfigDict(extra="allow")

    name: str
    description: str | None = None
    parameters: JSONObject | None = None
    strict: bool | None = None
    defer_loading: bool | None = None


class Tool(BaseModel):
    """A function tool, the only kind that vLLM supports."""

    model_config = ConfigDict(extra="allow")

    type: Literal["function"] = "function"
    function: FunctionDefinition
    defer_loading: bool | None = None


@with_config(ConfigDict(extra="allow"))
class NamedFunction(TypedDict):
    """The function that a tool choice names."""

    name: str


@with_config(ConfigDict(extra="allow"))
class NamedToolChoice(TypedDict):
    """A tool that the response must call."""

    type: NotRequired[Literal["function"]]
    function: NamedFunction


# vLLM reports an error for each literal.
ToolChoice = Literal["none"] | Literal["auto"] | Literal["required"] | NamedToolChoice


class StructuredOutputs(BaseModel):
    """vLLM's own constraints on the response text: exactly one of the first six fields is set."""

    json_: str | JSONObject | None = Field(None, alias="json")
    regex: str | None = None
    choice: LongList[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    whitespace_pattern: str | None = None


class RepetitionDetection(BaseModel):
    """When vLLM stops a response that repeats itself."""

    max_pattern_size: int = Field(0, ge=0)
    min_pattern_size: int = Field(0, ge=0)
    min_count: int = Field(0, ge=0)


# The types of fields that chat and text completions share. No common base declares the fields: both requests list them
# in vLLM's order, and the two orders differ.
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
LogitBias = LongMapping[float]
LogprobTokenIds = Annotated[list[int], Field(max_length=128)]
MultimodalPayload = Literal["tensors", "none"]
RequestId = Annotated[str, Field(max_length=MAX_REQUEST_ID_CHARACTERS)]
StopStrings = str | Annotated[list[str], Field(max_length=4)]
StreamInterval = Annotated[int, Field(ge=1)]
ThinkingTokenBudget = Annotated[int, Field(strict=True, ge=-1)]
TokenIds = LongList[int]
TruncatePromptTokens = Annotated[int, Field(ge=-1)]
TruncationSide = Literal["left", "right"]
XArgs = LongMapping[str | int | float | LongList[str | int | float]]

Message = Annotated[RequestMessage, BeforeValidator(_as_dict)]
Messages = TypeVar("Messages")


class _ChatRequest(BaseModel, Generic[Messages]):
    # Error texts reach logs, so they must not quote the prompt.
    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)

    messages: Messages
    model: str | None = "gpt-4o-mini"
    frequency_penalty: float | None = None
    logit_bias: LogitBias | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = 0
    max_tokens: int | None = Field(None, json_schema_extra={"deprecated": True})
    max_completion_tokens: int | None = None
    n: int | None = 1
    presence_penalty: float | None = None
    response_format: ResponseFormat | None = None
    seed: Int64 | None = None
    stop: StopStrings | None = Field(default_factory=list)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = 0.7
    top_p: float | None = None
    tools: LongList[Tool] | None = None
    tool_choice: ToolChoice | None = "none"
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    thinking_token_budget: ThinkingTokenBudget | None = None
    include_reasoning: bool = True
    parallel_tool_calls: bool | None = True
    user: str | None = None
    use_beam_search: bool = False
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    watermarking: bool | None = None
    length_penalty: float = 1.0
    stop_token_ids: TokenIds | None = Field(default_factory=list)
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool = True
    truncate_prompt_tokens: TruncatePromptTokens | None = None
    truncation_side: TruncationSide | None = None
    prompt_logprobs: int | None = None
    logprob_token_ids: LogprobTokenIds | None = None
    allowed_token_ids: TokenIds | None = None
    bad_words: LongList[str] = Field(default_factory=list)
    echo: bool = False
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    documents: LongList[LongMapping[str]] | None = None
    chat_template: str | None = None
    chat_template_kwargs: JSONObject | None = None
    media_io_kwargs: LongMapping[JSONObject] | None = None
    mm_processor_kwargs: JSONObject | None = None
    structured_outputs: StructuredOutputs | None = None
    priority: Int64 = 0
    request_id: RequestId | None = None
    session_id: str | None = None
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool | None = None
    return_weight_versions: bool = False
    routed_experts_prompt_start: NonNegativeInt = 0
    return_token_offsets: bool | None = False
    return_prompt_text: bool | None = None
    mm_payload: MultimodalPayload = "tensors"
    return_mm_kwargs: bool | None = None
    cache_salt: str | None = None
    kv_transfer_params: JSONObject | None = None
    ec_transfer_params: JSONObject | None = None
    vllm_xargs: XArgs | None = None
    repetition_detection: RepetitionDetection | None = None
    stream_interval: StreamInterval | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_raw_body(cls, body: object) -> object:
        if isinstance(body, dict):
            raw_body_rules.check_chat_body(body)
        return body

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        value_rules.check_chat_values(vars(self), self.model_fields_set)
        return self


class ChatCompletionRequest(_ChatRequest[LongList[Message]]):
    """The body of `POST /v1/chat/completions`. Unknown keys are accepted, as in vLLM.

    The defaults of `model` and `temperature` are this server's; `model_fields_set` names what the client sent.

    Raises:
        ValidationError: a type is wrong, or one of vLLM's own checks failed (error type `vllm`).
    """


class BatchChatCompletionRequest(_ChatRequest[OneOrMore[OneOrMore[Message]]]):
    """The body of `POST /v1/chat/completions/batch`: several conversations, one choice for each, never streamed."""

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        value_rules.check_batch_choices(self.n)
        value_rules.check_chat_values(vars(self), self.model_fields_set)
        return self

    def conversations(self) -> list[ChatCompletionRequest]:
        """One chat request for each conversation, in order."""
        shared = {
            name: getattr(self, name) for name in self.model_fields_set - {"messages", "stream", "stream_options"}
        }
        return [
            ChatCompletionRequest.model_construct(_fields_set={"messages", *shared}, messages=messages, **shared)
            for messages in self.messages
        ]


Prompt = LongList[NonNegativeInt] | LongList[LongList[NonNegativeInt]] | str | LongList[str]


class CompletionRequest(BaseModel):
    """The body of `POST /v1/completions`. Unknown keys are accepted, as in vLLM.

    Raises:
        ValidationError: a type is wrong, or one of vLLM's own checks failed (error type `vllm`).
    """

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)

    model: str | None = None
    prompt: Prompt | None = None
    echo: bool | None = False
    frequency_penalty: float | None = None
    logit_bias: LogitBias | None = None
    logprobs: int | None = None
    max_tokens: int | None = 16
    n: int = 1
    presence_penalty: float | None = None
    seed: Int64 | None = None
    stop: StopStrings | None = Field(default_factory=list)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    suffix: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None
    use_beam_search: bool = False
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    watermarking: bool | None = None
    length_penalty: float = 1.0
    stop_token_ids: TokenIds | None = Field(default_factory=list)
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool = True
    truncate_prompt_tokens: TruncatePromptTokens | None = None
    truncation_side: TruncationSide | None = None
    allowed_token_ids: TokenIds | None = None
    prompt_logprobs: int | None = None
    logprob_token_ids: LogprobTokenIds | None = None
    bad_words: LongList[str] = Field(default_factory=list)
    prompt_embeds: str | LongList[str] | None = None
    add_special_tokens: bool = True
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    priority: Int64 = 0
    request_id: RequestId | None = None
    session_id: str | None = None
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool | None = None
    return_weight_versions: bool = False
    routed_experts_prompt_start: NonNegativeInt = 0
    return_token_offsets: bool | None = False
    mm_payload: MultimodalPayload = "tensors"
    return_mm_kwargs: bool | None = None
    cache_salt: str | None = None
    kv_transfer_params: JSONObject | None = None
    ec_transfer_params: JSONObject | None = None
    vllm_xargs: XArgs | None = None
    repetition_detection: RepetitionDetection | None = None
    thinking_token_budget: ThinkingTokenBudget | None = None
    stream_interval: StreamInterval | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_raw_body(cls, body: object) -> object:
        if isinstance(body, dict):
            raw_body_rules.check_completion_body(body)
        return body

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        value_rules.check_completion_values(vars(self), self.model_fields_set)
        return self


class Usage(BaseModel):
    """Token counts of a whole response. The prompt counts once for any `n`. Details are null by default, as in vLLM."""

    prompt_tokens: int = 0
    total_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: JSONObject | None = None
    completion_tokens_details: JSONObject | None = None


class TopLogprob(BaseModel):
    """A candidate for a token's position."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(TopLogprob):
    """A token of the response, with the other candidates for its position."""

    top_logprobs: list[TopLogprob] = []


class ChoiceLogprobs(BaseModel):
    """The log probabilities of a choice's tokens, in order."""

    content: list[TokenLogprob] | None = None


class Choice(BaseModel):
    """One of the `n` choices."""

    index: int = 0
    message: ChatMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: str | None = "stop"
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None
    routed_experts: JSONObject | None = None
    weight_versions: list[JSONObject] | None = None


class ChatCompletionResponse(BaseModel):
    """The response of `POST /v1/chat/completions`; every key is present, null or not."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: Usage | None = None
    prompt_logprobs: list[JSONObject | None] | None = None
    prompt_token_ids: list[int] | None = None
    prompt_text: str | None = None
    kv_transfer_params: JSONObject | None = None
    ec_transfer_params: JSONObject | None = None
    metrics: JSONObject | None = None


class CompletionLogprobs(BaseModel):
    """The log probabilities of a text's tokens in OpenAI's legacy format: parallel lists, one entry for each token.

    `text_offset` counts characters from the start of the choice's text.
    """

    text_offset: list[int] = []
    token_logprobs: list[float | None] = []
    tokens: list[str] = []
    top_logprobs: list[dict[str, float] | None] = []


class CompletionChoice(BaseModel):
    """One generated text. The `n` texts of the first prompt come first, then those of the second."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None
    prompt_logprobs: list[JSONObject | None] | None = None
    prompt_token_ids: list[int] | None = None
    routed_experts: JSONObject | None = None
    weight_versions: list[JSONObject] | None = None


class CompletionResponse(BaseModel):
    """The response of `POST /v1/completions`; every key is present, null or not."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: Usage = Field(default_factory=Usage)
    kv_transfer_params: JSONObject | None = None
    ec_transfer_params: JSONObject | None = None
    metrics: JSONObject | None = None


class ModelPermission(BaseModel):
    """OpenAI's legacy permission object, which vLLM still sends."""

    id: str
    object: Literal["model_permission"] = "model_permission"
    created: int
    allow_create_engine: bool = False
    allow_sampling: bool = True
    allow_logprobs: bool = True
    allow_search_indices: bool = False
    allow_view: bool = True
    allow_fine_tuning: bool = False
    organization: str = "*"
    group: str | None = None
    is_blocking: bool = False


class ModelInfo(BaseModel):
    """vLLM's model card. `max_model_len` (prompt plus output, in tokens) is null if the model is not in our table."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "vllm"
    root: str
    parent: str | None = None
    max_model_len: int | None = None
    permission: list[ModelPermission] = []


class ModelsResponse(BaseModel):
    """The response of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]
