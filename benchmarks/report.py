"""Writes docs/benchmark.md: the figures of one run as a table and a plot, with an explanation."""

import json
import os
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path

from benchmarks import canned
from benchmarks.candidates import CANDIDATES
from benchmarks.comparison import Outcome, Outcomes
from benchmarks.measures import BURST_CONNECTIONS, IDLE_STREAMS, JSON_CONNECTIONS, PACED_STREAMS

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmark.md"
PLOT, RAW = DOCUMENT.with_suffix(".png"), DOCUMENT.with_suffix(".json")

Format = Callable[[float], str]
ROWS: dict[str, tuple[str, Format]] = {
    "requests_per_s": (f"JSON, {JSON_CONNECTIONS} connections: requests/s", "{:,.0f}".format),
    "cpu_us_per_request": ("CPU µs a request", "{:,.0f}".format),
    "added_p50_ms": ("JSON, 1 connection: added p50, ms", "{:.2f}".format),
    "added_p99_ms": ("added p99, ms", "{:.2f}".format),
    "cpu_us_per_event": (f"{PACED_STREAMS} paced streams: CPU µs an event", "{:.0f}".format),
    "delivered_percent": ("events that came in time, %", "{:.0f}".format),
    "added_first_event_p50_ms": ("added time to first event p50, ms", "{:.1f}".format),
    "added_first_event_p99_ms": ("added time to first event p99, ms", "{:.1f}".format),
    "largest_gap_ms": ("largest gap, ms (the upstream's is 20)", "{:.0f}".format),
    "bursts_per_s": (
        f"Bursts of {canned.STREAM_EVENTS} events, {BURST_CONNECTIONS} connections: streams/s",
        "{:,.0f}".format,
    ),
    "burst_cpu_us_per_event": ("CPU µs an event", "{:.1f}".format),
    "rest_mb": ("Resident memory at rest, MB", "{:.0f}".format),
    "kb_per_stream": (f"KB for each open stream, of {IDLE_STREAMS:,}", "{:.0f}".format),
    "streams_held": ("streams held open", "{:,.0f}".format),
    "boot_s": ("Start to the first chat response, s", "{:.2f}".format),
}
"""Title and format of each figure, in the table's order."""


def table(outcomes: Outcomes) -> str:
    """Return a table of medians over the rounds, with minimum and maximum."""
    header = ["", *[CANDIDATES[name].title for name in outcomes]]
    lines = [header, ["---"] * len(header)]
    for name, (title, form) in ROWS.items():
        lines.append([title, *[_cell(outcome, name, form) for outcome in outcomes.values()]])
    lines.append(
        [
            "Events are rewritten, each naming the model asked for",
            *["yes" if outcome.translates else "no" for outcome in outcomes.values()],
        ]
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(outcome: Outcome, name: str, form: Format) -> str:
    middle = outcome.median(name)
    if middle is None:
        return "–"
    values = outcome.rounds[name]
    return form(middle) if len(values) == 1 else f"{form(middle)} ({form(min(values))} to {form(max(values))})"


def machine() -> str:
    """Describe the machine in one line."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": unknown")
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    processor = f"{os.cpu_count()} cores of {model.partition(': ')[2]}, {memory_gb:.0f} GB"
    return f"{processor}, Linux {platform.release()}, Python {platform.python_version()}, {date.today()}"


def write(outcomes: Outcomes) -> None:
    """Write the document, its plot, and every round's figures."""
    from benchmarks.plot import draw  # loading matplotlib takes a second; a quick run does not need it

    draw(outcomes, PLOT)
    RAW.write_text(json.dumps({name: outcome.rounds for name, outcome in outcomes.items()}, indent=1) + "\n")
    failures = [
        f"- {CANDIDATES[name].title}: {text}" for name, outcome in outcomes.items() for text in outcome.failures
    ]
    words = {"machine": machine(), "table": table(outcomes), "cores": _cores()}
    document = (Path(__file__).with_name("document.md")).read_text()
    for name, text in words.items():
        document = document.replace(f"<!-- {name} -->", text)
    DOCUMENT.write_text(document + "".join(f"\n{line}" for line in failures and ["## Failures", "", *failures, ""]))


def _cores() -> str:
    if len(os.sched_getaffinity(0)) == 1 and (os.cpu_count() or 1) == 1:
        return "This machine has one core, shared by all processes: the figures say little."
    return "The candidate had one core to itself; the load generator and the upstream shared another."
