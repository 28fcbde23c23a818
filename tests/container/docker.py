"""The Docker command line, as far as the tests of the image need it."""

import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

IMAGE = "llm-server"


def docker(*arguments: str, check: bool = True) -> str:
    """What `docker ARGUMENTS` prints on standard output.

    Raises:
        CalledProcessError: it failed; its words are in the exception's notes.
    """
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        error = subprocess.CalledProcessError(done.returncode, done.args)
        error.add_note(done.stderr)
        raise error
    return done.stdout.strip()


def compose_command() -> list[str]:
    """`docker compose` where it is installed, else `docker-compose`."""
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
        """Where its port 8002 is published."""
        return f"http://{docker('port', self.id, '8002/tcp').splitlines()[0]}"

    def inspect(self, template: str) -> str:
        """A value of `docker inspect`, by its Go template."""
        return docker("inspect", "--format", template, self.id)

    def run(self, *command: str) -> str:
        """What a command prints that runs inside, as the container's user."""
        return docker("exec", self.id, *command)

    def ended(self) -> int:
        """Its exit status, once it has ended."""
        return int(docker("wait", self.id))


@contextmanager
def running(*options: str, arguments: tuple[str, ...] = ()) -> Iterator[Container]:
    """A container with these options of `docker run`, removed at the end."""
    container = Container(docker("run", "--detach", *options, IMAGE, *arguments))
    try:
        yield container
    finally:
        docker("rm", "--force", container.id)


@contextmanager
def network() -> Iterator[str]:
    """The name of a network of its own."""
    name = f"llm-server-test-{uuid.uuid4().hex[:8]}"
    docker("network", "create", name)
    try:
        yield name
    finally:
        docker("network", "rm", name)
