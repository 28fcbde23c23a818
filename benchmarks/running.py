"""Processes of the benchmark: pinned to a core, weighed by /proc, stopped while another one is measured. Linux only."""

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
from benchmarks.load import Target, answer_once

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CORES = sorted(os.sched_getaffinity(0))
CANDIDATE_CORES = set(_CORES[:1])
OTHER_CORES = set(_CORES[1:2]) or CANDIDATE_CORES
"""The load generator and the upstream share the second core; on a machine with one core all share it."""

SETTLING_LIMIT_S = 15
SETTLING_STEP_S = 0.1
IDLE_SHARE = 0.15
"""Of a core; some do a little all the time."""


class Running:
    """A candidate's processes, those that its own process started among them."""

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
        """Resident memory."""
        return sum(int(fields[21]) * _PAGE_BYTES for _, fields in self._processes())

    async def settle(self) -> None:
        """Wait until nothing of the load before is left to do, and it answers.

        Raises:
            TimeoutError: it does not come to rest.
        """
        async with asyncio.timeout(SETTLING_LIMIT_S):
            used = -math.inf
            while self.cpu_s() - used > IDLE_SHARE * SETTLING_STEP_S:
                used = self.cpu_s()
                await asyncio.sleep(SETTLING_STEP_S)
            await answer_once(self.target, limit_s=SETTLING_LIMIT_S)

    def sleep(self) -> None:
        """Take no CPU time until woken."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Go on."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def end(self) -> None:
        """End it; it has nothing to finish."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()


@contextmanager
def _pinned(cores: set[int]) -> Iterator[None]:
    """What is started in the block runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start(candidate: Candidate, upstream_port: int, cores: set[int]) -> Running:
    """Start it on these cores, without waiting for it."""
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
    """Start it and wait for its first chat answer; also how many seconds that took.

    Raises:
        TimeoutError: there was none for a minute; it has been ended.
    """
    began = time.perf_counter()
    running = start(candidate, upstream_port, cores)
    try:
        await answer_once(running.target)
    except BaseException:
        running.end()
        raise
    return running, time.perf_counter() - began
