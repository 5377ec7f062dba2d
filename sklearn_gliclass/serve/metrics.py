"""Prometheus metrics of the server."""

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Metrics of one app, in a registry of its own.

    Parameters
    ----------
    queue : BatchQueue
        Queue whose length is measured.
    label_sets : LabelSets or None
        Cache whose size is measured.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, queue, label_sets):
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "gliclass_requests_total", "Requests by path and HTTP status.", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            "gliclass_request_seconds", "Time of a request.", ["path"], buckets=_SECONDS, registry=registry
        )
        self.texts = Counter("gliclass_texts_total", "Texts that the model has read.", registry=registry)
        self.batch_texts = Histogram("gliclass_batch_texts", "Texts in a batch.", buckets=_SIZES, registry=registry)
        self.batch_requests = Histogram(
            "gliclass_batch_requests", "Requests in a batch.", buckets=_SIZES, registry=registry
        )
        self.batch_seconds = Histogram(
            "gliclass_batch_seconds", "Time of a batch in the model.", buckets=_SECONDS, registry=registry
        )
        queued = Gauge("gliclass_queued_texts", "Texts and labels that wait in the queue.", registry=registry)
        queued.set_function(lambda: queue.queued_cost)
        if label_sets is not None:
            cached = Gauge("gliclass_label_sets", "Label sets in the cache.", registry=registry)
            cached.set_function(lambda: len(label_sets))

    def observe_batch(self, n_requests: int, n_texts: int, seconds: float) -> None:
        """Count a batch."""
        self.texts.inc(n_texts)
        self.batch_texts.observe(n_texts)
        self.batch_requests.observe(n_requests)
        self.batch_seconds.observe(seconds)

    def observe_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request; `path` is one of the routes, so that the number of series is bounded."""
        self.requests.labels(path, status).inc()
        self.seconds.labels(path).observe(seconds)

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)
