"""Metrics for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

METRICS_CONTENT_TYPE = CONTENT_TYPE_LATEST


class UpstreamMetrics:
    """Metrics of the calls to OpenAI. Labelled children are looked up once, here."""

    def __init__(self, registry: CollectorRegistry) -> None:
        attempts = Counter(
            "llm_server_upstream_attempts",
            "Calls to OpenAI by outcome: answered (status 200), refused (another status), failed, cancelled.",
            ["outcome"],
            registry=registry,
        )
        retries = Counter(
            "llm_server_upstream_retries", "Retried calls to OpenAI by reason.", ["reason"], registry=registry
        )
        self.attempts = {name: attempts.labels(name) for name in ("answered", "refused", "failed", "cancelled")}
        self.retries = {name: retries.labels(name) for name in ("connect", "closed", "status", "rate_limit", "key")}
        self.in_flight = 0
        """Calls in progress: a plain number, which is cheap to change. The gauge reads it on each scrape."""
        gauge = Gauge(
            "llm_server_upstream_calls_in_flight",
            "Calls to OpenAI in progress; a stream counts until it is closed.",
            registry=registry,
        )
        gauge.set_function(lambda: self.in_flight)


class Metrics:
    """The metrics of one application, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.upstream = UpstreamMetrics(self._registry)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus's text format, of type `METRICS_CONTENT_TYPE`."""
        return generate_latest(self._registry)


class ServerLoad:
    """Inference requests in progress (vLLM's `/load`); a stream counts until its end."""

    def __init__(self) -> None:
        self.requests = 0
