"""How long OpenAI is waited for, and what is said when it was too long."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeout:
    """The longest wait for one thing, in seconds; `complaint` says what a failure waited for, and names the setting."""

    seconds: float
    text: str

    @property
    def complaint(self) -> str:
        """For the client and the log."""
        return self.text.format(f"{self.seconds:g}")


class Timeouts:
    """The four limits of one call, in seconds.

    A connection has to be there after `connect_s`, the first byte of the answer after `first_byte_s` (counted from
    the beginning of the call, so that sending the request and asking again are in it), each further one after
    `idle_s`, and an answer that is no stream has to be complete after `total_s`.
    """

    def __init__(
        self, *, connect_s: float = 5.0, first_byte_s: float = 600.0, idle_s: float = 120.0, total_s: float = 600.0
    ) -> None:
        self.connect = Timeout(
            connect_s, "The upstream service accepted no connection within {} s (UPSTREAM_CONNECT_TIMEOUT_S)."
        )
        self.first_byte = Timeout(
            first_byte_s, "The upstream service did not begin to answer within {} s (UPSTREAM_FIRST_BYTE_TIMEOUT_S)."
        )
        self.idle = Timeout(
            idle_s, "The upstream service fell silent in its answer for {} s (UPSTREAM_IDLE_TIMEOUT_S)."
        )
        self.total = Timeout(
            total_s, "The upstream service did not complete its answer within {} s (UPSTREAM_TOTAL_TIMEOUT_S)."
        )
        self.whole_begins = min(self.first_byte, self.total, key=lambda limit: limit.seconds)
        """What an answer that is no stream has to begin within."""
