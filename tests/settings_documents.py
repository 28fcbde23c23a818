"""Generates the documents that list the settings from `Settings`: `python -m tests.settings_documents`."""

import json
import re
import textwrap
from collections.abc import Callable, Iterable
from itertools import groupby

from app.core.config import SettingDocumentation, documented_settings
from app.core.settings.environment import VARIABLES
from tests.processes import ROOT

FIXED_IN_CONTAINER = {"host", "port"}
"""Compose publishes a port instead."""
REPLACED_BY_SIMULATOR = {"openai_api_key", "openai_api_keys", "openai_base_url", "openai_org_id", "openai_project_id"}

_INTRODUCTION = """\
<!-- made from app/core/config.py by `make format` -->
# Settings

Settings are read from the command line, the environment and the file `.env` in the working directory; the first that
has a setting wins. White space around a value is ignored. An empty variable counts as unset, except
`DEFAULT_TEMPERATURE`. For an invalid setting, the process prints one line to standard error that names it, and exits
with status 2.

Flags have the names of `vllm serve`'s and work with `python -m app`. `--no-` before the name of a switch turns it off.
`--api-key` takes several keys, separated by spaces, and replaces `VLLM_API_KEY`.
"""
_OTHER_VARIABLES = """\
## Other environment variables

These are read from the environment only, not from `.env`.

| Variable | Meaning |
|---|---|
"""


def settings_page(_before: str) -> str:
    """Return docs/settings.md."""
    sections = "\n".join(_section(title, settings) for title, settings in _sections())
    variables = "".join(f"| `{name}` | {meaning} |\n" for name, meaning in VARIABLES.items())
    return f"{_INTRODUCTION}\n{sections}\n{_OTHER_VARIABLES}{variables}"


def _sections() -> Iterable[tuple[str, list[SettingDocumentation]]]:
    for title, settings in groupby(documented_settings(), lambda setting: setting.section):
        yield title, list(settings)


def _section(title: str, settings: Iterable[SettingDocumentation]) -> str:
    rows = "".join(_row(setting) for setting in settings)
    return f"## {title}\n\n| Setting | Default | Flag | Meaning |\n|---|---|---|---|\n{rows}"


def _row(setting: SettingDocumentation) -> str:
    codes = [f"`{text}`" if text else "" for text in (setting.name, default_text(setting), setting.flag)]
    return f"| {' | '.join(codes)} | {setting.description} |\n"


def default_text(setting: SettingDocumentation) -> str:
    """Return the default as an environment variable's text; "" means unset."""
    default = setting.default
    if default is None or (default == () and setting.metavar != "JSON"):
        return ""
    if isinstance(default, float):
        return f"{default:g}"
    return default if isinstance(default, str) else json.dumps(default)


def example_file(_before: str) -> str:
    """Return .env.example."""
    lines = [
        "# Every setting of llm-server, with its default. Copy this file to .env and change what you need.",
        "# The environment wins over the file. Made from app/core/config.py by `make format`.",
    ]
    for title, settings in _sections():
        lines += ["", f"# --- {title} ---"]
        for setting in settings:
            lines += _comment(setting.description)
            comment = "" if setting.field == "openai_api_key" else "#"
            lines.append(f"{comment}{setting.name}={default_text(setting)}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    # Do not wrap text between backticks.
    joined = re.sub("`[^`]*`", lambda code: code[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(joined, 120, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines]


def compose_file(before: str) -> str:
    """Return docker-compose.yml with the current settings in the lists of both services."""
    handed_on = [setting for setting in documented_settings() if setting.field not in FIXED_IN_CONTAINER]
    # SSL_CERT_FILE and the like name files on the host.
    proxies = [name for name in VARIABLES if name.endswith("_PROXY")]
    text = _with_list(before, "settings", [*(setting.name for setting in handed_on), *proxies])
    simulated = [
        setting.name
        for setting in handed_on
        if setting.field not in REPLACED_BY_SIMULATOR and not setting.field.startswith("ssl_")
    ]
    return _with_list(text, "settings beside the simulator", simulated)


def _with_list(text: str, what: str, names: Iterable[str]) -> str:
    begin, end = f"      # {what}: made by `make format`\n", f"      # end of {what}\n"
    made = "".join(f"      - {name}\n" for name in names)
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: begin + made + end, text, flags=re.DOTALL)


DOCUMENTS: dict[str, Callable[[str], str]] = {
    "docs/settings.md": settings_page,
    ".env.example": example_file,
    "docker-compose.yml": compose_file,
}
"""The generator of each file; its argument is the current text."""


def write() -> None:
    """Write all documents."""
    for name, made in DOCUMENTS.items():
        path = ROOT / name
        path.write_text(made(path.read_text() if path.exists() else ""))


if __name__ == "__main__":
    write()
