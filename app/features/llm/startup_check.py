"""Check at startup that OpenAI accepts the key and has the served models. It costs no tokens."""

import asyncio
from collections.abc import Mapping
from datetime import date

import openai

from app.core.errors.upstream_errors import UpstreamError
from app.core.logs.records import exception_for_log, for_log
from app.features.llm.catalogue import Catalogue
from app.features.llm.client import OpenAIClient

CHECK_TIMEOUT_S = 10.0


async def startup_problem(
    client: OpenAIClient, catalogue: Catalogue, base_url: str, *, limit_s: float = CHECK_TIMEOUT_S
) -> str | None:
    """Return a problem for the operator, in one line without secrets; None: no problem. It takes `limit_s` at most."""
    try:
        async with asyncio.timeout(limit_s):
            available = await client.list_models()
            await retire_ended_models(client, catalogue, available)
    except (openai.AuthenticationError, openai.PermissionDeniedError):
        return "OPENAI_API_KEY is refused by OpenAI: no request can be answered with it"
    except (TimeoutError, openai.APIConnectionError) as exc:
        return for_log(f"OpenAI cannot be reached at OPENAI_BASE_URL {base_url}: {_reason(exc, limit_s)}")
    except UpstreamError as exc:
        return for_log(f"OpenAI does not list its models at OPENAI_BASE_URL {base_url}: {exc}")
    return _unknown_models(catalogue, available)


def _reason(exc: TimeoutError | openai.APIConnectionError, limit_s: float) -> str:
    if isinstance(exc, TimeoutError):
        return f"no response within {limit_s:g} s"
    if isinstance(exc, openai.APITimeoutError) or exc.__cause__ is None:
        return exc.message
    # The class distinguishes a proxy's failure from OpenAI's, and some exceptions have no text.
    return exception_for_log(exc.__cause__)


async def retire_ended_models(client: OpenAIClient, catalogue: Catalogue, listed: Mapping[str, date | None]) -> None:
    """Retire served models that OpenAI has shut down: past a date that it lists, or past the table's and not found.

    Raises:
        openai.APIError: a call failed.
    """
    catalogue.learn_shutdown_dates(listed)
    for name in catalogue.names or ():
        model = catalogue.upstream_model(name)
        if model not in listed and catalogue.is_past_shutdown(name) and not await client.has_model(model):
            catalogue.retire(name)


def _unknown_models(catalogue: Catalogue, available: Mapping[str, object]) -> str | None:
    if reasons := catalogue.rejections():
        return f"{' '.join(reasons)} Requests for it are refused: set DEFAULT_MODEL or SERVED_MODELS"
    names = [name for name in catalogue.names or () if not catalogue.may_be_unlisted(name)]
    unknown = [name for name in names if catalogue.upstream_model(name) not in available]
    if not unknown:
        return None
    served = ", ".join(f"{catalogue.upstream_model(name)!r} (served as {name!r})" for name in unknown)
    return f"OpenAI has no model {served} for this key: check DEFAULT_MODEL and SERVED_MODELS"
