"""The timing of responses."""

from dataclasses import dataclass

from app.simulator.directives import Directive


@dataclass(frozen=True)
class Pacing:
    """Seconds before the first token and between two tokens; zero means no delay."""

    time_to_first_token_s: float = 0.0
    time_per_token_s: float = 0.0

    def overridden_by(self, directive: Directive) -> "Pacing":
        """Return this pacing with the values that ``directive`` sets."""
        return Pacing(
            self.time_to_first_token_s if directive.ttft is None else directive.ttft,
            self.time_per_token_s if directive.itl is None else directive.itl,
        )

    def whole_response_s(self, tokens: int) -> float:
        """Return the seconds that a whole response of ``tokens`` takes."""
        return self.time_to_first_token_s + tokens * self.time_per_token_s
