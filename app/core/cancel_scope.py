"""Cancelling a part of a task."""

import asyncio
from typing import Any, cast

ANOTHERS_CANCELLATION_S = 0.01
"""How long another cancellation of the task may take before it is looked at again."""


class CancelScope:
    """A block of the running task that may be cancelled from outside of it. Whoever begins it must end it.

    The task's count of cancellations tells this one from others, as in `asyncio.timeout`. It does not disturb another
    that is under way, and comes after one that only a part of the block is cancelled by, as by a timeout.
    """

    def __init__(self) -> None:
        self.cancelled = False
        """Whether `cancel` had an effect. The block may have come to a good end in spite of it."""
        self._over = False

    def begin(self) -> None:
        """The block begins."""
        # There is one: this is called by coroutines.
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._cancelling_before = self._task.cancelling()

    def cancel(self) -> None:
        """Cancel the block if it goes on; not to be called by what runs in it."""
        if self._over or self.cancelled:
            return
        if self._task.cancelling() > self._cancelling_before:
            self._task.get_loop().call_later(ANOTHERS_CANCELLATION_S, self.cancel)
            return
        self.cancelled = True
        self._task.cancel()

    def end(self, kind: type[BaseException] | None) -> bool:
        """The block is over, by an exception of this kind if any: whether that is the cancellation, and no other's."""
        self._over = True
        if not self.cancelled:
            return False
        return self._task.uncancel() <= self._cancelling_before and kind is asyncio.CancelledError
