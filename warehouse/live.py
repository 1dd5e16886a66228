"""Computing bars that came by stream into the warehouse, and publishing them, in one go.

Opening the file, and writing what changed back to it on closing, would cost more than computing a handful of bars. So
it stays open from batch to batch, and is given away as soon as another process waits for its turn.
"""

from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import duckdb
import pyarrow as pa

from ingestion.grid import Window
from ingestion.klines import INTERVAL_MICROS, month_window
from ingestion.microbatch import Stretch, around
from ingestion.raw_zone import RawZone
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone
from warehouse import dbt, raw_source, serving
from warehouse.build import build, require_window
from warehouse.engine import open_warehouse, take, turn_at
from warehouse.served_files import BARS

# Bars that closed since their month was written become part of it when there are more. All of them are written with
# each batch: no more rows than three symbols have of a whole month at 5m, which a batch wrote anew before.
_NEWEST_BARS = 20_000
# Newer bars are computed from those of so long a time, in bars: more than the averages remember, as there may be holes.
# Whether they are enough is asked by the model.
_REACH = 1_536


class LiveWarehouse:
    """One writer, in one process, that keeps the warehouse while nobody else wants it. For one thread after another."""

    def __init__(self, settings: Settings, served: serving.Served | None = None) -> None:
        self._settings, self._zone = settings, RawZone(settings.raw_root)
        self._streamed = StreamZone(settings.raw_root)
        self._turn = turn_at(settings)
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._served = served or serving.Served(settings)
        self._untidy: Window | None = None

    def apply(self, stretch: Stretch) -> None:
        """Compute the bars of a stretch, which lie in the raw zone, and what remembers them, and publish. Doing it
        again changes nothing.

        Raises WarehouseBusy, and BuildFailed when dbt fails.
        """
        connection = self._open()
        if not self._served.files() or not raw_source.has_tables(connection):
            self._begin()
            return
        stretch = raw_source.widened(connection, self._settings.interval, stretch)
        self._untidy = around(self._untidy, stretch.window)
        raw_source.prepare_live(connection, self._zone, self._streamed, self._settings.interval, stretch)
        dbt.run_live(self._settings, dbt.Window(*stretch.window))
        serving.publish_bars(self._settings, connection, self._served, keep_months=True, keep_shown=True)

    def known_bars(self) -> pa.Table | None:
        """What indicators of newer bars are computed from: rows of the main table, the last bars of the base interval
        of each symbol. None where there is no such table.

        Raises WarehouseBusy.
        """
        connection = self._open()
        if not raw_source.has_tables(connection):
            return None
        interval = self._settings.interval
        reach = timedelta(microseconds=_REACH * (INTERVAL_MICROS[interval] or 0))
        [(until,)] = connection.execute(
            'select max(covered_until) from crypto_raw.klines_coverage where "interval" = ?', [interval]
        ).fetchall()
        since = until - reach if until else datetime.min.replace(tzinfo=UTC)
        return connection.sql(
            f'from crypto_analytics.{BARS} where "interval" = $interval and open_time >= $since',
            params={"interval": interval, "since": since},
        ).to_arrow_table()

    def rehearse(self, stretch: Stretch) -> None:
        """Make the tables of a home that has none with this stretch, and then apply it."""
        connection = self._open()
        raw_source.prepare(connection, self._zone, self._settings.interval, month_window(stretch.window))
        dbt.make_tables(self._settings, dbt.Window(*stretch.window))
        serving.publish_bars(self._settings, connection, self._served, with_dimensions=True)
        self.apply(stretch)

    def is_wanted(self) -> bool:
        """Whether this has the warehouse, and another process waits for it; after `close`, `apply` takes it again."""
        return self._turn.is_taken and self._turn.is_wanted()

    def tidy(self) -> None:
        """What need not happen with each batch: gaps and dimensions anew, small files put together, old ones removed.

        Raises WarehouseBusy, and BuildFailed when dbt fails.
        """
        if self._untidy is None:
            return
        connection = self._open()
        self._streamed.compact(raw_source.whole_days(self._untidy))
        symbols = tuple(self._settings.symbols)
        raw_source.prepare_live(
            connection, self._zone, self._streamed, self._settings.interval, Stretch(self._untidy, symbols)
        )
        dbt.run(self._settings, dbt.tidy_args(dbt.Window(*self._untidy), self._settings.interval))
        newest = sum(file.rows for file in self._served.files() if file.is_newest)
        _, files = serving.publish_bars(
            self._settings,
            connection,
            self._served,
            with_dimensions=True,
            keep_months=newest <= _NEWEST_BARS,
            keep_shown=True,
        )
        serving.collect_garbage(self._settings, files)
        self._untidy = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._turn.give_back()

    def _open(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            take(self._turn, self._settings)
            self._connection = open_warehouse(self._settings)
        return self._connection

    def _begin(self) -> None:
        """The first bars of a warehouse: everything that has landed is built, and empty tables come into being."""
        self.close()
        build(self._settings, require_window(self._settings))
        serving.publish(self._settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
