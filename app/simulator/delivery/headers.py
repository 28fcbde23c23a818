"""The headers that OpenAI and its proxy add to every response."""

import secrets
import time

REQUESTS_LIMIT = 10_000
TOKENS_LIMIT = 200_000

# Ids as long as real ones. Hypothesis draws shorter string constants as input, which tests would take for a leak.
CONSTANT_HEADERS = {
    "openai-organization": "org-simulator0123456789ABCD",
    "openai-project": "proj_simulator0123456789ABCD",
    "openai-version": "2020-10-01",
    "x-ratelimit-limit-requests": str(REQUESTS_LIMIT),
    "x-ratelimit-limit-tokens": str(TOKENS_LIMIT),
    "x-ratelimit-remaining-requests": str(REQUESTS_LIMIT - 1),
    "x-ratelimit-remaining-tokens": str(TOKENS_LIMIT - 10),
    "x-ratelimit-reset-requests": "8.64s",
    "x-ratelimit-reset-tokens": "3ms",
    "strict-transport-security": "max-age=31536000; includeSubDomains; preload",
    "x-content-type-options": "nosniff",
    "alt-svc": 'h3=":443"; ma=86400',
    "cf-cache-status": "DYNAMIC",
    "server": "cloudflare",
}


def response_headers(*, started: float) -> dict[str, str]:
    """Return the headers of one response; ``started`` is the request's arrival by ``time.perf_counter``."""
    mark = secrets.token_hex(16)
    return {
        **CONSTANT_HEADERS,
        "x-request-id": f"req_{mark}",
        "openai-processing-ms": f"{(time.perf_counter() - started) * 1000:.0f}",
        "set-cookie": f"__cf_bm={mark}; path=/; HttpOnly",
        "cf-ray": f"{mark[:16]}-AMS",
    }
