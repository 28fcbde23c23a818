"""How the process ends: first nothing new is begun, and later what still goes on is given up."""

import asyncio
from collections.abc import Callable

from app.core.cancel_scope import CancelScope


class Aborted(Exception):
    """The server ends; what was being done for a client has been cancelled."""


class Lifecycle:
    """Where the process is on the way to its end, and what has to be told when it gets there.

    Nothing here waits or listens to signals: the server that owns them calls `drain` and then `abort`.
    """

    def __init__(self) -> None:
        self.draining = False
        """Whether requests for answers that come now are refused."""
        self._aborting = False
        self._callbacks: set[Callable[[], None]] = set()

    def drain(self) -> None:
        """Begin nothing new."""
        self.draining = True

    def abort(self) -> None:
        """Give up what goes on, and what is begun from now on."""
        self._aborting = True
        for callback in list(self._callbacks):
            callback()

    def on_abort(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once at `abort`, soon if that has been; until it is forgotten."""
        if self._aborting:
            asyncio.get_running_loop().call_soon(callback)
        else:
            self._callbacks.add(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call it any more."""
        self._callbacks.discard(callback)

    def abortable(self) -> "Abortable":
        """Cancels what waits inside the block at `abort`.

        Raises:
            Aborted: it was cancelled for that.
        """
        return Abortable(self)


class Abortable(CancelScope):
    """One block that can be aborted."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        super().__init__()
        self._lifecycle = lifecycle

    def __enter__(self) -> None:
        self.begin()
        self._lifecycle.on_abort(self.cancel)

    def __exit__(self, kind: type[BaseException] | None, _error: object, _traceback: object) -> None:
        self._lifecycle.forget(self.cancel)
        if self.end(kind):
            raise Aborted from None
