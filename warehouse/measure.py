"""Questions about the warehouse's content: rows per month, holes against the grid, the newest bar."""

from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from ingestion.klines import INTERVAL_MICROS, Month

_BARS = "crypto_analytics.market_data_unified"


@dataclass(frozen=True)
class SeriesExtent:
    """A series against the grid of its interval: `missing` bars lie between its first and its last one."""

    symbol: str
    interval: str
    bars: int
    missing: int
    first_open_time: datetime
    last_close_time: datetime


def bars_by_month(connection: duckdb.DuckDBPyConnection, start: datetime, end: datetime) -> dict[Month, int]:
    """Rows of all series per month that opens in `[start, end)`."""
    rows = connection.execute(
        f"""select date_trunc('month', open_time), count(*) from {_BARS}
        where open_time >= ? and open_time < ? group by 1""",
        [start, end],
    ).fetchall()
    return {Month.containing(month.astimezone(UTC).date()): count for month, count in rows}


def row_count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    """Rows of a table of the analytics schema."""
    counted = connection.execute(f"select count(*) from crypto_analytics.{table}").fetchone()
    return int(counted[0]) if counted else 0


def latest_bars(
    connection: duckdb.DuckDBPyConnection, symbol: str, interval: str, before: datetime, count: int = 288
) -> pa.Table:
    """The last `count` bars of a series that open before `before`, in order of time."""
    return connection.sql(
        f"""select * from (
            select * from {_BARS} where symbol = ? and "interval" = ? and open_time < ? order by open_time desc limit ?
        ) order by open_time""",
        params=[symbol, interval, before, count],
    ).to_arrow_table()


def extents(connection: duckdb.DuckDBPyConnection, interval: str) -> list[SeriesExtent]:
    """Every series of `interval` with its holes against the grid."""
    length = INTERVAL_MICROS[interval]
    rows = connection.execute(
        f"""select symbol, "interval", count(*),
            cast((epoch_us(max(open_time)) - epoch_us(min(open_time))) // ? + 1 - count(*) as bigint),
            min(open_time), max(close_time)
        from {_BARS} where "interval" = ? group by 1, 2 order by 1, 2""",
        [length, interval],
    ).fetchall()
    return [SeriesExtent(*row) for row in rows]


def holes_by_month(connection: duckdb.DuckDBPyConnection, interval: str) -> list[tuple[str, str, int]]:
    """Symbol, month and number of missing bars, for each month in which a series has fewer bars than the grid."""
    length = INTERVAL_MICROS[interval]
    return connection.execute(
        f"""with steps as (
            select symbol, open_time,
                (epoch_us(open_time) - epoch_us(lag(open_time) over (partition by symbol order by open_time))) // ? - 1
                    as missing
            from {_BARS} where "interval" = ?
        )
        select symbol, strftime(open_time, '%Y-%m'), cast(sum(missing) as bigint)
        from steps where missing > 0 group by 1, 2 order by 1, 2""",
        [length, interval],
    ).fetchall()
