"""Rules across the members of a chat request."""

from collections.abc import Callable, Sequence
from typing import Any

from app.simulator.errors import bad_request
from app.simulator.json_text import JSONObject
from app.simulator.rules.conversation import check_messages
from app.simulator.rules.schemas import SchemaError, check_schema
from app.simulator.tokens import text_of

# A member, the member it requires, and OpenAI's message.
COMPANIONS = (
    ("tool_choice", "tools", "'tool_choice' is only allowed when 'tools' are specified."),
    ("parallel_tool_calls", "tools", "'parallel_tool_calls' is only allowed when 'tools' are specified."),
    ("stream_options", "stream", "The 'stream_options' parameter is only allowed when 'stream' is enabled."),
    ("top_logprobs", "logprobs", "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."),
    ("metadata", "store", "The 'metadata' parameter is only allowed when 'store' is enabled."),
)
TWO_LIMITS = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
WORD_JSON = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."


def check_combinations(body: JSONObject) -> None:
    """Check the combination of members in ``body``, each of which is valid on its own.

    Raises:
        OpenAIError: 400 for the first invalid combination.
    """
    for check in CHECKS:
        check(body)


def _conversation(body: JSONObject) -> None:
    check_messages(body["messages"])


def _companions(body: JSONObject) -> None:
    for name, needed, message in COMPANIONS:
        if body.get(name) is not None and not body.get(needed):
            raise bad_request(message, param=name)


def _one_limit(body: JSONObject) -> None:
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        raise bad_request(TWO_LIMITS, param="max_tokens", code="invalid_parameter_combination")


def _chosen_tool_exists(body: JSONObject) -> None:
    choice = body.get("tool_choice")
    if not isinstance(choice, dict):
        return
    named = choice["allowed_tools"]["tools"] if choice["type"] == "allowed_tools" else [choice]
    existing = [_named(tool) for tool in body["tools"]]
    for tool in named:
        if _named(tool) not in existing:
            raise bad_request(f"Tool choice '{tool.get('type')}' not found in 'tools' parameter.", param="tool_choice")


def _named(tool: JSONObject) -> tuple[Any, Any]:
    kind = tool.get("type")
    described = tool.get(str(kind))
    return kind, described.get("name") if isinstance(described, dict) else None


def _json_is_mentioned(body: JSONObject) -> None:
    response_format = body.get("response_format", {})
    if response_format.get("type") == "json_object" and not _mentions_json(body["messages"]):
        raise bad_request(WORD_JSON, param="messages")


def _mentions_json(messages: Sequence[JSONObject]) -> bool:
    return any("json" in text_of(message).lower() for message in messages)


def _answer_schema(body: JSONObject) -> None:
    wanted = body.get("response_format", {}).get("json_schema", {})
    if "schema" not in wanted:
        return
    try:
        check_schema(wanted["schema"], strict=bool(wanted.get("strict")))
    except SchemaError as error:
        message = f"Invalid schema for response_format '{wanted['name']}': {error}"
        raise bad_request(message, param="response_format") from error


def _tool_schemas(body: JSONObject) -> None:
    for index, tool in enumerate(body.get("tools", [])):
        function = tool.get("function", {})
        if "parameters" not in function:
            continue
        try:
            check_schema(function["parameters"], strict=bool(function.get("strict")), of_function=True)
        except SchemaError as error:
            message = f"Invalid schema for function '{function['name']}': {error}"
            param = f"tools[{index}].function.parameters"
            raise bad_request(message, param=param, code="invalid_function_parameters") from error


CHECKS: Sequence[Callable[[JSONObject], None]] = (
    _conversation,
    _companions,
    _one_limit,
    _chosen_tool_exists,
    _json_is_mentioned,
    _answer_schema,
    _tool_schemas,
)
