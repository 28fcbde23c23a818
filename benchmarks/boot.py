"""Start-up time and memory of the server: `make boot`.

Time is from starting the process to the first response to GET /health; memory is resident memory after that. The best
of three starts counts, because the first compiles bytecode and other load only adds. Linux only (/proc).
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

BOOT_LIMIT_S = 1.5
MEMORY_LIMIT_MB = 100
STARTS = 3


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_health(port: int) -> None:
    """Poll /health until the server responds.

    Raises:
        TimeoutError: no response within 30 seconds.
    """
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.005)
    raise TimeoutError("no response from /health")


def resident_mb(pid: int) -> float:
    """Resident memory of a process in megabytes (VmRSS of proc_pid_status(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024


def start() -> tuple[float, float]:
    """Start once; return the seconds to the first response and the megabytes after it."""
    port = free_port()
    command = [sys.executable, "-m", "app", "--host", "127.0.0.1", "--port", str(port)]
    start_time = time.monotonic()
    with subprocess.Popen(  # noqa: S603 - our own command
        command, env={**os.environ, "OPENAI_API_KEY": "sk-boot"}, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_for_health(port)
            return time.monotonic() - start_time, resident_mb(server.pid)
        finally:
            server.terminate()


def main() -> int:
    """Print the figures; return 1 if they exceed the limits."""
    starts = [start() for _ in range(STARTS)]
    seconds, megabytes = min(taken for taken, _ in starts), min(used for _, used in starts)
    print(f"boot to the first response from /health: {seconds:.2f} s (limit {BOOT_LIMIT_S} s)")
    print(f"resident memory after boot: {megabytes:.0f} MB (limit {MEMORY_LIMIT_MB} MB)")
    return int(seconds > BOOT_LIMIT_S or megabytes > MEMORY_LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main())
