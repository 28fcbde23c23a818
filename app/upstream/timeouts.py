"""The timeouts of a call to OpenAI, and the error message of each."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeout:
    """A timeout in seconds, with the template of its error message, which names the setting."""

    seconds: float
    template: str

    @property
    def message(self) -> str:
        """The error message for the client and the log."""
        return self.template.format(f"{self.seconds:g}")


class Timeouts:
    """The four timeouts of one call, in seconds.

    `connect_s`: for a connection. `first_byte_s`: from the start of the call to the response headers, including the
    sending of the request and all retries. `idle_s`: for each further read. `total_s`: from the start of the call to
    the last byte of a response that is not a stream.
    """

    def __init__(
        self, *, connect_s: float = 5.0, first_byte_s: float = 600.0, idle_s: float = 120.0, total_s: float = 600.0
    ) -> None:
        self.connect = Timeout(
            connect_s, "The upstream service accepted no connection within {} s (UPSTREAM_CONNECT_TIMEOUT_S)."
        )
        self.first_byte = Timeout(
            first_byte_s, "The upstream service did not start its response within {} s (UPSTREAM_FIRST_BYTE_TIMEOUT_S)."
        )
        self.idle = Timeout(
            idle_s, "The upstream service sent nothing during its response for {} s (UPSTREAM_IDLE_TIMEOUT_S)."
        )
        self.total = Timeout(
            total_s, "The upstream service did not complete its response within {} s (UPSTREAM_TOTAL_TIMEOUT_S)."
        )
        self.first_byte_or_total = min(self.first_byte, self.total, key=lambda timeout: timeout.seconds)
        """For the headers of a response that is not a stream: the shorter of the two."""
