"""The warehouse as the streaming run writes it on BigQuery: bars are appended at once, computed every few minutes.

An appended bar is in the view `market_data_live` with its indicators as soon as the append is acknowledged. A run of
the models per batch would cost a MERGE of the day's partition each time.
"""

import time
from datetime import UTC, timedelta
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from google.cloud.bigquery import ScalarQueryParameter

from ingestion.grid import Window
from ingestion.microbatch import Stretch, around
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone
from warehouse import dbt
from warehouse.bigquery import raw_source
from warehouse.bigquery.append import Appender
from warehouse.bigquery.client import ANALYTICS, RAW, BigQuery
from warehouse.bigquery.tables import make_tables
from warehouse.engine import take, turn_at
from warehouse.raw_source import whole_days

# Gaps and dimensions, which read all of history, follow so much later.
_TIDY_EVERY = 3600.0
# Bars that a killed run has appended but not computed are looked for so far back; what is older, history brings.
_LOOK_BACK = timedelta(days=35)


class LiveBigQuery:
    """One writer, in one process. Not for several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._every = settings.bigquery_increment_minutes * 60.0
        self._warehouse, self._appender = BigQuery(settings), Appender(settings.bigquery_project)
        self._streamed = StreamZone(settings.raw_root)
        self._turn = turn_at(settings)
        make_tables(self._warehouse)
        self._pending = self._left_behind()
        self._untidy: Window | None = None
        self._computed_at = self._tidied_at = time.monotonic()

    def apply(self, stretch: Stretch, rows: pa.Table) -> None:
        """Append the bars of a stretch, of `rows` in KLINE_SCHEMA; compute what is pending when it is time. Doing it
        again adds rows, of which staging takes each once.

        Raises WarehouseUnavailable, and BuildFailed when dbt fails.
        """
        times = rows["open_time"]
        inside = pc.and_(
            pc.greater_equal(times, pa.scalar(stretch.window.start, times.type)),
            pc.less(times, pa.scalar(stretch.window.end, times.type)),
        )
        self._appender.append(rows.filter(inside))
        self._pending = stretch if self._pending is None else _joined(self._pending, stretch)
        self._compute_if_due()

    def give_way(self) -> None:
        """Give the warehouse away if another process waits for it; computing takes it again."""
        if self._turn.is_taken and self._turn.is_wanted():
            self._turn.give_back()

    def tidy(self) -> None:
        """What need not happen with each batch. Raises WarehouseBusy, and BuildFailed when dbt fails."""
        self._compute_if_due()
        if self._untidy is None or time.monotonic() - self._tidied_at < _TIDY_EVERY:
            return
        take(self._turn, self._settings)
        self._streamed.compact(whole_days(self._untidy))
        dbt.run(self._settings, dbt.tidy_args(dbt.Window(*self._untidy), self._settings.interval))
        self._untidy, self._tidied_at = None, time.monotonic()

    def close(self) -> None:
        self._turn.give_back()
        self._appender.close()
        self._warehouse.close()

    def _compute_if_due(self) -> None:
        if self._pending is None or time.monotonic() - self._computed_at < self._every:
            return
        take(self._turn, self._settings)
        interval = self._settings.interval
        window = self._widened(self._pending)
        raw_source.about(self._warehouse, interval, window, self._pending.symbols)
        dbt.run_live(self._settings, dbt.Window(*window))
        self._untidy = around(self._untidy, window)
        self._pending, self._computed_at = None, time.monotonic()

    def _widened(self, stretch: Stretch) -> Window:
        """From where its symbols were told of before: bars of an outage in between may be over only now."""
        told_until = self._warehouse.run(
            f"select min(covered_until) from (select max(covered_until) as covered_until from {RAW}.klines_coverage "
            "where `interval` = @interval and symbol in unnest(@symbols) group by symbol)",
            raw_source.scope(self._settings.interval, stretch.symbols),
            purpose="where the symbols end",
        )[0][0]
        if told_until is None or told_until >= stretch.window.start:
            return stretch.window
        return Window(told_until.astimezone(UTC), stretch.window.end)

    def _left_behind(self) -> Stretch | None:
        """Bars that were appended and are not in the table of bars: of a run that was killed."""
        interval = ScalarQueryParameter("interval", "STRING", self._settings.interval)
        known = self._warehouse.run(
            f"select max(covered_until) from {RAW}.klines_coverage where `interval` = @interval",
            [interval],
            purpose="newest bar",
        )[0][0]
        if known is None or not self._warehouse.has_table(ANALYTICS, "market_data_unified"):
            return None
        since = f"open_time >= timestamp '{(known - _LOOK_BACK).astimezone(UTC)}' and `interval` = @interval"
        found = self._warehouse.run(
            f"""select landed.symbol, min(landed.open_time), max(landed.open_time)
            from (select symbol, open_time from {RAW}.klines_stream where {since}) as landed
            left join (select symbol, open_time from {ANALYTICS}.market_data_unified where {since}) as bars
                on landed.symbol = bars.symbol and landed.open_time = bars.open_time
            where bars.symbol is null
            group by landed.symbol""",
            [interval],
            purpose="bars that were left behind",
        )
        if not found:
            return None
        length = raw_source.length_of(self._settings.interval)
        window = Window(min(first for _, first, _ in found), max(last for *_, last in found) + length)
        return Stretch(window, tuple(sorted(symbol for symbol, *_ in found)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _joined(one: Stretch, other: Stretch) -> Stretch:
    return Stretch(around(one.window, other.window), tuple(sorted({*one.symbols, *other.symbols})))
