"""From the spool to the bus: in order, in batches of what came together, again until the bus has it."""

import logging
import random
import threading
import time

from ingestion.bus.port import KLINES, Bus
from ingestion.collector.metrics import Metrics
from ingestion.collector.spool import Spool, SpoolBroken, Spooled
from ingestion.errors import BusUnavailable

_LOG = logging.getLogger(__name__)

_BATCH = 500
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0
# Something new wakes it; this is for the case that the wake-up was missed.
_LOOK_AGAIN = 1.0


class Publisher:
    """Drains the spool; `run` is a thread's, the rest may be called from any."""

    def __init__(self, spool: Spool, bus: Bus, metrics: Metrics) -> None:
        self._spool, self._bus, self._metrics = spool, bus, metrics
        self._something = threading.Event()
        self._stopping = threading.Event()
        self._is_failing = False
        # Since when the bus has not taken what is there, on the monotonic clock.
        self.stuck_since: float | None = None

    def wake(self) -> None:
        self._something.set()

    def stop(self) -> None:
        """Publish what is there if the bus takes it, and return from `run`."""
        self._stopping.set()
        self._something.set()

    def run(self) -> None:
        wait = _FIRST_WAIT
        while True:
            self._something.clear()
            if self._drain():
                wait = _FIRST_WAIT
                if self._stopping.is_set():
                    return
                self._something.wait(_LOOK_AGAIN)
            else:
                if self._stopping.wait(random.uniform(wait / 2, wait)):  # noqa: S311 - jitter
                    return
                wait = min(2 * wait, _LONGEST_WAIT)

    def _drain(self) -> bool:
        """Publish all that is there; False when the bus, or the spool, does not let it."""
        try:
            while batch := self._spool.head(_BATCH):
                self.stuck_since = self.stuck_since or time.monotonic()
                self._bus.publish(KLINES, [one.message for one in batch])
                self._done(batch)
                self.stuck_since = None
        except (BusUnavailable, SpoolBroken) as error:
            self._metrics.errors.labels(error.kind).inc()
            if not self._is_failing:
                self._is_failing = True
                _LOG.error("bus unavailable, bars are kept in the spool", extra={"reason": str(error)})
            return False
        if self._is_failing:
            self._is_failing = False
            _LOG.info("bus available again, the spool is drained")
        return True

    def _done(self, batch: list[Spooled]) -> None:
        now = time.time_ns() // 1000
        self._metrics.published.inc(len(batch))
        for one in batch:
            self._metrics.publish_latency.observe(max(now - one.received_time, 0) / 1e6)
        self._spool.remove(batch)
