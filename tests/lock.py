"""Checks that the lock files match their pins, without network access: `python -m tests.lock`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = {"requirements-run.txt": "requirements-run.lock", "requirements.txt": "requirements.lock"}
_PIN = re.compile(r"([\w.-]+)==([\w.+!-]+)")
_LOCKED = re.compile(r"([\w.-]+)==([\w.+!-]+)(?: ;[^\\\n]*)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def pins(name: str) -> dict[str, str]:
    """Return the version of each project in a requirements file and the files it includes."""
    found: dict[str, str] = {}
    for line in (ROOT / name).read_text().splitlines():
        if line.startswith("-r "):
            found |= pins(line.removeprefix("-r ").strip())
        elif match := _PIN.fullmatch(line.strip()):
            found[_normal(match[1])] = match[2]
    return found


def problems(name: str) -> list[str]:
    """Return the problems of the lock of requirements file `name`, one line each."""
    text = (ROOT / LOCKS[name]).read_text()
    locked = {_normal(match[1]): match[2] for match in _LOCKED.finditer(text)}
    told = [
        f"{LOCKS[name]}: {project} is {locked.get(project, 'missing')}, but {version} in {name}; run make lock"
        for project, version in pins(name).items()
        if locked.get(project) != version
    ]
    rest = [line for line in _LOCKED.sub("", text).splitlines() if not line.startswith("#")]
    return told + [f"{LOCKS[name]}: not a pinned project with its hashes: {line}" for line in rest]


def _normal(project: str) -> str:
    return re.sub(r"[-_.]+", "-", project).lower()


if __name__ == "__main__":
    found = [problem for name in LOCKS for problem in problems(name)]
    print("\n".join(found) or "The locks are in step with the pins.")
    sys.exit(bool(found))
