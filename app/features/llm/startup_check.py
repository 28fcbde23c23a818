"""What is wrong between this server and OpenAI, found out before a client does. It costs no tokens."""

import asyncio

import openai

from app.core.errors.upstream_errors import UpstreamError
from app.core.log_records import exception_for_log, for_log
from app.features.llm.catalogue import Catalogue
from app.features.llm.client import OpenAIClient

CHECK_LIMIT_S = 10.0


async def startup_problem(
    client: OpenAIClient, catalogue: Catalogue, base_url: str, *, limit_s: float = CHECK_LIMIT_S
) -> str | None:
    """What the operator should know, in one line without secrets; None: nothing. It takes `limit_s` at most."""
    try:
        async with asyncio.timeout(limit_s):
            available = frozenset(await client.list_models())
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


def _unknown_models(catalogue: Catalogue, available: frozenset[str]) -> str | None:
    unknown = [name for name in catalogue.names or () if catalogue.upstream_model(name) not in available]
    if not unknown:
        return None
    served = ", ".join(f"{catalogue.upstream_model(name)!r} (served as {name!r})" for name in unknown)
    return f"OpenAI has no model {served} for this key: check DEFAULT_MODEL and SERVED_MODELS"
