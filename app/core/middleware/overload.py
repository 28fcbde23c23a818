"""Rejects inference requests while no upstream call could start or wait."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.http.asgi_scope import asks_for_an_answer
from app.core.http.error_response import error_response
from app.core.limits.concurrency_limit import Admission


class OverloadMiddleware:
    """Refuses requests for answers while no call could be made or wait, before their bodies cost anything."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self.app = app
        self.admission = admission

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The answer, or the refusal."""
        if self.admission.is_full and asks_for_an_answer(scope):
            return error_response(self.admission.overloaded().answer)(scope, receive, send)
        return self.app(scope, receive, send)
