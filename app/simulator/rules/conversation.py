"""Rules across the messages of a conversation."""

from collections.abc import Sequence

from app.simulator.errors import OpenAIError, bad_request
from app.simulator.json_text import JSONObject

NOT_A_RESPONSE = (
    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
)
NOT_ANSWERED = (
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
    "The following tool_call_ids did not have response messages: "
)
SAYS_SOMETHING = ("content", "tool_calls", "function_call", "refusal", "audio")


def check_messages(messages: Sequence[JSONObject]) -> None:
    """Check that tool messages directly follow the calls they belong to, one for each call.

    Raises:
        OpenAIError: 400 for the first message out of order, or without content.
    """
    waiting: set[str] = set()
    answering = False
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            _check_response(message, waiting, index, answering=answering)
            waiting.discard(message["tool_call_id"])
            continue
        if waiting:
            raise _unanswered(waiting, f"messages.[{index}].role")
        _check_speech(message, index)
        waiting = {call["id"] for call in message.get("tool_calls", [])}
        answering = bool(waiting)
    if waiting:
        raise _unanswered(waiting, "messages")


def _check_response(message: JSONObject, waiting: set[str], index: int, *, answering: bool) -> None:
    if not answering:
        raise bad_request(NOT_A_RESPONSE, param=f"messages.[{index}].role")
    call_id = message["tool_call_id"]
    if call_id not in waiting:
        problem = f"Invalid parameter: 'tool_call_id' of '{call_id}' not found in 'tool_calls' of previous message."
        raise bad_request(problem, param=f"messages.[{index}].tool_call_id")


def _check_speech(message: JSONObject, index: int) -> None:
    if message["role"] == "assistant" and all(message.get(key) is None for key in SAYS_SOMETHING):
        problem = "Invalid value for 'content': expected a string, got null."
        raise bad_request(problem, param=f"messages.[{index}].content")


def _unanswered(waiting: set[str], param: str) -> OpenAIError:
    return bad_request(NOT_ANSWERED + ", ".join(sorted(waiting)), param=param)
