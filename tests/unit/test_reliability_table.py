"""Every test that docs/reliability.md and docs/security.md name exists."""

import re

import pytest

from tests.processes import ROOT

PAGES = ("reliability.md", "security.md")
TEXTS = {page: (ROOT / "docs" / page).read_text() for page in PAGES}
NAMED = [
    (page, file, name)
    for page, text in TEXTS.items()
    for file, name in re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", text)
    if not file.startswith("app/")
]


@pytest.mark.parametrize(("page", "least"), [("reliability.md", 60), ("security.md", 40)])
def test_a_page_names_tests(page: str, least: int) -> None:
    assert sum(named == page for named, _, _ in NAMED) > least


@pytest.mark.parametrize("page", PAGES)
def test_a_test_is_named_with_its_file(page: str) -> None:
    assert not re.findall(r"`(?:\w+::)?test_\w+`", TEXTS[page])


@pytest.mark.parametrize(("page", "file", "name"), NAMED, ids=[f"{page}-{name or file}" for page, file, name in NAMED])
def test_a_named_test_exists(page: str, file: str, name: str) -> None:
    source = (ROOT / "tests" / file).read_text()
    assert not name or re.search(rf"^(async )?def {name}\(", source, re.MULTILINE)
