"""Runs the comparison: boots and memory first, then the measures in rounds, each candidate in turn."""

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
from benchmarks.http1 import WrongAnswer
from benchmarks.load import answer_once
from benchmarks.measures import MEASURES, Figures, Lengths, memory
from benchmarks.running import CANDIDATE_CORES, OTHER_CORES, Running, boot

BASE = "direct"
ADDED = {"p50_ms": "added_p50_ms", "p99_ms": "added_p99_ms"} | {
    f"first_event_{name}": f"added_first_event_{name}" for name in ("p50_ms", "p99_ms")
}
"""Figures of which the upstream's own, of the same round, are taken off."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    lengths: Lengths
    boots: int


QUICK = Plan(rounds=2, lengths=Lengths(json=1.5, one=1, burst=1.5, paced=2), boots=1)
FULL = Plan(rounds=5, lengths=Lengths(json=2, one=1.5, burst=2, paced=3), boots=3)


@dataclass
class Outcome:
    """What was seen of one candidate: each figure in every round, and what went wrong."""

    rounds: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    translates: bool = False
    """Whether a stream's events are made into vLLM's: they name the model that was asked for."""

    def add(self, figures: Figures) -> None:
        """One more round's figures."""
        for name, value in figures.items():
            self.rounds.setdefault(name, []).append(value)

    def median(self, name: str) -> float | None:
        """The figure's median over the rounds, if it was measured."""
        values = self.rounds.get(name)
        return statistics.median(values) if values else None


Outcomes = dict[str, Outcome]


async def compare(names: Sequence[str], plan: Plan) -> Outcomes:
    """Measure these candidates, the upstream alone among them in any case."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    os.sched_setaffinity(0, OTHER_CORES)
    if task := asyncio.current_task():
        # What has been started is ended then too.
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
                _say(f"round {number + 1} of {plan.rounds}")
                await _measure_round(running, plan.lengths, outcomes)
    finally:
        upstream.end()
    for outcome in outcomes.values():
        _take_off(outcome, outcomes[BASE])
    return outcomes


async def _measure_boots(candidate: Candidate, port: int, plan: Plan, outcome: Outcome) -> None:
    _say(f"boot and memory of {candidate.title}")
    with suppress(TimeoutError):
        for _ in range(min(plan.boots, candidate.boots)):
            running, seconds = await boot(candidate, port, CANDIDATE_CORES)
            try:
                outcome.add({"boot_s": seconds})
                if len(outcome.rounds["boot_s"]) == 1:
                    outcome.add(await memory(running))
            except WrongAnswer as exc:
                outcome.failures.append(f"memory: {exc}")
            finally:
                running.end()


@asynccontextmanager
async def _all_started(names: Iterable[str], port: int, outcomes: Outcomes) -> AsyncIterator[dict[str, Running]]:
    """Every candidate that answers as it should, asleep."""
    started: dict[str, Running] = {}
    try:
        for name in names:
            try:
                started[name], _ = await boot(CANDIDATES[name], port, CANDIDATE_CORES)
                outcomes[name].translates = _is_translated(await answer_once(started[name].target, canned.BURST))
            except TimeoutError:
                outcomes[name].failures.append("boot: no right answer within a minute")
            else:
                started[name].sleep()
        yield started
    finally:
        for running in started.values():
            running.end()


def _is_translated(stream: bytes) -> bool:
    """Whether every event of a stream says what vLLM would."""
    return canned.UPSTREAM_MODEL.encode() not in stream


async def _measure_round(running: dict[str, Running], lengths: Lengths, outcomes: Outcomes) -> None:
    for measure in MEASURES.values():
        for name, candidate in running.items():
            candidate.wake()
            try:
                await candidate.settle()
                outcomes[name].add(await measure(candidate, lengths))
            except (WrongAnswer, OSError) as exc:
                outcomes[name].failures.append(f"{measure.__name__}: {exc}")
            finally:
                candidate.sleep()


def _take_off(outcome: Outcome, base: Outcome) -> None:
    for name, added in ADDED.items():
        if name in outcome.rounds:
            outcome.rounds[added] = [
                here - there for here, there in zip(outcome.rounds[name], base.rounds[name], strict=False)
            ]


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
