"""The Docker command line, as far as the tests of the image need it."""

import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

IMAGE = "llm-server"


def docker(*arguments: str, check: bool = True) -> str:
    """Run `docker ARGUMENTS` and return its standard output.

    Raises:
        CalledProcessError: it failed; its output is in the exception's notes.
    """
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        error = subprocess.CalledProcessError(done.returncode, done.args)
        error.add_note(done.stderr)
        raise error
    return done.stdout.strip()


def compose_command() -> list[str]:
    """Return `docker compose` if it is installed, else `docker-compose`."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    found = shutil.which("docker-compose")
    if found is None:
        raise RuntimeError("neither `docker compose` nor docker-compose is installed")
    return [found]


class Container:
    """A running container of the image."""

    def __init__(self, id_: str) -> None:
        self.id = id_

    @property
    def url(self) -> str:
        """The URL of its published port 8002."""
        return f"http://{docker('port', self.id, '8002/tcp').splitlines()[0]}"

    def inspect(self, template: str) -> str:
        """Return a value of `docker inspect` by Go template."""
        return docker("inspect", "--format", template, self.id)

    def run(self, *command: str) -> str:
        """Run a command inside, as the container's user, and return its output."""
        return docker("exec", self.id, *command)

    def ended(self) -> int:
        """Wait for the container to exit and return its status."""
        return int(docker("wait", self.id))


@contextmanager
def running(*options: str, arguments: tuple[str, ...] = ()) -> Iterator[Container]:
    """A container with these options of `docker run`; removed at the end."""
    container = Container(docker("run", "--detach", *options, IMAGE, *arguments))
    try:
        yield container
    finally:
        docker("rm", "--force", container.id)


@contextmanager
def network() -> Iterator[str]:
    """The name of a temporary network."""
    name = f"llm-server-test-{uuid.uuid4().hex[:8]}"
    docker("network", "create", name)
    try:
        yield name
    finally:
        docker("network", "rm", name)
