"""The error response for each failure."""

import inspect
from typing import Any

import httpx2
import openai
import pytest

from app.core.errors import upstream_errors
from app.core.errors.upstream_errors import error_response_for
from app.core.errors.validation_errors import VLLM_ERROR, validation_error_response

REQUEST = httpx2.Request("POST", "http://upstream/v1/chat/completions")


def status_error(status: int, **error: Any) -> openai.APIStatusError:
    response = httpx2.Response(status, json={"error": error}, request=REQUEST)
    sdk = openai.AsyncOpenAI(api_key="sk-x")
    return sdk._make_status_error_from_response(response)


def exported_exceptions() -> list[type[BaseException]]:
    exported = [getattr(openai, name) for name in openai.__all__]
    return [item for item in exported if inspect.isclass(item) and issubclass(item, BaseException)]


@pytest.mark.parametrize("exception_class", exported_exceptions())
def test_every_exception_class_of_the_sdk_has_a_row(exception_class: type[BaseException]) -> None:
    assert exception_class in upstream_errors._UPSTREAM


CASES = [
    pytest.param(400, {"message": "Bad."}, 400, "BadRequestError", "Bad.", id="400"),
    pytest.param(401, {"message": "Incorrect API key provided: sk-abc"}, 502, "Bad Gateway", "credentials", id="401"),
    pytest.param(403, {"message": "Country not supported"}, 502, "Bad Gateway", "credentials", id="403"),
    pytest.param(404, {"message": "No such model `x`.", "code": "model_not_found"}, 400, "BadRequestError", "`x`",
                 id="unknown model"),
    pytest.param(404, {"message": "Invalid URL"}, 502, "Bad Gateway", "OPENAI_BASE_URL", id="404"),
    pytest.param(409, {"message": "Conflict."}, 503, "ServiceUnavailableError", "conflict", id="409"),
    pytest.param(413, {"message": "Too large."}, 413, "Request Entity Too Large", "Too large.", id="413"),
    pytest.param(418, {"message": "Teapot."}, 502, "Bad Gateway", "Teapot.", id="418"),
    pytest.param(422, {"message": "Hm."}, 422, "UnprocessableEntityError", "Hm.", id="422"),
    pytest.param(429, {"message": "Slow down."}, 429, "Too Many Requests", "Slow down.", id="429"),
    pytest.param(500, {"message": "Sorry."}, 500, "InternalServerError", "Sorry.", id="500"),
    pytest.param(502, {}, 502, "Bad Gateway", "status 502", id="502"),
    pytest.param(503, {"message": "Busy."}, 503, "ServiceUnavailableError", "Busy.", id="503"),
    pytest.param(504, {}, 504, "Gateway Timeout", "status 504", id="504"),
    pytest.param(520, {}, 502, "Bad Gateway", "status 520", id="520"),
]  # fmt: skip


@pytest.mark.parametrize(("upstream", "error", "status", "type_", "words"), CASES)
def test_an_upstream_status_maps_to_vllms_error(
    upstream: int, error: dict[str, str], status: int, type_: str, words: str
) -> None:
    body = error_response_for(status_error(upstream, **error)).body()["error"]

    assert (body["code"], body["type"]) == (status, type_)
    assert words in body["message"]


def test_openais_param_is_kept_and_its_code_is_a_header() -> None:
    response = error_response_for(
        status_error(400, message="Too long.", param="messages", code="context_length_exceeded")
    )

    assert response.param == "messages"
    assert response.headers == {"x-openai-error-code": "context_length_exceeded"}


@pytest.mark.parametrize("code", ["a b", "x" * 65, "é", "a\r\nset-cookie: x"])
def test_a_code_that_is_not_a_word_is_not_a_header(code: str) -> None:
    assert error_response_for(status_error(400, message="No.", code=code)).headers == {}


OAUTH_ERROR = openai.OAuthError(response=httpx2.Response(401, request=REQUEST), body=None)


@pytest.mark.parametrize("exc", [status_error(401), status_error(403), OAUTH_ERROR])
def test_rejected_credentials_tell_the_client_not_to_retry(exc: openai.APIStatusError) -> None:
    response = error_response_for(exc)

    assert (response.status, response.headers) == (502, {"x-should-retry": "false"})


@pytest.mark.parametrize(
    ("error", "retry"),
    [({"type": "insufficient_quota"}, False), ({"code": "credit_balance_exhausted"}, False),
     ({"code": "organization_spend_limit_exceeded"}, False), ({"code": "project_spend_limit_exceeded"}, False),
     ({"code": "organization_usage_limit_exceeded"}, False), ({"code": "rate_limit_exceeded"}, True)],
)  # fmt: skip
def test_an_exhausted_quota_differs_from_a_rate_limit(error: dict[str, str], retry: bool) -> None:
    headers = error_response_for(status_error(429, message="No.", **error)).headers

    assert (headers.get("x-should-retry") != "false") == retry


def test_html_is_not_passed_on() -> None:
    response = httpx2.Response(502, content=b"<html>cloudflare</html>", request=REQUEST)
    exc = openai.AsyncOpenAI(api_key="sk-x")._make_status_error_from_response(response)

    assert "html" not in error_response_for(exc).message


@pytest.mark.parametrize(
    ("exc", "status", "type_"),
    [
        pytest.param(openai.APITimeoutError(REQUEST), 504, "Gateway Timeout", id="timeout"),
        pytest.param(openai.APIConnectionError(request=REQUEST), 502, "Bad Gateway", id="connection"),
        pytest.param(openai.APIResponseValidationError(httpx2.Response(200, request=REQUEST), None), 502,
                     "Bad Gateway", id="not understood"),
        pytest.param(openai.APIError("x", REQUEST, body={"message": "Sorry."}), 500, "InternalServerError",
                     id="error event"),
        pytest.param(openai.OpenAIError("x"), 502, "Bad Gateway", id="anything else"),
    ],
)  # fmt: skip
def test_each_failure_without_a_status_has_one_here(exc: openai.OpenAIError, status: int, type_: str) -> None:
    error = error_response_for(exc).body()["error"]

    assert (error["code"], error["type"]) == (status, type_)


def test_a_subclass_uses_the_row_of_its_nearest_ancestor() -> None:
    class Newer(openai.RateLimitError):
        pass

    assert error_response_for(Newer("x", response=httpx2.Response(429, request=REQUEST), body=None)).status == 429


def error(type_: str = "missing", loc: tuple[int | str, ...] = ("body", "messages"), **more: Any) -> dict[str, Any]:
    return {"type": type_, "loc": loc, "msg": "Field required", "input": {"a": 1, "b": 2}, **more}


def test_a_validation_error_reads_as_in_vllm() -> None:
    response = validation_error_response([error()]).body()["error"]

    assert response == {
        "message": "1 validation error:\n  {'type': 'missing', 'loc': 'body.messages', 'msg': 'Field required', "
        "'input': '<dict of 2 items>'}",
        "type": "Bad Request",
        "param": "body.messages",
        "code": 400,
    }


def test_many_validation_errors_are_counted_and_cut() -> None:
    lines = validation_error_response([error() for _ in range(96)]).message.split("\n")

    assert lines[0] == "96 validation errors:"
    assert lines[-1] == "  ...and 86 more errors"
    assert len(lines) == 12


def test_a_long_input_is_cut() -> None:
    message = validation_error_response([error(input="x" * 100_000)]).message

    assert "xxx...[truncated]" in message
    assert len(message) < 1100


def test_a_line_is_cut_at_a_thousand_characters() -> None:
    _, line = validation_error_response([error(msg="x" * 5000)]).message.split("\n")

    assert len(line) == 1000


def test_the_violated_limit_is_shown() -> None:
    line = validation_error_response([error("greater_than_equal", ctx={"ge": 1})]).message

    assert "'ctx': {'ge': 1}" in line


@pytest.mark.parametrize(
    ("loc", "param"),
    [
        (("body", "stop", "list[constrained-str]", 2), "body.stop.2"),
        (("body", "stop", "str"), "body.stop"),
        (("body", "tools", 0, "type"), "body.tools.0.type"),
        (("body", 9), "body.9"),
    ],
)
def test_union_branches_are_not_part_of_the_param(loc: tuple[int | str, ...], param: str) -> None:
    assert validation_error_response([error(loc=loc)]).param == param


def test_vllms_own_checks_report_the_bare_field() -> None:
    own = error(VLLM_ERROR, msg="n must be at least 1, got 0.", ctx={"param": "n"})
    response = validation_error_response([own]).body()["error"]

    assert (response["type"], response["param"], response["message"]) == ("BadRequestError", "n", own["msg"])


def test_type_errors_come_before_value_errors() -> None:
    own = error(VLLM_ERROR, msg="n must be at least 1, got 0.", ctx={"param": "n"})

    assert validation_error_response([own, error()]).body()["error"]["type"] == "Bad Request"
