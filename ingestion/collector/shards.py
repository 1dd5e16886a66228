"""A shard: up to 1024 series that share a connection, opened again when it is lost, handed over before it ends."""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from ingestion.collector.metrics import Metrics
from ingestion.klines import Series

_LOG = logging.getLogger(__name__)

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 20.0
# A connection that lived this long was a good one: the waits start again at the first.
_GOOD_LIFE = 5.0
# Seconds that both connections are kept at a handover: what the old one has heard may still be on its way.
_OVERLAP = 0.5


class Line(Protocol):
    """What a shard needs of a connection."""

    opened_at: float
    data_at: float
    ready: bool
    retiring: bool
    closed: bool

    def start(self) -> None: ...

    def leave(self) -> None: ...


class ConnectLimit:
    """The exchange takes 300 attempts to connect in 5 minutes from one address. This allows less: others connect too,
    and a process that starts again has forgotten its attempts."""

    def __init__(
        self, attempts: int = 150, seconds: float = 300.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._clock = seconds, clock
        self._taken: deque[float] = deque(maxlen=attempts)
        self._attempts = attempts
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether an attempt may be made now; if so it counts."""
        with self._lock:
            now = self._clock()
            if len(self._taken) == self._attempts and now - self._taken[0] < self._seconds:
                return False
            self._taken.append(now)
            return True


class Shard:
    """Keeps one connection ready for its series; `tick` is called often, by one thread.

    Waits are real seconds of `clock`. The age of a connection, of which the exchange allows a day, is measured in
    seconds of `exchange_clock`, which may run at another speed.
    """

    def __init__(
        self,
        series: Sequence[Series],
        dial: Callable[[Sequence[Series]], Line],
        limit: ConnectLimit,
        metrics: Metrics,
        *,
        max_age: float,
        exchange_clock: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.series = series
        self._exchange_clock = exchange_clock
        self._dial, self._limit, self._metrics, self._max_age, self._clock = dial, limit, metrics, max_age, clock
        self._line: Line | None = None
        self._successor: Line | None = None
        self._both_since: float | None = None
        self._began = 0.0  # the line, by the exchange's clock
        self._streaming = False
        self._failures = 0
        self._retry_at = 0.0
        self._has_streamed = False
        self.down_since: float | None = clock()

    @property
    def data_at(self) -> float | None:
        """When its connection last brought a bar, on the monotonic clock; None without a connection."""
        return self._line.data_at if self._line and self._streaming else None

    def tick(self) -> bool:
        """Do what is due; True when bars begin to come after there was no connection: those before were missed."""
        if self._line is not None and self._successor is not None:
            self._follow_successor(self._line, self._successor)
        if self._line is not None and self._line.closed:
            self._lost(self._line)
        if self._line is None:
            self._line = self._open()
        elif self._line.ready:
            if not self._streaming:
                self._begin()
                return True
            if self._successor is None and self._is_ending(self._line):
                self._successor = self._open()
        return False

    def leave(self) -> None:
        for line in (self._line, self._successor):
            if line is not None:
                line.leave()

    @property
    def is_closed(self) -> bool:
        return all(line is None or line.closed for line in (self._line, self._successor))

    def _open(self) -> Line | None:
        if self._clock() < self._retry_at or not self._limit.take():
            return None
        self._metrics.connects.inc()
        line = self._dial(self.series)
        line.start()
        return line

    def _begin(self) -> None:
        self._streaming, self.down_since, self._began = True, None, self._exchange_clock()
        if self._has_streamed:
            self._metrics.reconnects.inc()
        self._has_streamed = True
        _LOG.info("streaming", extra={"series": len(self.series)})

    def _is_ending(self, line: Line) -> bool:
        return line.retiring or self._exchange_clock() - self._began > self._max_age

    def _follow_successor(self, line: Line, successor: Line) -> None:
        if successor.closed:
            self._successor = self._both_since = None
            self._wait_longer()
        elif self._both_since is not None:
            if line.closed or self._clock() - self._both_since >= _OVERLAP:
                self._hand_over(line, successor)
        elif successor.ready and not line.closed:
            self._both_since = self._clock()

    def _hand_over(self, line: Line, successor: Line) -> None:
        line.leave()
        self._line, self._began = successor, self._exchange_clock()
        self._successor = self._both_since = None
        self._metrics.rotations.inc()
        _LOG.info("connection handed over", extra={"series": len(self.series)})

    def _lost(self, line: Line) -> None:
        if self._streaming:
            self._streaming, self.down_since = False, self._clock()
        if self._clock() - line.opened_at > _GOOD_LIFE:
            self._failures = 0
        self._line, self._successor, self._both_since = self._successor, None, None
        if self._line is None:
            self._wait_longer()

    def _wait_longer(self) -> None:
        wait = min(_FIRST_WAIT * 2**self._failures, _LONGEST_WAIT)
        self._retry_at = self._clock() + random.uniform(wait / 2, wait)  # noqa: S311 - jitter
        self._failures = min(self._failures + 1, 16)
