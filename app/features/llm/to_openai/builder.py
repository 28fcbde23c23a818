"""OpenAI's request body in the making."""

from dataclasses import dataclass, field
from typing import Literal

from app.core.errors.errors import RequestError
from app.core.tokenization import encoding
from app.features.llm.from_openai.plan import ResponsePlan
from app.features.llm.from_openai.tokens import TokenOptions
from app.features.llm.model_families import Effort, ModelFamily
from app.features.llm.schema import ChatCompletionRequest, JSONObject
from app.features.llm.to_openai.structured_outputs.response_format import Constraint

UnsupportedParams = Literal["drop", "reject", "silent"]
"""What to do about a field without an equivalent whose loss only shifts the answer's style."""


@dataclass(slots=True)
class RequestBuilder:
    """One request on its way to OpenAI: what is known of it, what will be sent, what will be told."""

    request: ChatCompletionRequest
    upstream_model: str
    family: ModelFamily
    effort: Effort | None
    """The `reasoning_effort` that is sent."""
    constraint: Constraint | None
    unsupported_params: UnsupportedParams = "drop"

    body: JSONObject = field(default_factory=dict)
    messages: list[JSONObject] = field(default_factory=list)
    """The client's conversation, as OpenAI takes it."""
    plan: ResponsePlan = field(default_factory=ResponsePlan)
    ignored: dict[str, None] = field(default_factory=dict)
    adjusted: dict[str, object] = field(default_factory=dict)
    unknown_keys: int = 0
    reserve_tokens: int = 0
    """What is added to the output's limit for reasoning."""

    @property
    def accepts_sampling(self) -> bool:
        """Whether the model takes `temperature` and its like with the effort that is sent."""
        return self.family.accepts_sampling(self.effort)

    @property
    def wrapped(self) -> bool:
        """Whether the answer travels inside an object that the client is not to see."""
        return self.constraint is not None and self.constraint.envelope is not None

    @property
    def shows_tokens(self) -> bool:
        """Whether OpenAI can say which tokens the client's text is made of."""
        return self.accepts_sampling and not self.wrapped

    def tokens(self, name: str) -> TokenOptions:
        """What is to be done about the answer's tokens, for the field of this name.

        Raises:
            RequestError: the model's vocabulary is not known.
        """
        if self.family.encoding is None:
            raise RequestError(f"`{name}` is not available: this model's tokenizer is not known.", param=name)
        if self.plan.tokens is None:
            self.plan.tokens = TokenOptions(encoding(self.family.encoding))
        return self.plan.tokens

    def ask_for_tokens(self, tokens: TokenOptions) -> None:
        """Have OpenAI send the answer's tokens, as log probabilities that only who asked for them will see."""
        tokens.hides_logprobs = not self.request.logprobs
        self.body["logprobs"] = True

    def drop(self, name: str) -> None:
        """Leave a field out, and tell, as the settings say.

        Raises:
            RequestError: the settings say to refuse.
        """
        if self.unsupported_params == "reject":
            raise RequestError(f"`{name}` has no effect with this upstream (UNSUPPORTED_PARAMS=reject).", param=name)
        if self.unsupported_params == "drop":
            self.ignored[name] = None

    def ignored_params(self) -> list[str]:
        """Names of the fields without effect; keys that vLLM does not know either are only counted."""
        shown = self.unknown_keys and self.unsupported_params != "silent"
        unknown = [f"{self.unknown_keys} unknown"] if shown else []
        return [*self.ignored, *unknown]
