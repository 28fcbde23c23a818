"""Runs schemathesis against the server's OpenAPI description: `python -m tests.fuzz PATH-OF-SCHEMATHESIS`."""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.processes import ROOT, environment, started

EXAMPLES = "100"
"""For each route and phase."""


async def main(schemathesis: str) -> int:
    """Run schemathesis against a server that uses the simulator; return its exit status."""
    simulated = ("-m", "app.simulator", "--port", "0", "--", sys.executable)
    server = ("-m", "app", "--host", "127.0.0.1", "--port", "0")
    # Every request must get a response within the timeout, and no 5xx.
    options = ("--checks=not_a_server_error", "--mode=all", "--request-timeout=20", "--no-color", "--workers=1")
    with tempfile.TemporaryDirectory() as folder:
        async with started(*simulated, *server, cwd=Path(folder), ENABLE_TOKENIZER_INFO_ENDPOINT="true") as process:
            request_body_schema = f"{await process.url()}/openapi.json"
            reading = asyncio.create_task(process.ended(timeout_s=3600))
            run = (schemathesis, "run", request_body_schema, *options, f"--max-examples={EXAMPLES}", "--seed=1")
            tests = await asyncio.create_subprocess_exec(*run, cwd=folder, env=environment())
            status = await tests.wait()
            process.process.terminate()
            return await reading or status


if __name__ == "__main__":
    sys.exit(asyncio.run(main(str((ROOT / sys.argv[1]).resolve()))))
