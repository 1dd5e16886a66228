"""What dbt sees of the raw zone on DuckDB: `crypto_raw.klines` and `crypto_raw.klines_coverage`.

On DuckDB the first is a view over exactly the Parquet files that a run's window needs, so a run on one month costs the
same however many months have landed.
"""

from collections.abc import Sequence
from datetime import datetime

import duckdb

from ingestion.errors import ConfigurationError
from ingestion.klines import Month
from ingestion.raw_zone import HistoryFile, RawZone
from warehouse.engine import text

_EMPTY_KLINES = """
    select null::varchar as symbol, null::varchar as "interval", null::timestamptz as open_time,
        null::timestamptz as close_time, null::decimal(28, 8) as open, null::decimal(28, 8) as high,
        null::decimal(28, 8) as low, null::decimal(28, 8) as close, null::decimal(28, 8) as volume,
        null::decimal(28, 8) as quote_volume, null::bigint as trades, null::decimal(28, 8) as taker_buy_base_volume,
        null::decimal(28, 8) as taker_buy_quote_volume, null::varchar as source, null::timestamptz as ingested_at
    where false
"""


def prepare(connection: duckdb.DuckDBPyConnection, zone: RawZone, interval: str, months: Sequence[Month]) -> None:
    """Point the raw source of dbt at the landed files of `months`, and make the schemas that a run writes to."""
    files = zone.history_files(interval=interval, months=months)
    _refuse_other_base(connection, interval)
    for schema in ("crypto_raw", "crypto_analytics", "bookkeeping"):
        connection.execute(f"create schema if not exists {schema}")
    connection.execute(
        """create table if not exists bookkeeping.unpublished
        (symbol varchar not null, "interval" varchar not null, month_start timestamptz not null, invocation varchar)"""
    )
    connection.execute(f"create or replace view crypto_raw.klines as {_klines(files)}")
    _replace_coverage(connection, zone, files)


def _refuse_other_base(connection: duckdb.DuckDBPyConnection, interval: str) -> None:
    """One warehouse grows from one interval: bars rolled up from two would meet in the same rows."""
    try:
        built = connection.execute('select distinct "interval" from crypto_raw.klines_coverage').fetchall()
    except duckdb.CatalogException:
        return
    for (base,) in built:
        if base != interval:
            raise ConfigurationError(
                f"This home's warehouse is built from {base}, not from {interval}.",
                f"Set KLINEHOUSE_INTERVAL={base}, or KLINEHOUSE_HOME to another folder.",
            )


def _klines(files: Sequence[HistoryFile]) -> str:
    if not files:
        return _EMPTY_KLINES
    paths = ", ".join(text(file.path) for file in files)
    return f"select * from read_parquet([{paths}], hive_partitioning = false)"


def _replace_coverage(connection: duckdb.DuckDBPyConnection, zone: RawZone, files: Sequence[HistoryFile]) -> None:
    newest = {file.series: file for file in files}  # files are ordered by month
    rows: list[tuple[str, str, datetime]] = []
    for series, file in newest.items():
        provenance = zone.provenance(series, file.month)
        if provenance is not None:
            rows.append((series.symbol, series.interval, provenance.covered_until))
    connection.execute(
        """create or replace table crypto_raw.klines_coverage
        (symbol varchar, "interval" varchar, covered_until timestamptz)"""
    )
    if rows:
        connection.executemany("insert into crypto_raw.klines_coverage values (?, ?, ?)", rows)
