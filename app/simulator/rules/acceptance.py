"""Validates chat requests as OpenAI does."""

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
    """Return the JSON object in the body of a POST.

    Raises:
        OpenAIError: 400 if the body is not a JSON object or its content type is not JSON.
    """
    content_type = exchange.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type != JSON or not isinstance(exchange.body, dict):
        raise not_json()
    return exchange.body


def accept(exchange: Exchange, catalogue: Catalogue) -> ChatRequest:
    """Return the valid chat request in ``exchange`` to a model of ``catalogue``.

    Raises:
        OpenAIError: 400 or 404 for the first problem that OpenAI would report, or 400 for an unknown directive.
    """
    body = json_body(exchange)
    check_fields(body)
    model = catalogue.find(body["model"])
    check_combinations(body)
    directive = directives.parse(tokens.text_of(message) for message in body["messages"])
    request = ChatRequest(body, exchange.raw, directive, model)
    check_model(request)
    return request
