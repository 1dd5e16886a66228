"""The files of `serving/`: which there are, and how they are written.

    serving/crypto_analytics/market_data_unified/symbol=S/interval=I/YYYY-MM.<version>.parquet
    serving/crypto_analytics/market_data_unified/newest.<version>.parquet
    serving/crypto_analytics/<dimension>.<version>.parquet

Files never change: their version is a hash of their content.

A month of a series is one file. `newest` holds the bars that have closed since those were written, of all series
together: so a bar that closes costs the writing of one small file, not of a month of each interval of each symbol.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.klines import Month, Series
from ingestion.settings import Settings
from ingestion.store import write_durably

BARS = "market_data_unified"
DIMENSIONS = ("dim_dates", "dim_hours", "dim_symbols")
HEALTH = ("klines_gaps", "klines_reconciliation")
FILE_COLUMNS = (
    *("table_name", "symbol", "interval", "month", "path", "rows", "bytes", "first_open_time", "last_close_time"),
)
DESCRIPTION = tuple(name for name in FILE_COLUMNS if name != "path")

# Of plain timestamps: for instants DuckDB asks a calendar library, ten times slower.
MONTH_OF_BAR = "date_trunc('month', make_timestamp(epoch_us(open_time)))"


@dataclass(frozen=True)
class ServedFile:
    """One file of the published version: a month of a series, or a whole dimension (no symbol, interval, month).

    The file of the newest bars has an entry for each of its series, without a month.
    """

    table_name: str
    path: str
    rows: int
    bytes: int
    symbol: str | None = None
    interval: str | None = None
    month: str | None = None
    first_open_time: datetime | None = None
    last_close_time: datetime | None = None

    @property
    def series(self) -> Series:
        return Series(self.symbol or "", self.interval or "")

    @property
    def is_month(self) -> bool:
        return self.month is not None

    @property
    def is_newest(self) -> bool:
        return self.table_name == BARS and self.month is None

    @cached_property  # a thousand files are described with every version, and most were part of the last one
    def described(self) -> str:
        """The fields of DESCRIPTION, between tabs; nothing stands for None."""
        fields = (getattr(self, name) for name in DESCRIPTION)
        return "\t".join("" if field is None else str(field) for field in fields)


SeriesMonths = dict[Series, list[Month]]


def merge(served: Sequence[ServedFile], changed: SeriesMonths, written: Sequence[ServedFile]) -> list[ServedFile]:
    """The files of the next version: what is served, without the months that changed, and what was written."""
    gone: set[tuple[str | None, ...]] = {
        (BARS, series.symbol, series.interval, str(month)) for series, months in changed.items() for month in months
    }
    gone |= {(file.table_name, file.symbol, file.interval, file.month) for file in written}
    kept = [file for file in served if (file.table_name, file.symbol, file.interval, file.month) not in gone]
    order = [BARS, *DIMENSIONS, *HEALTH]
    return sorted(
        [*kept, *written],
        key=lambda file: (order.index(file.table_name), file.symbol or "", file.interval or "", file.month or ""),
    )


def write_months(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    series: Series,
    months: Sequence[Month],
    pool: ThreadPoolExecutor,
) -> list[ServedFile]:
    """Write the given months of a series, each as one file; a month that has no bars any more has no file."""
    bars = f"""from crypto_analytics.{BARS}
        where symbol = $symbol and "interval" = $interval and open_time >= $start and open_time < $end"""
    chosen = asdict(series) | {"start": months[0].start, "end": months[-1].end}
    rows = connection.sql(f"select * {bars} order by open_time", params=chosen).to_arrow_table()
    # Asked of DuckDB, because pyarrow would import pandas to tell or compare an instant (a second).
    extents = connection.execute(
        f"select {MONTH_OF_BAR}, count(*), min(open_time), max(close_time) {bars} group by 1 order by 1", chosen
    ).fetchall()
    folder = (
        settings.serving_dir / "crypto_analytics" / BARS / f"symbol={series.symbol}" / f"interval={series.interval}"
    )

    def write(part: pa.Table, extent: tuple[datetime, int, datetime, datetime]) -> ServedFile:
        month = str(Month.containing(extent[0].date()))
        return replace(
            write_versioned(folder, month, part, BARS),
            symbol=series.symbol,
            interval=series.interval,
            month=month,
            first_open_time=extent[2],
            last_close_time=extent[3],
        )

    starts = accumulate((count for _, count, *_ in extents), initial=0)
    parts = [rows.slice(start, extent[1]) for start, extent in zip(starts, extents, strict=False)]
    return list(pool.map(write, parts, extents))


def write_dimension(connection: duckdb.DuckDBPyConnection, settings: Settings, name: str) -> ServedFile:
    rows = connection.sql(f"select * from crypto_analytics.{name} order by all").to_arrow_table()
    return write_versioned(settings.serving_dir / "crypto_analytics", name, rows, name)


def write_versioned(folder: Path, name: str, rows: pa.Table, table: str) -> ServedFile:
    """Write rows durably as a file that is named by its content."""
    sink = pa.BufferOutputStream()
    doubles = [field.name for field in rows.schema if pa.types.is_float64(field.type)]
    rising = [name for name in ("open_time", "close_time", "trades") if name in rows.column_names]
    # Measured over all bars: zstd makes files 6 % smaller that take 45 % longer to write and 35 % longer to read.
    # Footers are read for every question, so they hold the statistics that prune and no more.
    pq.write_table(
        rows,
        sink,
        compression="lz4",
        use_dictionary=[name for name in rows.column_names if name not in doubles + rising],
        column_encoding=dict.fromkeys(doubles, "BYTE_STREAM_SPLIT") | dict.fromkeys(rising, "DELTA_BINARY_PACKED"),
        write_statistics=rising[:2],
        store_schema=False,
        row_group_size=1 << 20,
    )
    content = sink.getvalue()
    version = hashlib.sha256(content).hexdigest()[:16]
    path = folder / f"{name}.{version}.parquet"
    if path.exists():
        os.utime(path)  # it may have been superseded and is about to be used again: start its grace period anew
    else:
        write_durably(path, content)
    return ServedFile(table, str(path), rows.num_rows, content.size)
