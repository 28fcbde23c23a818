"""The first output of `make run`: where responses come from, and a command to try."""

import sys

from app.core.config import Settings, SettingsError, load_settings
from app.core.server.process import print_error

HAS_KEY, WRONG_SETTINGS, NO_KEY = 0, 2, 3
"""Exit statuses; the Makefile depends on them."""

_OPENAI = "Responses come from OpenAI, and are billed to OPENAI_API_KEY."
_SIMULATOR = "No OPENAI_API_KEY is set: responses come from the built-in simulator, not from OpenAI."


def main() -> int:
    """Print the announcement. Returns `HAS_KEY`, `NO_KEY` or `WRONG_SETTINGS`."""
    try:
        settings = load_settings()
    except SettingsError as exc:
        print_error(str(exc))
        return WRONG_SETTINGS
    has_key = bool(settings.api_keys)
    lines = [
        _OPENAI if has_key else _SIMULATOR,
        'Once it says "Application startup complete", try:',
        *_command(settings),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return HAS_KEY if has_key else NO_KEY


def _command(settings: Settings) -> list[str]:
    scheme = "https" if settings.ssl_certfile else "http"
    key = ["  -H 'Authorization: Bearer KEY' \\"] if settings.vllm_api_key else []
    return [
        f"curl {scheme}://localhost:{settings.port}/v1/chat/completions -H 'Content-Type: application/json' \\",
        *key,
        """  -d '{"messages": [{"role": "user", "content": "안녕하세요"}]}'""",
    ]


if __name__ == "__main__":
    sys.exit(main())
