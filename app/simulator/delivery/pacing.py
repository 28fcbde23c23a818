"""How fast the simulator answers."""

from dataclasses import dataclass

from app.simulator.directives import Directive


@dataclass(frozen=True)
class Pacing:
    """Seconds until the first token, and from one token to the next; zero answers as fast as possible."""

    time_to_first_token_s: float = 0.0
    time_per_token_s: float = 0.0

    def overridden_by(self, directive: Directive) -> "Pacing":
        """Return the pace one request asked for itself; what it did not mention stays."""
        return Pacing(
            self.time_to_first_token_s if directive.ttft is None else directive.ttft,
            self.time_per_token_s if directive.itl is None else directive.itl,
        )

    def whole_answer_s(self, tokens: int) -> float:
        """Return the seconds an answer of ``tokens`` takes that is not streamed."""
        return self.time_to_first_token_s + tokens * self.time_per_token_s
