"""Runs the live tests against a server that uses the simulator: `python -m tests.live`."""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.conftest import LIVE_TESTS
from tests.processes import ROOT, environment, started


async def main() -> int:
    """Start the server, run the tests, and return their exit status."""
    simulated = ("-m", "app.simulator", "--port", "0", "--", sys.executable)
    server = ("-m", "app", "--host", "127.0.0.1", "--port", "0")
    with tempfile.TemporaryDirectory() as folder:
        async with started(*simulated, *server, cwd=Path(folder)) as process:
            url = await process.url()
            tests = await asyncio.create_subprocess_exec(
                # OpenAI's latency cannot be tested with a simulator.
                *(sys.executable, "-m", "pytest", "-v", "-k", "not seconds", f"tests/integration/{LIVE_TESTS}"),
                cwd=ROOT,
                env=environment(LLM_SERVER_URL=url),
            )
            status = await tests.wait()
            process.process.terminate()
            return status or await process.ended()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
