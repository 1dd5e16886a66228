"""Serving: questions to the published version of three symbols x 5m x 2020-2025 with all derived intervals.

All are medians over a plain DuckDB connection on `serving/klinehouse.duckdb`, as a BI tool or a notebook holds it open.
`month_ms`: every column of BTCUSDT 5m in March 2024 (8,928 rows) as an Arrow table. `aggregate_ms`: bars, lowest low,
highest high, volume and mean close per symbol over all 5m bars. `open_ms`: opening the connection and asking for the
newest close of one daily series. `sandboxed_month_ms` is the first question through `warehouse.serving.reading`, which
`klinehouse query` uses: opening included, and each path checked against what it may read.

What bounds it: a month, planning (each path of the view is looked up) and opening footers; an aggregate, decoding.
Tried: one branch of the view per year, so that other years are pruned while planning; lz4 instead of zstd (files 6 %
larger, and a third less to read); statistics only where they prune.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

from benchmarks.measuring import END, START, SYMBOLS, klinehouse, measured, options, ready_archive, report
from ingestion.settings import load_settings
from warehouse.serving import reading
from warehouse.views import VIEW_FILE

REPEATS = 15
MONTH = """select * from market_data_unified where symbol = 'BTCUSDT' and "interval" = '5m'
    and open_time >= timestamptz '2024-03-01 00:00:00+00' and open_time < timestamptz '2024-04-01 00:00:00+00'"""
AGGREGATE = """select symbol, count(*), min(low), max(high), sum(volume), avg(close)
    from market_data_unified where "interval" = '5m' group by symbol"""
NEWEST = """select max_by(close, open_time) from market_data_unified where symbol = 'BTCUSDT' and "interval" = '1d'"""


def queries() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        with ready_archive("5m") as address:
            settings = {"KLINEHOUSE_HOME": folder, "KLINEHOUSE_ARCHIVE_URL": address}
            settings |= {"KLINEHOUSE_SYMBOLS": ",".join(SYMBOLS)}
            measured(klinehouse("land", "--json", "--start", START.isoformat(), "--end", END.isoformat()), settings)
            measured(klinehouse("build", "--json"), settings)
        return _ask(Path(folder))


def _ask(home: Path) -> dict[str, object]:
    settings = load_settings(home=home)

    def opened() -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(settings.serving_dir / VIEW_FILE, read_only=True)
        connection.execute("use crypto_analytics")
        return connection

    def newest() -> None:
        with opened() as connection:
            connection.execute(NEWEST).fetchall()

    def sandboxed() -> None:
        with reading(settings) as connection:
            connection.sql(MONTH).to_arrow_table()

    with opened() as connection:
        rows = connection.sql(AGGREGATE).fetchall()
        figures: dict[str, object] = {
            "rows": sum(row[1] for row in rows),
            "month_rows": connection.sql(MONTH).to_arrow_table().num_rows,
            "month_ms": _median_ms(lambda: connection.sql(MONTH).to_arrow_table()),
            "aggregate_ms": _median_ms(lambda: connection.sql(AGGREGATE).fetchall()),
        }
    return figures | {"open_ms": _median_ms(newest), "sandboxed_month_ms": _median_ms(sandboxed)}


def _median_ms(ask: Callable[[], object]) -> float:
    def once() -> float:
        begin = time.perf_counter()
        ask()
        return time.perf_counter() - begin

    return round(statistics.median(once() for _ in range(REPEATS)) * 1000, 1)


def main() -> None:
    parser = options(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    chosen = parser.parse_args()
    report("Querying", queries(), chosen)


if __name__ == "__main__":
    main()
