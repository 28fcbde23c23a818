"""The README's table of request fields, made from the rows: `python -m tests.parameter_table` writes it."""

import sys
from pathlib import Path

from app.features.llm.to_openai.parameters import PARAMETERS, Handling

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- parameters: made by `make format` -->\n", "<!-- end of parameters -->\n"

_MEANINGS = {
    Handling.PASS: "passed",
    Handling.TRANSLATE: "translated",
    Handling.IGNORE: "no effect",
    Handling.DROP: "dropped, told",
    Handling.REFUSE: "refused",
}


def table() -> str:
    """A row for each field, in the schema's order."""
    rules = [f"| `{name}` | {_MEANINGS[rule.fate]} | {rule.note} |\n" for name, rule in PARAMETERS.items()]
    return "".join(["| Field | Fate | How |\n|---|---|---|\n", *rules])


def with_table(readme: str) -> str:
    """The README with the table of now between its marks."""
    before, _, rest = readme.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
    sys.exit(0)
