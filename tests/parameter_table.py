"""Generates the table in docs/parameters.md from the parameter rules: `python -m tests.parameter_table`."""

import sys
from pathlib import Path

from app.features.llm.to_openai.parameters import PARAMETERS

PAGE = Path(__file__).parents[1] / "docs" / "parameters.md"
BEGIN, END = "<!-- parameters: written by `make format` -->\n", "<!-- end of parameters -->\n"


def table() -> str:
    """Return a row for each field, in the schema's order."""
    rules = [f"| `{name}` | {rule.handling} | {rule.note} |\n" for name, rule in PARAMETERS.items()]
    return "".join(["| Field | Handling | Details |\n|---|---|---|\n", *rules])


def with_table(page: str) -> str:
    """Return the page with the current table between its markers."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
    sys.exit(0)
