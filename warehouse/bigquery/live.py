"""The warehouse as the streaming run writes it on BigQuery: bars are appended at once, computed every few minutes.

An appended bar is in the view `market_data_live` with its indicators as soon as the append is acknowledged. A run of
the models per batch would cost a MERGE of the day's partition each time; it takes half a minute or so, and appends go
on meanwhile.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import pyarrow as pa
from google.cloud.bigquery import ScalarQueryParameter

from ingestion.errors import WarehouseBusy
from ingestion.grid import Window
from ingestion.klines import INTERVAL_MICROS
from ingestion.microbatch import Stretch, around, stretches
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone
from warehouse import dbt
from warehouse.bigquery import raw_source
from warehouse.bigquery.append import Appender
from warehouse.bigquery.client import ANALYTICS, RAW, BigQuery
from warehouse.bigquery.tables import make_tables
from warehouse.engine import writing
from warehouse.live_port import Applied
from warehouse.raw_source import whole_days

# Gaps and dimensions follow so much later, over what earlier runs may have left too.
_TIDY_EVERY = 3600.0
_TIDY_BACK = timedelta(days=1)
# Bars that a killed run has appended but not computed are looked for so far back; what is older, history brings.
_LOOK_BACK = timedelta(days=35)


class LiveBigQuery:
    """One writer, in one process, with a thread of its own that computes. Not for several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._every = settings.bigquery_increment_minutes * 60.0
        self._warehouse, self._appender = BigQuery(settings), Appender(settings.bigquery_project)
        self._streamed = StreamZone(settings.raw_root)
        make_tables(self._warehouse)
        self._pending = self._left_behind()
        self._computing: Stretch | None = None
        self._untidy: Window | None = None
        self._computed_at, self._tidied_at = time.monotonic(), float("-inf")
        self._worker = ThreadPoolExecutor(1, "increment")
        self._work: Future[None] | None = None

    def apply(self, rows: pa.Table) -> Applied:
        """Append bars; a later increment computes them. Doing it again adds rows, of which staging takes each once.

        Raises WarehouseUnavailable.
        """
        started = time.monotonic()
        self._appender.append(rows)
        for stretch in stretches(rows):
            self._pending = _joined(self._pending, stretch)
        return Applied(datetime.now(UTC), is_settled=True, seconds=time.monotonic() - started)

    def between_batches(self, *, nothing_waits: bool = True) -> None:
        """Begin to compute what is pending when it is time. Raises what the work that has ended since raised:
        WarehouseUnavailable, and BuildFailed when dbt fails; what it was about stays pending."""
        if not self._is_free() or self._pending is None or time.monotonic() - self._computed_at < self._every:
            return
        self._computing, self._pending = self._pending, None
        self._work = self._worker.submit(self._compute, self._computing)

    def tidy(self) -> None:
        """Begin what need not happen with each increment: gaps anew, small files put together. Raises
        as `between_batches` does."""
        if not self._is_free() or self._untidy is None or time.monotonic() - self._tidied_at < _TIDY_EVERY:
            return
        self._work = self._worker.submit(self._tidy, Window(self._untidy.start - _TIDY_BACK, self._untidy.end))

    def close(self) -> None:
        """Waits for the end of an increment that has begun; what it could not do is found by the next run."""
        self._worker.shutdown()
        self._appender.close()
        self._warehouse.close()

    def _is_free(self) -> bool:
        """Whether no work is going on; takes note of work that has ended."""
        if self._work is None:
            return True
        if not self._work.done():
            return False
        work, self._work = self._work, None
        failed, computing, self._computing = work.exception(), self._computing, None
        self._computed_at = time.monotonic()
        if failed is not None:
            self._pending = computing if self._pending is None else _joined(computing, self._pending)
            if not isinstance(failed, WarehouseBusy):  # a build over years; again when it is time
                raise failed
        return True

    # --- in the thread of its own ----------------------------------------------------------------------------------

    def _compute(self, stretch: Stretch) -> None:
        with writing(self._settings):
            window = self._widened(stretch)
            raw_source.about(self._warehouse, self._settings.interval, window, stretch.symbols)
            dbt.run_live(self._settings, dbt.Window(*window))
        self._untidy = around(self._untidy, window)

    def _tidy(self, window: Window) -> None:
        with writing(self._settings):
            self._streamed.compact(whole_days(window))
            raw_source.about(self._warehouse, self._settings.interval, window, self._settings.symbols)
            dbt.run(self._settings, dbt.tidy_args(dbt.Window(*window), self._settings.interval))
        self._untidy, self._tidied_at = None, time.monotonic()

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
        length = timedelta(microseconds=INTERVAL_MICROS[self._settings.interval] or 0)
        window = Window(min(first for _, first, _ in found), max(last for *_, last in found) + length)
        return Stretch(window, tuple(sorted(symbol for symbol, *_ in found)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _joined(one: Stretch | None, other: Stretch) -> Stretch:
    if one is None:
        return other
    return Stretch(around(one.window, other.window), tuple(sorted({*one.symbols, *other.symbols})))
