"""Whether OpenAI would take a chat request."""

from app.simulator import directives, tokens
from app.simulator.errors import not_json
from app.simulator.json_text import JSONObject
from app.simulator.models import Catalogue
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


def accept(exchange: Exchange, catalogue: Catalogue) -> ChatRequest:
    """Return the chat request in ``exchange`` to a model of ``catalogue``, once it has passed every check.

    Raises:
        OpenAIError: 400 or 404, for the first thing OpenAI would refuse, or 400 for a directive that is unknown.
    """
    body = json_body(exchange)
    check_fields(body)
    model = catalogue.find(body["model"])
    check_combinations(body)
    directive = directives.read(tokens.text_of(message) for message in body["messages"])
    request = ChatRequest(body, exchange.raw, directive, model)
    check_model(request)
    return request
