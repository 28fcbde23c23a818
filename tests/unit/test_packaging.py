"""What `pip install .` needs of pyproject.toml."""

import re
import tomllib
from importlib import import_module

from app.main import VERSION
from tests.processes import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_console_script_exists() -> None:
    module, _, function = PROJECT["scripts"]["llm-server"].partition(":")

    assert callable(getattr(import_module(module), function))


def test_the_openapi_schema_has_the_version() -> None:
    assert PROJECT["version"] == VERSION


def test_the_changelog_describes_the_version() -> None:
    released = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert PROJECT["version"] == released[0]
