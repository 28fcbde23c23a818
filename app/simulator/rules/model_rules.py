"""Model-specific rules: what a model rejects although another accepts it."""

from collections.abc import Callable, Sequence

from app.simulator.errors import OpenAIError, bad_request
from app.simulator.request import ChatRequest
from app.simulator.rules.rule_types import listed

# Reasoning models accept these only with effort "none".
SAMPLING = ("top_p", "logprobs", "top_logprobs")
LIMITS = ("max_completion_tokens", "max_tokens")
CLASSIC_VERBOSITY = "medium"


def check_model(request: ChatRequest) -> None:
    """Check that the model of ``request`` supports everything in it.

    Raises:
        OpenAIError: 400 for the first unsupported value.
    """
    for check in CHECKS:
        check(request)


def _incompatible(request: ChatRequest) -> None:
    names = sorted(name for name in request.model.family.incompatible if request.body.get(name) is not None)
    if names:
        noun = "argument" if len(names) == 1 else "arguments"
        raise bad_request(f"Model incompatible request {noun} supplied: {', '.join(names)}")


def _output_limit_name(request: ChatRequest) -> None:
    if request.model.family.reasons and request.body.get("max_tokens") is not None:
        raise _unsupported_parameter("max_tokens", " Use 'max_completion_tokens' instead.")


def _effort(request: ChatRequest) -> None:
    requested, efforts = request.body.get("reasoning_effort"), request.model.family.efforts
    if requested is None:
        return
    if not efforts:
        raise bad_request("Unrecognized request argument supplied: reasoning_effort")
    if requested not in efforts:
        raise _unsupported_value("reasoning_effort", requested, f"Supported values are: {listed(efforts)}.")


def _schema(request: ChatRequest) -> None:
    requested = request.body.get("response_format") or {}
    if requested.get("type") == "json_schema" and not request.model.family.schemas:
        message = (
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model. Learn more "
            "about supported models at the Structured Outputs guide: "
            "https://platform.openai.com/docs/guides/structured-outputs"
        )
        raise bad_request(message, param="response_format")


def _verbosity(request: ChatRequest) -> None:
    requested = request.body.get("verbosity") or CLASSIC_VERBOSITY
    if not request.model.family.reasons and requested != CLASSIC_VERBOSITY:
        raise _unsupported_value("verbosity", requested, f"Supported values are: '{CLASSIC_VERBOSITY}'.")


def _unsupported_parameters(request: ChatRequest) -> None:
    for name in sorted(request.model.family.unsupported):
        # The default value is accepted everywhere.
        if request.body.get(name) is not None and (name, request.body[name]) != ("temperature", 1):
            raise _unsupported_parameter(name)


def _sampling(request: ChatRequest) -> None:
    if not request.model.family.reasons or request.effort == "none":
        return
    temperature = request.body.get("temperature")
    if temperature not in (None, 1):
        raise _unsupported_value("temperature", temperature, "Only the default (1) value is supported.")
    for name in SAMPLING:
        if request.body.get(name) is not None:
            raise _unsupported_parameter(name)


def _function_tools(request: ChatRequest) -> None:
    has_functions = any(tool["type"] == "function" for tool in request.body.get("tools", []))
    use = request.model.family.tools
    if not has_functions or use == "always" or (use == "without reasoning" and request.effort == "none"):
        return
    way_out = " or set reasoning_effort to 'none'" if use == "without reasoning" else ""
    message = (
        f"Function tools with reasoning_effort are not supported for {request.body['model']} in /v1/chat/completions. "
        f"To use function tools, use /v1/responses{way_out}."
    )
    raise bad_request(message, param="reasoning_effort")


def _output_limit(request: ChatRequest) -> None:
    maximum = request.model.output_tokens
    for name in LIMITS:
        requested = request.body.get(name)
        if requested is not None and requested > maximum:
            message = (
                f"max_tokens is too large: {requested}. This model supports at most "
                f"{maximum} completion tokens, whereas you provided {requested}."
            )
            raise bad_request(message, param=name, code="invalid_value")


def _context(request: ChatRequest) -> None:
    maximum = request.model.context_tokens
    if request.prompt_tokens > maximum:
        message = (
            f"This model's maximum context length is {maximum} tokens. However, your messages resulted in "
            f"{request.prompt_tokens} tokens. Please reduce the length of the messages."
        )
        raise bad_request(message, param="messages", code="context_length_exceeded")


def _unsupported_parameter(name: str, hint: str = "") -> OpenAIError:
    message = f"Unsupported parameter: '{name}' is not supported with this model.{hint}"
    return bad_request(message, param=name, code="unsupported_parameter")


def _unsupported_value(name: str, value: object, supported: str) -> OpenAIError:
    message = f"Unsupported value: '{name}' does not support {_shown(value)} with this model. {supported}"
    return bad_request(message, param=name, code="unsupported_value")


def _shown(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


CHECKS: Sequence[Callable[[ChatRequest], None]] = (
    _incompatible,
    _output_limit_name,
    _effort,
    _schema,
    _verbosity,
    _unsupported_parameters,
    _sampling,
    _function_tools,
    _output_limit,
    _context,
)
