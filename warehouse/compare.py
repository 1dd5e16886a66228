"""Comparing the layers row for row: raw zone with warehouse, warehouse with serving."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb

from ingestion.errors import UsageError
from ingestion.raw_zone import RawZone
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone
from warehouse.engine import connect, text, writing
from warehouse.served_files import BARS
from warehouse.serving import served_files

_KEY = ("symbol", '"interval"', "open_time")
_RAW_COLUMNS = (
    *("close_time", "open", "high", "low", "close", "volume", "quote_volume", "trades"),
    *("taker_buy_base_volume", "taker_buy_quote_volume", "source", "ingested_at"),
)
_NOT_DOUBLES = (*_KEY, "close_time", "trades", "source", "ingested_at")
_INDICATORS = ("sma_20", "ema_50", "rsi_14", "macd", "macd_signal", "bb_upper", "bb_middle", "bb_lower")


@dataclass(frozen=True)
class Difference:
    """One month of a series in which two layers differ: rows that only one of them has, or that are not equal."""

    layers: str
    symbol: str
    interval: str
    month: str
    only_left: int
    only_right: int
    unequal: int
    first_open_time: datetime


@dataclass(frozen=True)
class Comparison:
    """Rows of each layer, and where they differ."""

    raw_rows: int
    warehouse_rows: int
    serving_rows: int
    differences: tuple[Difference, ...]


def compare_layers(settings: Settings) -> Comparison:
    """Compare every row of the three layers; nothing is changed. Raises WarehouseBusy, and UsageError on BigQuery."""
    if settings.target != "duckdb":
        raise UsageError(
            "`klinehouse check` compares the layers of one machine.",
            "`klinehouse parity` compares the tables of BigQuery with a build on DuckDB of the same raw files.",
        )
    zone = RawZone(settings.raw_root)
    raw_files = [file.path for file in zone.history_files(settings.interval)]
    stream_files = [file.path for file in StreamZone(settings.raw_root).files()]
    served = sorted({file.path for file in served_files(settings) if file.table_name == BARS})
    with writing(settings), connect(settings) as connection:
        connection.execute(f"create temp view raw_bars as {_raw(raw_files, stream_files)}")
        columns = (*_RAW_COLUMNS, *_INDICATORS)
        connection.execute(f"create temp view served_bars as {_parquet(served, columns)}")
        connection.execute(
            f"create temp view bars as select {', '.join((*_KEY, *columns))} from crypto_analytics.{BARS}"
        )
        found = [
            *_differences(connection, "raw / warehouse", "raw_bars", "bars", _RAW_COLUMNS, settings.interval),
            *_differences(connection, "warehouse / serving", "bars", "served_bars", columns, None),
        ]
        raw, warehouse, serving = (_count(connection, name) for name in ("raw_bars", "bars", "served_bars"))
        return Comparison(raw, warehouse, serving, tuple(found))


def _raw(history: Sequence[str], streamed: Sequence[str]) -> str:
    """The landed rows, and of those that came by stream what staging takes: not what history has, the latest each."""
    landed = _parquet(history, _RAW_COLUMNS)
    if not streamed:
        return landed
    key = ", ".join(_KEY)
    return f"""with landed as ({landed}), streamed as ({_parquet(streamed, _RAW_COLUMNS)})
        from landed union all by name
        from (from streamed anti join landed using ({key}))
        qualify row_number() over (partition by {key} order by source, ingested_at desc) = 1"""


def _parquet(paths: Sequence[str], columns: Sequence[str]) -> str:
    names = [*_KEY, *columns]
    if not paths:
        return f"select {', '.join(names)} from crypto_analytics.{BARS} where false"
    listed = ", ".join(text(path) for path in paths)
    # Raw prices are decimals; the warehouse has them in double precision.
    values = [name if name in _NOT_DOUBLES else f"cast({name} as double) as {name}" for name in names]
    return f"select {', '.join(values)} from read_parquet([{listed}])"


def _differences(
    connection: duckdb.DuckDBPyConnection,
    layers: str,
    left: str,
    right: str,
    columns: Sequence[str],
    interval: str | None,
) -> list[Difference]:
    where = f"""where "interval" = {text(interval)}""" if interval else ""
    row = f"hash({', '.join(columns)})"
    rows = connection.execute(
        f"""with l as (select symbol, "interval", open_time, {row} as row from {left} {where}),
            r as (select symbol, "interval", open_time, {row} as row from {right} {where})
        select symbol, "interval", strftime(open_time, '%Y-%m') as month,
            count(*) filter (where r.row is null), count(*) filter (where l.row is null),
            count(*) filter (where l.row is not null and r.row is not null), min(open_time)
        from l full join r using (symbol, "interval", open_time)
        where l.row is distinct from r.row
        group by all order by all"""
    ).fetchall()
    return [Difference(layers, *found) for found in rows]


def _count(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    counted = connection.execute(f"select count(*) from {name}").fetchone()
    return int(counted[0]) if counted else 0
