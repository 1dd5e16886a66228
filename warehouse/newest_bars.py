"""The file of the newest bars, of all series together: those that have closed since the months' files were written.

Two write it anew: who has computed bars into the warehouse, and who shows bars that are not there yet.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import duckdb
import pyarrow as pa

from ingestion.grid import micros
from ingestion.klines import INSTANT, Series
from ingestion.settings import Settings
from warehouse.engine import registered, text
from warehouse.served_files import BARS, ServedFile, write_versioned

_IN_ORDER = 'order by symbol, "interval", open_time'


def write_newest(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    written_until: Mapping[Series, datetime],
    shown: Sequence[ServedFile] = (),
) -> list[ServedFile]:
    """Write the bars of these series that open later than what their months' files have, and after them those of the
    `shown` file of newest bars that the warehouse does not have yet."""
    in_table = f"""select bars.* from crypto_analytics.{BARS} as bars
        inner join written
            on bars.symbol = written.symbol and bars."interval" = written."interval"
            and bars.open_time > written.until
        where bars.open_time > timestamptz '{min(written_until.values())}'"""
    with registered(connection, "written", _as_table(written_until)):
        if shown:
            rows = connection.sql(f"""with in_table as ({in_table}), known as (
                select written.symbol, written."interval", greatest(written.until, max(in_table.open_time)) as until
                from written
                left join in_table
                    on written.symbol = in_table.symbol and written."interval" = in_table."interval"
                group by written.symbol, written."interval", written.until
            )
            select * from in_table
            union all by name
            select shown.* from read_parquet({text(shown[0].path)}) as shown
            inner join known
                on shown.symbol = known.symbol and shown."interval" = known."interval"
                and shown.open_time > known.until
            {_IN_ORDER}""").to_arrow_table()
        else:
            rows = connection.sql(f"{in_table} {_IN_ORDER}").to_arrow_table()
    return _written(connection, settings, rows)


def add_to_newest(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    newest: Sequence[ServedFile],
    fresh: pa.Table,
    served_until: Mapping[Series, datetime],
) -> list[ServedFile]:
    """Write the `newest` file with bars of `fresh`, rows of the main table, that are later than what is served of their
    series. (A build of history may have published the same bars meanwhile, from the raw zone.)"""
    before = f"select * from read_parquet({text(newest[0].path)}) union all by name" if newest else ""
    with registered(connection, "fresh", fresh), registered(connection, "served", _as_table(served_until)):
        rows = connection.sql(f"""{before} select fresh.* from fresh
            left join served on fresh.symbol = served.symbol and fresh."interval" = served."interval"
            where served.until is null or fresh.open_time > served.until
            {_IN_ORDER}""").to_arrow_table()
    return _written(connection, settings, rows)


def _written(connection: duckdb.DuckDBPyConnection, settings: Settings, rows: pa.Table) -> list[ServedFile]:
    if not rows.num_rows:
        return []
    file = write_versioned(settings.serving_dir / "crypto_analytics" / BARS, "newest", rows, BARS)
    with registered(connection, "newest", rows):
        extents = connection.execute(
            'select symbol, "interval", count(*), min(open_time), max(close_time) from newest group by all'
        ).fetchall()
    return [
        ServedFile(BARS, file.path, count, file.bytes * count // file.rows, symbol, interval, None, first, last)
        for symbol, interval, count, first, last in extents
    ]


def _as_table(until: Mapping[Series, datetime]) -> pa.Table:
    return pa.table(
        {
            "symbol": [series.symbol for series in until],
            "interval": [series.interval for series in until],
            "until": pa.array([micros(at) for at in until.values()], pa.int64()).cast(INSTANT),
        }
    )
