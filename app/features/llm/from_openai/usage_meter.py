"""Count the tokens that a call uses."""

from app.core.errors.request_errors import RequestError
from app.core.errors.upstream_errors import UpstreamError
from app.core.request_record import current_record

BYTES_PER_TOKEN = 4
"""A rough estimate, for a call without usage from OpenAI."""


class UsageMeter:
    """Records one call's tokens in the request record: OpenAI's usage, or an estimate if the call ends without it.

    A call that fails inside the block costs nothing: OpenAI did not accept it. A cancelled call keeps its estimate,
    because OpenAI may have accepted it.
    """

    def __init__(self, body: bytes) -> None:
        self._record = current_record()
        self._counted = len(body) // BYTES_PER_TOKEN
        self._reported = False
        self._record.tokens_used += self._counted

    def __enter__(self) -> "UsageMeter":
        return self

    def __exit__(self, _class: object, failure: BaseException | None, _traceback: object) -> None:
        if failure is not None and isinstance(failure, RequestError | UpstreamError):
            self.record(0)

    def record(self, tokens: int) -> None:
        """Set the total tokens of the call."""
        self._reported = True
        self._record.tokens_used += tokens - self._counted
        self._counted = tokens

    def estimate(self, written: int) -> None:
        """Estimate the total after `written` tokens of the response, unless OpenAI reported it."""
        if not self._reported:
            self.record(self._counted + written)
