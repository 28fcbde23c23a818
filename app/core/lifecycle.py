"""How the process ends: first nothing new is begun, and later what still goes on is given up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


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

    @asynccontextmanager
    async def abortable(self) -> AsyncIterator[None]:
        """Cancels what waits inside at `abort`.

        Raises:
            Aborted: it was cancelled for that.
        """
        limit = asyncio.timeout(None)

        def expire() -> None:
            limit.reschedule(0)

        try:
            async with limit:
                self.on_abort(expire)
                yield
        except TimeoutError:
            if limit.expired():
                raise Aborted from None
            raise
        finally:
            self.forget(expire)
