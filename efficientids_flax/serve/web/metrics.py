"""Metrics for Prometheus: requests, batches, the queue, reloads and compilations."""

from collections.abc import Callable

import jax
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from efficientids_flax.serve.answers import Told

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX's own event of each compilation
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "efficientids_requests", "Requests that were answered.", ["method", "route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "efficientids_request_seconds", "From the head of a request to its answer.", ["route"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self._batch = Histogram(
            "efficientids_batch_histories", "Histories that were computed together.",
            buckets=SIZES, registry=self.registry,
        )  # fmt: skip
        self._computed = Histogram(
            "efficientids_batch_seconds", "What the device took for a batch.", buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self._waited = Histogram(
            "efficientids_wait_seconds", "What the first of a batch waited.", buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self._queue = self._gauge("efficientids_queue_histories", "Histories that wait.")
        self.connections = self._gauge("efficientids_connections", "Open connections.")
        self.generation = self._gauge("efficientids_generation", "Exports that were served so far.")
        self.ready = self._gauge("efficientids_ready", "1 once all is compiled, until it ends.")
        self._compiled = Counter(
            "efficientids_compilations", "What XLA compiled in this process; does not rise while "
            "serving.", registry=self.registry,
        )  # fmt: skip
        self._reloads = Counter(
            "efficientids_reloads", "Further exports that were loaded.", ["outcome"],
            registry=self.registry,
        )  # fmt: skip

    def told(self) -> Told:
        """The callbacks for the queue."""

        def batch(size: int, seconds: float, waited: float) -> None:
            self._batch.observe(size)
            self._computed.observe(seconds)
            self._waited.observe(waited)

        return Told(batch, self._queue.set)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def reloaded(self, *, well: bool) -> None:
        """Count a reload: `well` if the new export is served, else it was refused."""
        self._reloads.labels("swapped" if well else "refused").inc()

    def count_compilations(self) -> Callable[[], None]:
        """Start counting JAX's compilations; gives a function that stops it."""

        def heard(event: str, duration_secs: float, **_: object) -> None:
            del duration_secs
            if event == COMPILED:
                self._compiled.inc()

        jax.monitoring.register_event_duration_secs_listener(heard)
        return lambda: jax.monitoring.unregister_event_duration_listener(heard)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, doc: str) -> Gauge:
        return Gauge(name, doc, registry=self.registry)
