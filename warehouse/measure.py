"""Questions about the warehouse's content: rows per month, gaps, the newest bars."""

from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from ingestion.klines import Month

_BARS = "crypto_analytics.market_data_unified"


@dataclass(frozen=True)
class Gap:
    """Bars of the base interval that are missing between two others; `verdict` is as in klines_gaps."""

    symbol: str
    first_missing_open_time: datetime
    resumed_at: datetime
    missing_bars: int
    verdict: str


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


def newest_closes(connection: duckdb.DuckDBPyConnection, interval: str) -> dict[str, datetime]:
    """By symbol, when the newest bar of `interval` closed."""
    rows = connection.execute(
        f"""select symbol, max(close_time) from {_BARS} where "interval" = ? group by 1 order by 1""", [interval]
    ).fetchall()
    return dict(rows)


def gaps(connection: duckdb.DuckDBPyConnection) -> list[Gap]:
    """Every gap, in order of symbol and time."""
    rows = connection.execute(
        """select symbol, first_missing_open_time, resumed_at, missing_bars, verdict
        from crypto_analytics.int_klines_gaps order by symbol, resumed_at"""
    ).fetchall()
    return [Gap(*row) for row in rows]
