"""What the collector counts, in a registry of its own."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

_PREFIX = "klinehouse_collector"
_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Counters and histograms; gauges are read from what they measure when they are asked for."""

    def __init__(self) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry()
        self.frames = self._counter("messages_received", "Messages of the exchange, pings left out.")
        self.bars = self._counter("candles_processed", "Closed bars taken, by where they came from.", "source")
        self.published = self._counter("messages_published", "Messages that the bus has confirmed.")
        self.duplicates = self._counter("duplicates", "Closed bars that were known already.")
        self.refused = self._counter("bars_refused", "Closed bars not taken because the spool was full; fetched later.")
        self.errors = self._counter("errors", "Errors, by class.", "kind")
        self.connects = self._counter("connects", "Connections tried.")
        self.reconnects = self._counter("reconnects", "Connections lost and opened again.")
        self.rotations = self._counter("rotations", "Connections handed over to a successor before their end.")
        self.catch_ups = self._counter("catch_ups", "Questions to REST for bars that the stream had not brought.")
        self.event_latency = self._histogram(
            "event_to_received_seconds", "From the exchange's event time of a closed bar until it was received."
        )
        self.publish_latency = self._histogram(
            "received_to_published_seconds", "From receiving a closed bar until the bus had confirmed it."
        )

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        Gauge(f"{_PREFIX}_{name}", help, registry=self.registry).set_function(read)

    @staticmethod
    def total(counter: Counter) -> int:
        """The sum of a counter over its labels."""
        samples = [sample for metric in counter.collect() for sample in metric.samples]
        return int(sum(sample.value for sample in samples))

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", help, labels, registry=self.registry)

    def _histogram(self, name: str, help: str) -> Histogram:
        return Histogram(f"{_PREFIX}_{name}", help, buckets=_SECONDS, registry=self.registry)
