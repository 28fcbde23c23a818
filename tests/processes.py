"""Runs our commands as processes, as a user does."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from tests import leaks

ROOT = Path(__file__).parents[1]
_URL = re.compile(r"running on (http://\S+)")


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with `variables` added."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **variables}


class Process:
    """A running command, its standard error so far, and its standard output."""

    def __init__(self, process: asyncio.subprocess.Process, out: IO[bytes]) -> None:
        self.process = process
        self.said = ""
        self._out = out

    def answers(self) -> str:
        """Return its standard output so far: one access log line for each response."""
        self._out.seek(0)
        return self._out.read().decode()

    async def wait_for_line(self, pattern: str, *, timeout_s: float = 60) -> re.Match[str]:
        """Return the first match of `pattern` in further standard error.

        Raises:
            TimeoutError: no match in time.
            RuntimeError: the process ended first.
        """
        assert self.process.stderr is not None
        async with asyncio.timeout(timeout_s):
            while line := await self.process.stderr.readline():
                self._note(line)
                if match := re.search(pattern, line.decode()):
                    return match
        raise RuntimeError(f"ended without saying {pattern!r}: {self.said}")

    def _note(self, said: bytes) -> None:
        leaks.search(said, "log of a process")
        self.said += said.decode()

    async def url(self) -> str:
        """Wait until it listens and return its URL."""
        return (await self.wait_for_line(_URL.pattern))[1]

    async def ended(self, *, timeout_s: float = 60) -> int:
        """Wait for its end and return the exit status, negative for a signal."""
        async with asyncio.timeout(timeout_s):
            _out, err = await self.process.communicate()
        self._note(err)
        assert self.process.returncode is not None
        return self.process.returncode


@asynccontextmanager
async def started(*arguments: str, cwd: Path, **variables: str) -> AsyncIterator[Process]:
    """Run `python ARGUMENTS` in the folder `cwd`; kill it at the end if it still runs."""
    leaks.watch(variables[name] for name in variables.keys() & {"OPENAI_API_KEY", "VLLM_API_KEY"})
    with TemporaryFile() as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=cwd,
            env=environment(**variables),
            stdout=out,
            stderr=asyncio.subprocess.PIPE,
        )
        running = Process(process, out)
        try:
            yield running
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
            leaks.search(running.answers(), "standard output of a process")
