"""Python calls per request and per event have ceilings."""

import asyncio
import sys

from tests.processes import ROOT, environment


async def test_requests_and_events_stay_within_their_call_ceilings() -> None:
    counting = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.counting"),
        cwd=ROOT,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        said, _ = await counting.communicate()
    assert counting.returncode == 0, said.decode()
