"""Whether OpenAI would take a chat request."""

from app.simulator import directives, tokens
from app.simulator.errors import model_not_found, not_json
from app.simulator.json_text import JSONObject
from app.simulator.models import BY_NAME
from app.simulator.request import ChatRequest
from app.simulator.rules.chat_fields import check_fields
from app.simulator.rules.combinations import check_combinations
from app.simulator.rules.model_rules import check_model
from app.simulator.traffic import Exchange

JSON = "application/json"


def json_body(exchange: Exchange) -> JSONObject:
    """Return the JSON object that came with a POST.

    Raises:
        OpenAIError: 400, if it is none or was not announced as JSON.
    """
    content_type = exchange.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type != JSON or not isinstance(exchange.body, dict):
        raise not_json()
    return exchange.body


def accept(exchange: Exchange) -> ChatRequest:
    """Return the chat request in ``exchange``, once it has passed every check.

    Raises:
        OpenAIError: 400 or 404, for the first thing OpenAI would refuse, or 400 for a directive that is unknown.
    """
    body = json_body(exchange)
    check_fields(body)
    if body["model"] not in BY_NAME:
        raise model_not_found(body["model"])
    check_combinations(body)
    directive = directives.read(tokens.text_of(message) for message in body["messages"])
    request = ChatRequest(body, exchange.raw, directive)
    check_model(request)
    return request
