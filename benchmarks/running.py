"""The candidates' processes: pinned to a core, measured through /proc, stopped while others run. Linux only."""

import asyncio
import math
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template

from benchmarks.boot import free_port
from benchmarks.candidates import Candidate
from benchmarks.load import Target, request_once

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CORES = sorted(os.sched_getaffinity(0))
CANDIDATE_CORES = set(_CORES[:1])
OTHER_CORES = set(_CORES[1:2]) or CANDIDATE_CORES
"""The load generator and the upstream share the second core; on a machine with one core all share it."""

SETTLING_LIMIT_S = 15
SETTLING_STEP_S = 0.1
IDLE_SHARE = 0.15
"""Fraction of a core; some candidates are never fully idle."""


class Running:
    """A candidate's process and its children."""

    def __init__(
        self, process: subprocess.Popen[bytes], target: Target, folder: tempfile.TemporaryDirectory[str]
    ) -> None:
        self.target = target
        self._process = process
        self._folder = folder

    def _processes(self) -> Iterator[tuple[Path, list[str]]]:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == self._process.pid:  # its process group
                yield folder, fields

    def cpu_s(self) -> float:
        """CPU seconds used so far, in user and kernel mode."""
        return sum(int(fields[11]) + int(fields[12]) for _, fields in self._processes()) / _TICKS_PER_S

    def resident_bytes(self) -> int:
        """Resident memory of all processes."""
        return sum(int(fields[21]) * _PAGE_BYTES for _, fields in self._processes())

    async def settle(self) -> None:
        """Wait until the work of the previous load is done and the candidate responds.

        Raises:
            TimeoutError: it does not become idle.
        """
        async with asyncio.timeout(SETTLING_LIMIT_S):
            used = -math.inf
            while self.cpu_s() - used > IDLE_SHARE * SETTLING_STEP_S:
                used = self.cpu_s()
                await asyncio.sleep(SETTLING_STEP_S)
            await request_once(self.target, limit_s=SETTLING_LIMIT_S)

    def sleep(self) -> None:
        """Stop the processes (SIGSTOP)."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Continue the processes (SIGCONT)."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def end(self) -> None:
        """Kill the processes (SIGKILL)."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()


@contextmanager
def _pinned(cores: set[int]) -> Iterator[None]:
    """Pin processes that are started in the block to these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start(candidate: Candidate, upstream_port: int, cores: set[int]) -> Running:
    """Start a candidate on these cores, without waiting for it to listen."""
    folder, port = tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True), free_port()
    address = f"127.0.0.1:{upstream_port}"
    values = {"port": str(port), "other_port": str(free_port()), "folder": folder.name}
    values |= {"upstream": f"http://{address}", "upstream_address": address}
    for name, content in candidate.files.items():
        Path(folder.name, name).write_text(Template(content).substitute(values))
    with _pinned(cores):
        process = subprocess.Popen(  # noqa: S603 - our own commands
            [Template(part).substitute(values) for part in candidate.command],
            env={
                **os.environ,
                **{name: Template(value).substitute(values) for name, value in candidate.environment.items()},
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    return Running(process, Target(port, Template(candidate.headers).substitute(values)), folder)


async def boot(candidate: Candidate, upstream_port: int, cores: set[int]) -> tuple[Running, float]:
    """Start a candidate and wait for its first chat response; also return the seconds that took.

    Raises:
        TimeoutError: no response within a minute; the candidate has been killed.
    """
    start_time = time.perf_counter()
    running = start(candidate, upstream_port, cores)
    try:
        await request_once(running.target)
    except BaseException:
        running.end()
        raise
    return running, time.perf_counter() - start_time
