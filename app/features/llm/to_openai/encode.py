"""A chat request encoded as the body of a call to OpenAI."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.core.errors.request_errors import RequestError
from app.core.json_encoding import encode_body
from app.core.request_record import current_record
from app.features.llm.catalogue import Catalogue
from app.features.llm.from_openai.plan import ResponsePlan
from app.features.llm.model_families import ModelFamily
from app.features.llm.schema import ChatCompletionRequest, JSONObject
from app.features.llm.to_openai import token_mappers
from app.features.llm.to_openai.builder import RequestBuilder, UnsupportedParams
from app.features.llm.to_openai.limit_checks import check_limits
from app.features.llm.to_openai.parameters import PARAMETERS
from app.features.llm.to_openai.reasoning_effort import LOWEST_EFFORT, EffortPolicy, effort_for, reserve_for
from app.features.llm.to_openai.structured_outputs.response_format import constraint_of, guided_keys

_ALWAYS = {name for name, rule in PARAMETERS.items() if rule.always}
_NO_POLICY = EffortPolicy()
_ORDER = {name: index for index, name in enumerate(PARAMETERS)}

# OpenAI's fields that vLLM does not have, each with a check whether OpenAI accepts the value.
_OPENAI_FIELDS: dict[str, Callable[[Any], bool]] = {
    "store": lambda value: isinstance(value, bool),
    "service_tier": lambda value: value in ("auto", "default", "flex", "scale", "priority", "fast"),
    "safety_identifier": lambda value: isinstance(value, str) and len(value) <= 64,
    "prompt_cache_key": lambda value: isinstance(value, str),
}


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """A chat request encoded for OpenAI, and how to translate its response."""

    model: str
    """The OpenAI model."""
    body: bytes
    plan: ResponsePlan
    family: ModelFamily
    messages: list[JSONObject]
    """The client's conversation in OpenAI's form."""


def encode_request(
    request: ChatCompletionRequest,
    catalogue: Catalogue,
    unsupported_params: UnsupportedParams = "drop",
    *,
    usage_details: bool = False,
    effort_policy: EffortPolicy = _NO_POLICY,
) -> UpstreamCall:
    """Encode a request for its OpenAI model, and record ignored and adjusted parameters.

    Raises:
        RequestError: the request exceeds the model's limits, or a field has no equivalent at OpenAI and ignoring it
            would give a misleading response.
    """
    builder = _start_builder(request, catalogue, unsupported_params, effort_policy)
    builder.plan.usage_details = usage_details
    for name in sorted((request.model_fields_set | _ALWAYS) & PARAMETERS.keys(), key=_ORDER.__getitem__):
        rule, value = PARAMETERS[name], getattr(request, name)
        if value is not None and value not in rule.neutral:
            rule.apply(builder, name, value)
    token_mappers.count_at_stop(builder)
    if request.model_extra:
        _add_extra_keys(builder, request.model_extra)
    _record_changes(builder)
    return UpstreamCall(
        builder.upstream_model, encode_body(builder.body), builder.plan, builder.family, builder.messages
    )


def _record_changes(builder: RequestBuilder) -> None:
    record, ignored = current_record(), builder.ignored_params()
    # A batch makes several calls per request, so merge.
    if ignored:
        record.ignored_params = list(dict.fromkeys([*record.ignored_params, *ignored]))
    if builder.adjusted:
        record.adjusted_params = {**record.adjusted_params, **builder.adjusted}


def _start_builder(
    request: ChatCompletionRequest,
    catalogue: Catalogue,
    unsupported_params: UnsupportedParams,
    effort_policy: EffortPolicy,
) -> RequestBuilder:
    name = request.model or ""
    family = catalogue.family(name)
    check_limits(request, family)
    replaced = name in catalogue.successors
    effort = effort_for(request, family, LOWEST_EFFORT if replaced else effort_policy)
    constraint = constraint_of(request)
    builder = RequestBuilder(request, catalogue.upstream_model(name), family, effort, constraint, unsupported_params)
    if replaced:
        builder.adjusted["model"] = builder.upstream_model
    if effort_policy.reserve_tokens:
        builder.reserve_tokens = reserve_for(effort, family, effort_policy)
    if effort is not None:
        builder.body["reasoning_effort"] = effort
        if request.reasoning_effort is None and request.tools and effort != family.default_effort:
            builder.adjusted["reasoning_effort"] = effort
    if constraint is not None:
        field = "response_format" if request.response_format else "structured_outputs"
        if not family.json_schema and constraint.response_format["type"] == "json_schema":
            raise RequestError("This model follows no JSON schema: choose another model.", param=field)
        builder.body["response_format"] = constraint.response_format
        builder.plan.envelope = constraint.envelope
        if constraint.not_enforced:
            builder.drop(constraint.not_enforced)
    return builder


def _add_extra_keys(builder: RequestBuilder, extra: Mapping[str, Any]) -> None:
    guided = guided_keys(builder.request)
    for name, value in extra.items():
        accepts = _OPENAI_FIELDS.get(name)
        if accepts and accepts(value):
            builder.body[name] = value
        elif name not in guided and value is not None:
            builder.unknown_keys += 1
