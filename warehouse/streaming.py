"""The streaming run: it drains the bus batch by batch into the raw zone, makes bars visible, and acknowledges them when
they last.

One run at a time has the turn. Its successor warms up first and then waits for the turn; the run sees that and ends
when all its batches are acknowledged, so a hand-over costs no latency. Killed anywhere, a batch comes again from the
bus.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ingestion.bus.port import MICROBATCH, Bus
from ingestion.errors import BusUnavailable, WarehouseBusy
from ingestion.grid import instant, micros
from ingestion.messages import KlineMessage
from ingestion.microbatch import Batch, drain, finish, land
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone
from warehouse.engine import streaming_turn
from warehouse.live_duckdb import LiveDuckDB
from warehouse.live_port import Applied, LivePort

# How long a run looks at the bus before it looks whether it is still wanted.
_LOOK = 0.2
# Gaps and dimensions follow the bars so much later, at most.
_TIDY_EVERY = 60.0
# The bus takes a message for lost after 60 s without a word.
_LEASE = 60.0
_EXTEND_EVERY = 20.0
# More wait on the bus until some of these are acknowledged.
_OPEN_MESSAGES = 20_000
# A run that is to end takes new batches for so long, while those before are on their way.
_LAST_BATCHES = 5.0

SUCCEEDED = "a successor took over"


@dataclass(frozen=True)
class BatchReport:
    """One batch after it became visible. Lags in seconds.

    `system_lag` is from the collector's receiving the oldest of its bars until they were visible; `watermark_lag` from
    the close of its newest bar: how long after it the exchange told, and the system lag. `backlog` is what waits,
    `seconds` what the batch took, without waiting, until it was acknowledged.
    """

    rows: int
    series: int
    messages: int
    refused: tuple[str, ...]
    watermark: datetime | None
    watermark_lag: float | None
    system_lag: float | None
    backlog: int
    seconds: float

    def __str__(self) -> str:
        if self.watermark is None:
            return f"no bars in {self.messages} messages"
        bars = f"{self.rows} bars of {self.series} series"
        return f"until {self.watermark:%Y-%m-%d %H:%M:%S}: {bars}, readable after {self.system_lag:.2f} s"


def stream(
    settings: Settings,
    bus: Bus,
    on_batch: Callable[[BatchReport], None],
    should_end: Callable[[], str | None],
    patience: float = 120.0,
) -> str:
    """Work until `should_end` says why, or a successor waits; returns the reason.

    Raises BusUnavailable, BuildFailed, and WarehouseBusy when the turn does not come within `patience` seconds.
    """
    turn = streaming_turn(settings)
    if not turn.take(patience):
        raise WarehouseBusy(
            "Another streaming run has the turn and does not give it back.",
            "Look for it in the Dagster UI, and end it there.",
        )
    try:
        with _open(settings) as warehouse:
            return _Run(settings, bus, warehouse, on_batch).until(
                lambda: SUCCEEDED if turn.is_wanted() else should_end()
            )
    finally:
        turn.give_back()


def _open(settings: Settings) -> AbstractContextManager[LivePort]:
    if settings.target == "duckdb":
        return LiveDuckDB(settings)
    from warehouse.bigquery.live import LiveBigQuery  # Google's libraries take a second to import

    return LiveBigQuery(settings)


@dataclass(frozen=True)
class _Open:
    """A batch that is not acknowledged yet."""

    batch: Batch
    applied: Applied


class _Run:
    def __init__(
        self, settings: Settings, bus: Bus, warehouse: LivePort, on_batch: Callable[[BatchReport], None]
    ) -> None:
        self._settings, self._bus, self._warehouse, self._on_batch = settings, bus, warehouse, on_batch
        self._zone = StreamZone(settings.raw_root)
        self._open: list[_Open] = []
        self._tidied = self._extended = time.monotonic()

    def until(self, reason_to_end: Callable[[], str | None]) -> str:
        try:
            return self._until(reason_to_end)
        except Exception:
            # At once to whoever comes next, instead of after the lease.
            with suppress(BusUnavailable):
                self._bus.extend(MICROBATCH, self._leased(), 0)
            raise

    def _until(self, reason_to_end: Callable[[], str | None]) -> str:
        last_at: float | None = None
        while True:
            reason = reason_to_end()
            if reason and not self._open:
                return reason
            last_at = (last_at or time.monotonic() + _LAST_BATCHES) if reason else None
            batch = self._next(last_at)
            if batch is not None:
                self._begin(batch)
            self._warehouse.between_batches(nothing_waits=batch is None)
            self._finish()
            if batch is None and not self._open:
                self._tidy()

    def _next(self, last_at: float | None) -> Batch | None:
        """What waits on the bus, or comes within a short time; None when nothing does, or nothing is to be begun."""
        is_late = last_at is not None and time.monotonic() >= last_at
        if is_late or len(self._leased()) >= _OPEN_MESSAGES:
            time.sleep(_LOOK)
            return None
        return drain(self._bus, self._settings, _LOOK)

    def _begin(self, batch: Batch) -> None:
        started = time.monotonic()
        self._open.append(_Open(batch, Applied(is_settled=True)))  # given back, should this fail
        if batch.rows.num_rows:
            land(batch, self._zone)
            landed = time.monotonic() - started
            applied = self._warehouse.apply(batch.rows)
            applied.seconds += landed
            self._open[-1] = _Open(batch, applied)

    def _finish(self) -> None:
        """Acknowledge batches that last, and keep the others."""
        if time.monotonic() - self._extended >= _EXTEND_EVERY:
            self._bus.extend(MICROBATCH, self._leased(), _LEASE)
            self._extended = time.monotonic()
        for one in [one for one in self._open if one.applied.is_settled]:
            finish(self._bus, one.batch)
            self._on_batch(self._report(one))
        self._open = [one for one in self._open if not one.applied.is_settled]

    def _leased(self) -> list[str]:
        return [ack_id for one in self._open for ack_id in one.batch.ack_ids]

    def _tidy(self) -> None:
        """While nothing waits."""
        if time.monotonic() - self._tidied >= _TIDY_EVERY:
            self._warehouse.tidy()
            self._tidied = time.monotonic()

    def _report(self, done: _Open) -> BatchReport:
        batch, visible = done.batch, done.applied.visible_at or datetime.now(UTC)
        newest = max(batch.klines, key=lambda kline: kline.close_time, default=None)
        oldest = min((kline.received_time for kline in batch.klines), default=None)
        return BatchReport(
            rows=batch.rows.num_rows,
            series=len({(kline.symbol, kline.interval) for kline in batch.klines}),
            messages=len(batch.accepted) + len(batch.refused),
            refused=tuple(reason for _, reason in batch.refused),
            watermark=instant(newest.close_time) if newest else None,
            watermark_lag=_watermark_lag(newest, visible) if newest else None,
            system_lag=None if oldest is None else (visible - instant(oldest)).total_seconds(),
            backlog=self._bus.backlog(MICROBATCH).messages,
            seconds=done.applied.seconds,
        )


def _watermark_lag(newest: KlineMessage, visible: datetime) -> float:
    # Two clocks: the exchange's until it sent the bar, ours from when the collector had it.
    told = newest.event_time - newest.close_time
    return (told + micros(visible) - newest.received_time) / 1e6


@contextmanager
def until_asked() -> Iterator[Callable[[], str | None]]:
    """Yields what tells why to end after SIGTERM or SIGINT, which do not interrupt a batch. In the main thread only."""
    asked: list[str] = []
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: asked.append("it was asked to stop")) for number in signals]
    try:
        yield lambda: next(iter(asked), None)
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def older_than(age: timedelta) -> Callable[[], str | None]:
    """Ends a run after `age`."""
    until = time.monotonic() + age.total_seconds()
    return lambda: f"it ran for {age}" if time.monotonic() >= until else None
