"""What is wrong between this server and OpenAI, found out before a client does. It costs no tokens."""

import asyncio
from collections.abc import Mapping
from datetime import date

import openai

from app.core.errors.upstream_errors import UpstreamError
from app.core.logs.records import exception_for_log, for_log
from app.features.llm.catalogue import Catalogue
from app.features.llm.client import OpenAIClient

CHECK_LIMIT_S = 10.0


async def startup_problem(
    client: OpenAIClient, catalogue: Catalogue, base_url: str, *, limit_s: float = CHECK_LIMIT_S
) -> str | None:
    """What the operator should know, in one line without secrets; None: nothing. It takes `limit_s` at most."""
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
    # The kind tells a proxy's failure from OpenAI's, and some have no text.
    return exception_for_log(exc.__cause__)


async def retire_ended_models(client: OpenAIClient, catalogue: Catalogue, listed: Mapping[str, date | None]) -> None:
    """Retire the served models that have ended, by the dates that OpenAI lists or because it does not find them now.

    Raises:
        openai.APIError: OpenAI could not be asked.
    """
    catalogue.learn_ends(listed)
    for name in catalogue.names or ():
        model = catalogue.upstream_model(name)
        if model not in listed and catalogue.has_passed(name) and not await client.has_model(model):
            catalogue.retire(name)


def _unknown_models(catalogue: Catalogue, available: Mapping[str, object]) -> str | None:
    if refusals := catalogue.refusals():
        return f"{' '.join(refusals)} Requests for it are refused: set DEFAULT_MODEL or SERVED_MODELS"
    names = [name for name in catalogue.names or () if not catalogue.is_elsewhere(name)]
    unknown = [name for name in names if catalogue.upstream_model(name) not in available]
    if not unknown:
        return None
    served = ", ".join(f"{catalogue.upstream_model(name)!r} (served as {name!r})" for name in unknown)
    return f"OpenAI has no model {served} for this key: check DEFAULT_MODEL and SERVED_MODELS"
