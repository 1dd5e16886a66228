"""The core: one thread that decides, from what connections and REST bring, which bars are next, and keeps them.

Time that is meant as bars is the exchange's: the latest event time heard. Time that is meant as waiting is real.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any

from ingestion.binance.stream import KlineFrame
from ingestion.collector.catch_up import Fetcher, FetchFailed, Wants
from ingestion.collector.clock import ExchangeClock
from ingestion.collector.connections import Heard
from ingestion.collector.metrics import Metrics
from ingestion.collector.publisher import Publisher
from ingestion.collector.sequence import Fetched
from ingestion.collector.sequence import Sequence as SeriesSequence
from ingestion.collector.shards import Shard
from ingestion.collector.spool import Spool, SpoolBroken
from ingestion.klines import Series
from ingestion.messages import KlineMessage

_LOG = logging.getLogger(__name__)

_TICK = 0.1
_MOST_EVENTS = 2000
# By the exchange's clock: closing frames have come 1.4 to 2.4 s after the close.
_CLOSING_GRACE = 10_000_000
# Real seconds that newer bars wait for older ones from REST.
_LONGEST_HOLD = 10.0
# Real seconds between looks at REST while there is no stream.
_POLL = 30.0


@dataclass(frozen=True)
class Latest:
    """The newest state of a series: its price, of the bar that opened at `open_time`, open or closed."""

    open_time: int
    price: str
    event_time: int
    closed: bool


class Core:
    """`run` is a thread's; what is public may be read from any."""

    def __init__(
        self,
        series: Sequence[Series],
        clock: ExchangeClock,
        events: "Queue[Any]",
        shards: Sequence[Shard],
        fetcher: Fetcher,
        spool: Spool,
        publisher: Publisher,
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._series, self._clock, self._events, self._shards, self._fetcher = series, clock, events, shards, fetcher
        self._spool, self._publisher, self._metrics = spool, publisher, metrics
        self._stopping = threading.Event()
        self._wants = Wants(monotonic)
        self._sequences = self._restored()
        self._holding_since: dict[Series, float] = {}
        self._ticked_at = 0.0
        self._polled_at = [monotonic()] * len(shards)
        self.latest: dict[Series, Latest] = {}
        self.last_closed: dict[Series, int] = {}
        self.last_message: float | None = None  # in seconds since 1970
        self.last_heard: float | None = None  # on the monotonic clock

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        """Until stopped; what has been heard until then is kept."""
        while not self._stopping.is_set():
            self.step(_TICK)
        for shard in self._shards:
            shard.leave()
        while events := self._take(0):
            self._handle(events)

    def step(self, wait: float) -> None:
        """Handle what has come, or what comes first within `wait` seconds, and what is due."""
        self._handle(self._take(wait))
        self._tick()
        self._ask()

    @property
    def behind(self) -> list[Series]:
        """The series of which bars are being fetched, or wait for it."""
        return [series for series in self._series if self._wants.is_wanted(series)]

    def closed_bars(self) -> list[tuple[Series, int | None]]:
        """Each series with when its newest closed bar opened; None before the first since the start."""
        return [(series, self.last_closed.get(series)) for series in self._series]

    def _restored(self) -> dict[Series, SeriesSequence]:
        return {series: SeriesSequence(series, self._spool.watermark(series)) for series in self._series}

    def _take(self, wait: float) -> list[Any]:
        """All that has come, or what comes first within `wait` seconds."""
        events: list[Any] = []
        try:
            events.append(self._events.get(timeout=wait) if wait else self._events.get_nowait())
            while len(events) < _MOST_EVENTS:
                events.append(self._events.get_nowait())
        except Empty:
            pass
        return events

    def _handle(self, events: Iterable[Any]) -> None:
        bars = [bar for event in events for bar in self._handled(event)]
        self._keep(bars)

    def _handled(self, event: Any) -> list[KlineMessage]:
        """The bars that an event brings to be published."""
        if isinstance(event, Heard):
            return self._heard(event.frame, event.received_time)
        if isinstance(event, Fetched):
            return self._fetched(event)
        return self._failed(event)

    def _heard(self, frame: KlineFrame, received_time: int) -> list[KlineMessage]:
        sequence = self._sequences.get(frame.series)
        if sequence is None:
            self._metrics.errors.labels("frame_not_asked_for").inc()
            return []
        if not self._clock.believes(frame.event_time):
            self._metrics.errors.labels("frame_ahead_of_time").inc()
            self._wants.want(frame.series)  # which asks for the exchange's time
            return []
        self.last_message, self.last_heard = received_time / 1e6, self._monotonic()
        self._clock.heard(frame.event_time)
        self._see(frame.series, Latest(frame.open_time, frame.prices["close"], frame.event_time, frame.closed))
        return self._closed(sequence, frame.message(received_time)) if frame.closed else []

    def _see(self, series: Series, state: Latest) -> None:
        known = self.latest.get(series)
        if known is None or (known.open_time, known.closed, known.event_time) <= (
            state.open_time,
            state.closed,
            state.event_time,
        ):
            self.latest[series] = state

    def _closed(self, sequence: SeriesSequence, bar: KlineMessage) -> list[KlineMessage]:
        if sequence.knows(bar.open_time):
            self._metrics.duplicates.inc()
            return []
        if self._spool.is_full:
            self._metrics.refused.inc()
            return []
        accepted = sequence.closed(bar)
        if sequence.has_gap:
            self._wants.hurry(bar.series)
            self._wants.want(bar.series)
        delay = (bar.received_time - bar.event_time) / 1e6
        if abs(delay) < 300:  # else the exchange's clock is another one than ours
            self._metrics.event_latency.observe(max(delay, 0))
        return accepted

    def _fetched(self, answer: Fetched) -> list[KlineMessage]:
        self._metrics.catch_ups.inc()
        self._clock.asked(answer.now)
        sequence = self._sequences[answer.series]
        if self._spool.is_full:
            self._wants.answered(answer.series, progress=False)
            self._wants.want(answer.series)
            return []
        before = sequence.next_open
        accepted = sequence.fetched(answer)
        if answer.bars:
            last = answer.bars[-1]
            self._see(answer.series, Latest(last.open_time, last.close, last.event_time, closed=True))
        self._wants.answered(answer.series, progress=sequence.next_open != before)
        if sequence.has_gap or sequence.is_overdue(answer.now - _CLOSING_GRACE):
            self._wants.want(answer.series)
        return accepted

    def _failed(self, failure: FetchFailed) -> list[KlineMessage]:
        self._metrics.catch_ups.inc()
        self._metrics.errors.labels(f"rest_{failure.error.kind}").inc()
        _LOG.warning("catching up failed", extra={"series": str(failure.series), "reason": str(failure.error)})
        self._wants.answered(failure.series, progress=False)
        self._wants.want(failure.series)
        # What is here goes on; the bars before it follow when REST answers.
        return [] if self._spool.is_full else self._sequences[failure.series].release()

    def _keep(self, bars: Sequence[KlineMessage]) -> None:
        """Make bars and watermarks durable; when that fails, it is as if they had not come."""
        watermarks = {
            series: sequence.next_open
            for series, sequence in self._sequences.items()
            if sequence.next_open is not None and sequence.next_open != self._spool.watermark(series)
        }
        if not bars and not watermarks:
            return
        try:
            self._spool.append(bars, watermarks)
        except SpoolBroken as error:
            self._metrics.errors.labels(error.kind).inc()
            _LOG.error("bars cannot be kept; they are fetched again", extra={"reason": str(error)})
            self._sequences = self._restored()
            return
        for bar in bars:
            self._metrics.bars.labels(bar.source).inc()
            self.last_closed[bar.series] = max(bar.open_time, self.last_closed.get(bar.series, 0))
        self._publisher.wake()

    def _tick(self) -> None:
        now = self._monotonic()
        if now - self._ticked_at < _TICK:
            return
        self._ticked_at = now
        for number, shard in enumerate(self._shards):
            if shard.tick():
                self._want_all(shard)
            elif shard.down_since is not None and now - self._polled_at[number] > _POLL:
                self._polled_at[number] = now
                self._want_all(shard)
        self._look_for_missing(now)

    def _ask(self) -> None:
        """Let the series that want bars have the threads that are free."""
        if not self._spool.is_full:
            for series in self._wants.next():
                self._fetcher.ask(series, self._sequences[series].next_open)

    def _want_all(self, shard: Shard) -> None:
        for series in shard.series:
            self._wants.hurry(series)
            self._wants.want(series)

    def _look_for_missing(self, now: float) -> None:
        released: list[KlineMessage] = []
        for series, sequence in self._sequences.items():
            if sequence.is_overdue(self._clock.now - _CLOSING_GRACE):
                self._wants.want(series)
            if not sequence.is_holding:
                self._holding_since.pop(series, None)
            elif now - self._holding_since.setdefault(series, now) > _LONGEST_HOLD and not self._spool.is_full:
                released += sequence.release()
        self._keep(released)
