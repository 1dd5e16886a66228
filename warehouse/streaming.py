"""The streaming run: it drains the bus batch by batch into the raw zone, computes, publishes, and then acknowledges.

One run at a time has the turn. Its successor warms up first and then waits for the turn; the run sees that and ends
after its batch, so a hand-over costs no latency. Killed anywhere, a batch comes again from the bus.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pyarrow as pa

from ingestion.bus.port import MICROBATCH, Bus
from ingestion.errors import BusUnavailable, WarehouseBusy
from ingestion.grid import instant, micros
from ingestion.messages import KlineMessage
from ingestion.microbatch import Batch, Stretch, drain, finish, land
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone
from warehouse.live import LiveWarehouse
from warehouse.turns import Turn

# How long a run looks at the bus before it looks whether it is still wanted.
_LOOK = 0.2
# Gaps and dimensions follow the bars so much later, at most.
_TIDY_EVERY = 60.0
# The bus takes a message for lost after 60 s without a word.
_LEASE = 60.0

SUCCEEDED = "a successor took over"


@dataclass(frozen=True)
class BatchReport:
    """One batch after it became visible. Lags in seconds.

    `system_lag` is from the collector's receiving the oldest of its bars until they were visible; `watermark_lag` from
    the close of its newest bar: how long after it the exchange told, and the system lag. `backlog` is what waits.
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


def streaming_turn(settings: Settings) -> Turn:
    """The turn at streaming, not taken yet."""
    return Turn(settings.home / "bus" / "streaming")


class _Live(Protocol):
    """The warehouse of one engine as a run writes it, see LiveWarehouse."""

    def apply(self, stretch: Stretch, rows: pa.Table) -> None: ...
    def between_batches(self) -> None: ...
    def tidy(self) -> None: ...


def _open(settings: Settings) -> AbstractContextManager[_Live]:
    if settings.target == "duckdb":
        return LiveWarehouse(settings)
    from warehouse.bigquery.live import LiveBigQuery  # Google's libraries take a second to import

    return LiveBigQuery(settings)


class _Run:
    def __init__(self, settings: Settings, bus: Bus, warehouse: _Live, on_batch: Callable[[BatchReport], None]) -> None:
        self._settings, self._bus, self._warehouse, self._on_batch = settings, bus, warehouse, on_batch
        self._zone = StreamZone(settings.raw_root)
        self._tidied = time.monotonic()

    def until(self, reason_to_end: Callable[[], str | None]) -> str:
        while True:
            reason = reason_to_end()
            if reason:
                return reason
            batch = drain(self._bus, self._settings, _LOOK)
            if batch is None:
                self._tidy()
            else:
                self._process(batch)
            self._warehouse.between_batches()

    def _process(self, batch: Batch) -> None:
        started = time.monotonic()
        try:
            for stretch in land(batch, self._zone):
                self._make_visible(stretch, batch)
        except Exception:
            # At once to whoever comes next, instead of after the lease.
            with suppress(BusUnavailable):
                self._bus.extend(MICROBATCH, batch.ack_ids, 0)
            raise
        visible = datetime.now(UTC)
        finish(self._bus, batch)
        self._on_batch(self._report(batch, visible, time.monotonic() - started))

    def _make_visible(self, stretch: Stretch, batch: Batch) -> None:
        while True:
            try:
                self._warehouse.apply(stretch, batch.rows)
            except WarehouseBusy:  # a build over years; the messages stay ours meanwhile
                self._bus.extend(MICROBATCH, batch.ack_ids, _LEASE)
            else:
                return

    def _tidy(self) -> None:
        """While nothing waits."""
        if time.monotonic() - self._tidied >= _TIDY_EVERY:
            with suppress(WarehouseBusy):  # next time
                self._warehouse.tidy()
            self._tidied = time.monotonic()

    def _report(self, batch: Batch, visible: datetime, seconds: float) -> BatchReport:
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
            seconds=seconds,
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
