"""`make bench`: measure, print the table, and, unless `--quick`, write docs/benchmark.md and its plot."""

import argparse
import sys

import uvloop

from benchmarks.candidates import CANDIDATES
from benchmarks.comparison import FULL, QUICK, compare
from benchmarks.report import table, write

QUICK_CANDIDATES = ("direct", "sketch", "ours")


def main() -> int:
    """Return 1 if any candidate failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="sketch and llm-server only, in under 90 s; writes nothing"
    )
    parser.add_argument("--only", nargs="+", choices=list(CANDIDATES), metavar="NAME", help=", ".join(CANDIDATES))
    arguments = parser.parse_args()
    names = arguments.only or (QUICK_CANDIDATES if arguments.quick else tuple(CANDIDATES))
    outcomes = uvloop.run(compare(names, QUICK if arguments.quick else FULL))
    print(table(outcomes))
    if not arguments.quick:
        write(outcomes)
    failures = [f"{name}: {failure}" for name, outcome in outcomes.items() for failure in outcome.failures]
    print("\n".join(failures), file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
