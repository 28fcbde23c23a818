"""The state of one request while OpenAI's body is built from it."""

from dataclasses import dataclass, field
from typing import Literal

from app.core.errors.request_errors import RequestError
from app.core.tokenization import encoding
from app.features.llm.from_openai.plan import ResponsePlan
from app.features.llm.from_openai.tokens import TokenOptions
from app.features.llm.model_families import Effort, ModelFamily
from app.features.llm.schema import ChatCompletionRequest, JSONObject
from app.features.llm.to_openai.structured_outputs.response_format import Constraint

UnsupportedParams = Literal["drop", "reject", "silent"]
"""How to handle a field that OpenAI has no equivalent for and whose loss only affects the style of the response."""


@dataclass(slots=True)
class RequestBuilder:
    """One request while its fields are mapped: its model, the body so far, and what to report to the client."""

    request: ChatCompletionRequest
    upstream_model: str
    family: ModelFamily
    effort: Effort | None
    """The `reasoning_effort` to send."""
    constraint: Constraint | None
    unsupported_params: UnsupportedParams = "drop"

    body: JSONObject = field(default_factory=dict)
    messages: list[JSONObject] = field(default_factory=list)
    """The client's conversation in OpenAI's format."""
    plan: ResponsePlan = field(default_factory=ResponsePlan)
    ignored: dict[str, None] = field(default_factory=dict)
    adjusted: dict[str, object] = field(default_factory=dict)
    unknown_keys: int = 0
    reserve_tokens: int = 0
    """Tokens that are added to the output limit for reasoning."""

    @property
    def accepts_sampling(self) -> bool:
        """Whether the model accepts sampling parameters, such as `temperature`, at this effort."""
        return self.family.accepts_sampling(self.effort)

    @property
    def wrapped(self) -> bool:
        """Whether the response text arrives in an envelope that is removed for the client."""
        return self.constraint is not None and self.constraint.envelope is not None

    @property
    def shows_tokens(self) -> bool:
        """Whether OpenAI's log probabilities show the tokens of the client's text."""
        return self.accepts_sampling and not self.wrapped

    def tokens(self, name: str) -> TokenOptions:
        """Return the plan's token options, created on first use, for the field called `name`.

        Raises:
            RequestError: the model's tokenizer is not known.
        """
        if self.family.encoding is None:
            raise RequestError(f"`{name}` is not available: this model's tokenizer is not known.", param=name)
        if self.plan.tokens is None:
            self.plan.tokens = TokenOptions(encoding(self.family.encoding))
        return self.plan.tokens

    def request_logprobs(self, tokens: TokenOptions) -> None:
        """Request log probabilities, which show the tokens; the client sees them only if it asked for them."""
        tokens.hides_logprobs = not self.request.logprobs
        self.body["logprobs"] = True

    def drop(self, name: str) -> None:
        """Leave a field out and report it, unless UNSUPPORTED_PARAMS is `silent`.

        Raises:
            RequestError: UNSUPPORTED_PARAMS is `reject`.
        """
        if self.unsupported_params == "reject":
            raise RequestError(f"`{name}` has no effect with this upstream (UNSUPPORTED_PARAMS=reject).", param=name)
        if self.unsupported_params == "drop":
            self.ignored[name] = None

    def ignored_params(self) -> list[str]:
        """Return the names of the dropped fields. Unknown keys are only counted."""
        shown = self.unknown_keys and self.unsupported_params != "silent"
        unknown = [f"{self.unknown_keys} unknown"] if shown else []
        return [*self.ignored, *unknown]
