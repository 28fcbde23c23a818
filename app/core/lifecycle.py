"""How the process ends: first nothing new is begun, and later what still goes on is given up."""

import asyncio
from collections.abc import Callable
from types import TracebackType


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
        """Have `callback` called once at `abort`, at once if that has been; until it is forgotten."""
        if self._aborting:
            callback()
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


class Abortable:
    """One block that can be aborted."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._limit = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        self._lifecycle.on_abort(self._expire)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lifecycle.forget(self._expire)
        try:
            await self._limit.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise Aborted from None

    def _expire(self) -> None:
        self._limit.reschedule(0)
