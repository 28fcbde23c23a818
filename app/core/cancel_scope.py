"""Cancellation of a part of a task."""

import asyncio
from typing import Any, cast

RETRY_INTERVAL_S = 0.01
"""Interval at which `cancel` retries while another cancellation of the task is in progress."""


class CancelScope:
    """A block of the running task that can be cancelled from outside. Every `begin` needs an `end`.

    The task's count of cancellations tells this one from others, as in `asyncio.timeout`. `cancel` waits while another
    cancellation is in progress, such as a timeout inside the block.
    """

    def __init__(self) -> None:
        self.cancelled = False
        """Whether `cancel` cancelled the task. The block may have succeeded nevertheless."""
        self._ended = False

    def begin(self) -> None:
        """Enter the block."""
        # Never None: only coroutines call this.
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._cancelling_before = self._task.cancelling()

    def cancel(self) -> None:
        """Cancel the block unless it has ended. Must not be called from inside the block."""
        if self._ended or self.cancelled:
            return
        if self._task.cancelling() > self._cancelling_before:
            self._task.get_loop().call_later(RETRY_INTERVAL_S, self.cancel)
            return
        self.cancelled = True
        self._task.cancel()

    def end(self, exception_type: type[BaseException] | None) -> bool:
        """Exit the block, which ended with an exception of this type or None.

        True if it ended by this scope's own cancellation and no other.
        """
        self._ended = True
        if not self.cancelled:
            return False
        return self._task.uncancel() <= self._cancelling_before and exception_type is asyncio.CancelledError
