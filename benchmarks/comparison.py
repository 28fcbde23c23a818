"""Runs the comparison: boot time and memory first, then rounds of measures, candidate by candidate."""

import asyncio
import os
import resource
import signal
import statistics
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from benchmarks import canned
from benchmarks.candidates import CANDIDATES, Candidate
from benchmarks.http1 import WrongResponse
from benchmarks.load import request_once
from benchmarks.measures import MEASURES, Figures, Lengths, memory
from benchmarks.running import CANDIDATE_CORES, OTHER_CORES, Running, boot

BASE = "direct"
ADDED = {"p50_ms": "added_p50_ms", "p99_ms": "added_p99_ms"} | {
    f"first_event_{name}": f"added_first_event_{name}" for name in ("p50_ms", "p99_ms")
}
"""Figures from which the upstream's own figure of the same round is subtracted."""


@dataclass(frozen=True)
class Plan:
    """The extent of a run."""

    rounds: int
    lengths: Lengths
    boots: int


QUICK = Plan(rounds=2, lengths=Lengths(json=1.5, one=1, burst=1.5, paced=2), boots=1)
FULL = Plan(rounds=5, lengths=Lengths(json=2, one=1.5, burst=2, paced=3), boots=3)


@dataclass
class Outcome:
    """The results of one candidate: each figure in every round, and failures."""

    rounds: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    translates: bool = False
    """True if stream events are translated to vLLM's form: they name the requested model."""

    def add(self, figures: Figures) -> None:
        """Add the figures of a round."""
        for name, value in figures.items():
            self.rounds.setdefault(name, []).append(value)

    def median(self, name: str) -> float | None:
        """Return the figure's median over the rounds; None if it was not measured."""
        values = self.rounds.get(name)
        return statistics.median(values) if values else None


Outcomes = dict[str, Outcome]


async def compare(names: Sequence[str], plan: Plan) -> Outcomes:
    """Measure these candidates and always the upstream alone."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    os.sched_setaffinity(0, OTHER_CORES)
    if task := asyncio.current_task():
        # Cancellation also ends the processes that were started.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    names = [BASE, *[name for name in names if name != BASE and CANDIDATES[name].installed]]
    outcomes = {name: Outcome() for name in names}
    upstream, _ = await boot(CANDIDATES[BASE], 0, OTHER_CORES)
    try:
        port = upstream.target.port
        for name in names:
            await _measure_boots(CANDIDATES[name], port, plan, outcomes[name])
        async with _all_started(names, port, outcomes) as running:
            for number in range(plan.rounds):
                _log(f"round {number + 1} of {plan.rounds}")
                await _measure_round(running, plan.lengths, outcomes)
    finally:
        upstream.end()
    for outcome in outcomes.values():
        _subtract_base(outcome, outcomes[BASE])
    return outcomes


async def _measure_boots(candidate: Candidate, port: int, plan: Plan, outcome: Outcome) -> None:
    _log(f"boot and memory of {candidate.title}")
    with suppress(TimeoutError):
        for _ in range(min(plan.boots, candidate.boots)):
            running, seconds = await boot(candidate, port, CANDIDATE_CORES)
            try:
                outcome.add({"boot_s": seconds})
                if len(outcome.rounds["boot_s"]) == 1:
                    outcome.add(await memory(running))
            except WrongResponse as exc:
                outcome.failures.append(f"memory: {exc}")
            finally:
                running.end()


@asynccontextmanager
async def _all_started(names: Iterable[str], port: int, outcomes: Outcomes) -> AsyncIterator[dict[str, Running]]:
    """Yield every candidate that gives a correct response, suspended."""
    started: dict[str, Running] = {}
    try:
        for name in names:
            try:
                started[name], _ = await boot(CANDIDATES[name], port, CANDIDATE_CORES)
                outcomes[name].translates = _is_translated(await request_once(started[name].target, canned.BURST))
            except TimeoutError:
                outcomes[name].failures.append("boot: no correct response within a minute")
            else:
                started[name].sleep()
        yield started
    finally:
        for running in started.values():
            running.end()


def _is_translated(stream: bytes) -> bool:
    """Return True if no event has OpenAI's model name."""
    return canned.UPSTREAM_MODEL.encode() not in stream


async def _measure_round(running: dict[str, Running], lengths: Lengths, outcomes: Outcomes) -> None:
    for measure in MEASURES.values():
        for name, candidate in running.items():
            candidate.wake()
            try:
                await candidate.settle()
                outcomes[name].add(await measure(candidate, lengths))
            except (WrongResponse, OSError) as exc:
                outcomes[name].failures.append(f"{measure.__name__}: {exc}")
            finally:
                candidate.sleep()


def _subtract_base(outcome: Outcome, base: Outcome) -> None:
    for name, added in ADDED.items():
        if name in outcome.rounds:
            outcome.rounds[added] = [
                here - there for here, there in zip(outcome.rounds[name], base.rounds[name], strict=False)
            ]


def _log(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
