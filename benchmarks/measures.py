"""The measures. Each takes a few seconds and returns named figures with units in their names."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import canned
from benchmarks.load import WARM_UP_S, Load
from benchmarks.running import Running

Figures = dict[str, float]

JSON_CONNECTIONS = 32
BURST_CONNECTIONS = 8
PACED_STREAMS = 200
IDLE_STREAMS = 2000


@dataclass(frozen=True)
class Lengths:
    """The duration of each measure in seconds."""

    json: float
    one: float
    burst: float
    paced: float


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile; NaN if there are no values."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))] if ranked else math.nan


async def _window(load: Load, running: Running, seconds: float) -> tuple[float, float]:
    """Reset the tally, run the load, and return the wall and CPU seconds used."""
    load.tally.clear()
    start_time, used = time.perf_counter(), running.cpu_s()
    await load.run(seconds)
    return time.perf_counter() - start_time, running.cpu_s() - used


async def json_at_32(running: Running, lengths: Lengths) -> Figures:
    """Throughput of whole responses."""
    async with Load(running.target) as load:
        await load.open(JSON_CONNECTIONS)
        await load.run(WARM_UP_S)
        wall_s, cpu_s = await _window(load, running, lengths.json)
        responses = load.tally.responses
    return {"requests_per_s": responses / wall_s, "cpu_us_per_request": cpu_s / responses * 1e6}


async def json_at_1(running: Running, lengths: Lengths) -> Figures:
    """Latency of whole responses, one at a time."""
    async with Load(running.target) as load:
        await load.open(1)
        await load.run(WARM_UP_S)
        await _window(load, running, lengths.one)
        latencies_s = load.tally.latencies_s
    return {"p50_ms": percentile(latencies_s, 50) * 1e3, "p99_ms": percentile(latencies_s, 99) * 1e3}


async def bursts(running: Running, lengths: Lengths) -> Figures:
    """Streams whose events all arrive at once."""
    async with Load(running.target, canned.BURST) as load:
        await load.open(BURST_CONNECTIONS)
        await load.run(WARM_UP_S)
        wall_s, cpu_s = await _window(load, running, lengths.burst)
        responses = load.tally.responses
    return {"bursts_per_s": responses / wall_s, "burst_cpu_us_per_event": cpu_s / load.tally.events * 1e6}


async def paced(running: Running, lengths: Lengths) -> Figures:
    """200 paced streams with staggered starts, each restarted when it ends."""
    async with Load(running.target, canned.PACED) as load:
        await load.open(PACED_STREAMS, spread_s=canned.STREAM_S)
        wall_s, cpu_s = await _window(load, running, lengths.paced)
        tally = load.tally
    due = PACED_STREAMS * canned.EVENTS_PER_S * wall_s
    return {
        "cpu_us_per_event": cpu_s / tally.events * 1e6,
        "first_event_p50_ms": percentile(tally.first_events_s, 50) * 1e3,
        "first_event_p99_ms": percentile(tally.first_events_s, 99) * 1e3,
        "largest_gap_ms": tally.largest_gap_s * 1e3,
        "delivered_percent": tally.events / due * 100,
    }


async def memory(running: Running) -> Figures:
    """Memory at rest, and the increase for each of 2,000 open streams."""
    at_rest = running.resident_bytes()
    async with Load(running.target, canned.BURST) as load:
        await load.open(1)
        await load.run(WARM_UP_S)
    before = running.resident_bytes()
    async with Load(running.target, canned.IDLE) as load:
        open_count = await load.open_streams(IDLE_STREAMS)
        added = running.resident_bytes() - before
    return {"rest_mb": at_rest / 2**20, "kb_per_stream": added / max(open_count, 1) / 1024, "streams_held": open_count}


MEASURES = {"json": json_at_32, "one": json_at_1, "burst": bursts, "paced": paced}
