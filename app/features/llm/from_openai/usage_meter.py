"""What a call costs, as far as it is known."""

from app.core.errors.errors import RequestError
from app.core.errors.upstream_errors import UpstreamError
from app.core.request_record import current_record

BYTES_PER_TOKEN = 4
"""Roughly, for a call whose usage OpenAI never told."""


class UsageMeter:
    """One call's tokens in its request's record: what OpenAI says, and an estimate where the call ends before that.

    A call that fails in the block costs nothing: OpenAI did not accept it. One that is given up there may have been.
    """

    def __init__(self, body: bytes) -> None:
        self._record = current_record()
        self._counted = len(body) // BYTES_PER_TOKEN
        self._told = False
        self._record.tokens_used += self._counted

    def __enter__(self) -> "UsageMeter":
        return self

    def __exit__(self, _class: object, failure: BaseException | None, _traceback: object) -> None:
        if failure is not None and isinstance(failure, RequestError | UpstreamError):
            self.record(0)

    def record(self, tokens: int) -> None:
        """It was so many in all."""
        self._told = True
        self._record.tokens_used += tokens - self._counted
        self._counted = tokens

    def estimate(self, written: int) -> None:
        """The call is over after so many tokens of the answer; what OpenAI has told stays."""
        if not self._told:
            self.record(self._counted + written)
