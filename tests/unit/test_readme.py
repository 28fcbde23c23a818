"""README.md, its Korean counterpart and the documents: length, commands, links and settings."""

import re
from pathlib import Path

import pytest

from app.core.config import Settings
from app.core.settings.environment import VARIABLES
from tests.processes import ROOT

README = ROOT / "README.md"
KOREAN = ROOT / "README.ko.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README_LINES = 150

# Written like settings, and read by somebody else: OpenSSL, HTTP clients, or our own commands.
OTHER_VARIABLES = {*VARIABLES, "LLM_SERVER_URL", "OVERLOAD_S", "SIMULATOR_TODAY"}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SETTING = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")


def section(page: str, *headings: str) -> str:
    """The text under these second-level headings."""
    parts = re.split(r"^## ", page, flags=re.MULTILINE)
    return "".join(part for part in parts if part.partition("\n")[0] in headings)


def commands(text: str) -> list[str]:
    """The shell blocks, without their comments."""
    return [re.sub(r"\s+# .*$", "", body, flags=re.MULTILINE) for kind, body in _FENCE.findall(text) if kind == "bash"]


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may end with, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= README_LINES


def test_the_korean_commands_are_the_english_ones() -> None:
    english = commands(section(README.read_text(), "Quick start", "Three uses"))
    korean = commands(section(KOREAN.read_text(), "빠른 시작", "세 가지 용도"))

    assert len(english) > 4
    assert korean == english == commands(KOREAN.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = [link for link in _LINK.findall(_FENCE.sub("", page.read_text())) if ":" not in link]

    broken = [link for link in links if not leads_somewhere(page, link)]
    assert not broken


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


def test_every_page_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link).resolve() for link in _LINK.findall(index.read_text())}

    assert not [page for page in (ROOT / "docs").rglob("*.md") if page not in linked | {index}]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_settings_that_are_named_exist(page: Path) -> None:
    known = {name.upper() for name in Settings.model_fields} | OTHER_VARIABLES

    assert not set(_SETTING.findall(page.read_text())) - known
