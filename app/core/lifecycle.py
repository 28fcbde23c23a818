"""Shutdown in two steps: first no new requests are accepted, later those in progress are aborted."""

import asyncio
from collections.abc import Callable

from app.core.cancel_scope import CancelScope


class Aborted(Exception):
    """The server is shutting down and has cancelled the work for a client."""


class Lifecycle:
    """The state of the shutdown, and the callbacks for its second step.

    It neither waits nor handles signals: the server does, and calls `drain` and then `abort`.
    """

    def __init__(self) -> None:
        self.draining = False
        """Whether new inference requests are rejected."""
        self._aborting = False
        self._callbacks: set[Callable[[], None]] = set()

    def drain(self) -> None:
        """Reject new inference requests from now on."""
        self.draining = True

    def abort(self) -> None:
        """Abort the work in progress, and any that begins from now on."""
        self._aborting = True
        for callback in list(self._callbacks):
            callback()

    def on_abort(self, callback: Callable[[], None]) -> None:
        """Call `callback` once at `abort`, or soon if the abort has begun. `forget` removes it."""
        if self._aborting:
            asyncio.get_running_loop().call_soon(callback)
        else:
            self._callbacks.add(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Remove a callback of `on_abort`."""
        self._callbacks.discard(callback)

    def abortable(self) -> "Abortable":
        """Return a context manager that `abort` cancels.

        Raises:
            Aborted: the block was cancelled by `abort`.
        """
        return Abortable(self)


class Abortable(CancelScope):
    """A block that `Lifecycle.abort` cancels."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        super().__init__()
        self._lifecycle = lifecycle

    def __enter__(self) -> None:
        self.begin()
        self._lifecycle.on_abort(self.cancel)

    def __exit__(self, exception_type: type[BaseException] | None, _error: object, _traceback: object) -> None:
        self._lifecycle.forget(self.cancel)
        if self.end(exception_type):
            raise Aborted from None
