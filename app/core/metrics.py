"""What Prometheus is told."""

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

METRICS_CONTENT_TYPE = CONTENT_TYPE_LATEST


class UpstreamMetrics:
    """What is counted of the calls to OpenAI. The children of each label are looked up here, once."""

    def __init__(self, registry: CollectorRegistry) -> None:
        attempts = Counter(
            "llm_server_upstream_attempts",
            "Calls made to OpenAI, by how each ended: answered (200), refused (another status), failed, cancelled.",
            ["outcome"],
            registry=registry,
        )
        retries = Counter(
            "llm_server_upstream_retries", "Calls made to OpenAI once more, by why.", ["reason"], registry=registry
        )
        self.attempts = {name: attempts.labels(name) for name in ("answered", "refused", "failed", "cancelled")}
        self.retries = {name: retries.labels(name) for name in ("connect", "closed", "status", "rate_limit", "key")}
        self.in_flight = 0
        """Calls that are not over: a number that is cheap to change, and read when Prometheus asks."""
        gauge = Gauge(
            "llm_server_upstream_calls_in_flight",
            "Calls to OpenAI that are not over; a stream is one until it is closed.",
            registry=registry,
        )
        gauge.set_function(lambda: self.in_flight)


class Metrics:
    """The metrics of one application, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.upstream = UpstreamMetrics(self._registry)

    def exposition(self) -> bytes:
        """All of them in Prometheus's text form, to be sent as `METRICS_CONTENT_TYPE`."""
        return generate_latest(self._registry)


class ServerLoad:
    """Inference requests in progress (vLLM's `/load`); a stream counts until its end."""

    def __init__(self) -> None:
        self.requests = 0
