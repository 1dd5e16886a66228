"""Questions about the warehouse's content, as in warehouse/measure.py, asked of BigQuery for few bytes.

The main table is never read without a filter of its partitions, and never more of its columns than are needed. What is
billed is bounded by the client's own default.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from google.cloud import bigquery
from google.cloud.bigquery import QueryJobConfig, ScalarQueryParameter

from ingestion.klines import INTERVAL_MICROS, Month
from warehouse.bigquery.client import ANALYTICS, RAW, explained, labels
from warehouse.measure import Gap

_BARS = f"{ANALYTICS}.market_data_unified"
# Bars of this time are read to see how new a series is.
_RECENT = timedelta(days=7)
_CHART = "open_time, close, sma_20, ema_50, rsi_14, macd, macd_signal, bb_upper, bb_lower"


def bars_by_month(client: bigquery.Client, start: datetime, end: datetime) -> dict[Month, int]:
    """Rows of all series per month that opens in `[start, end)`; reads 8 bytes per row."""
    rows = _rows(
        client,
        f"""select timestamp_trunc(open_time, month), count(*) from {_BARS}
        where open_time >= @start and open_time < @end group by 1""",
        [_instant("start", start), _instant("end", end)],
        "bars by month",
    )
    return {Month.containing(month.date()): count for month, count in rows}


def row_count(client: bigquery.Client, table: str) -> int:
    """Rows of a table of the analytics dataset; reads nothing, as BigQuery knows them."""
    return int(_rows(client, f"select count(*) from {ANALYTICS}.{table}", [], "row count")[0][0])


def latest_bars(client: bigquery.Client, symbol: str, interval: str, before: datetime, count: int = 288) -> pa.Table:
    """The last `count` bars of a series that open before `before`, in order of time: those of the month before it and
    of as long as they are themselves, with what a chart shows of them."""
    length = timedelta(microseconds=INTERVAL_MICROS[interval] or 0)
    parameters = [
        ScalarQueryParameter("symbol", "STRING", symbol),
        ScalarQueryParameter("interval", "STRING", interval),
        _instant("since", before - timedelta(days=31) - count * length),
        _instant("before", before),
    ]
    sql = f"""select {_CHART} from {_BARS}
        where symbol = @symbol and `interval` = @interval and open_time >= @since and open_time < @before
        order by open_time desc limit {count}"""
    rows = reversed(_rows(client, sql, parameters, "newest bars"))
    names = _CHART.split(", ")
    return pa.table([*zip(*rows, strict=True)] or [()] * len(names), names)


def newest_closes(client: bigquery.Client, interval: str) -> dict[str, datetime]:
    """By symbol, when the newest bar of `interval`, the base interval, closed. Of a symbol without a bar in the last
    week it is the last instant at which there may have been one, by what is known of its sources."""
    rows = _rows(
        client,
        f"""with recent as (
            select symbol, max(close_time) as newest from {_BARS}
            where `interval` = @interval and open_time >= @since group by symbol
        ),
        told as (
            select symbol, max(covered_until) as until from {RAW}.klines_coverage where `interval` = @interval
            group by symbol
        )
        select symbol, coalesce(recent.newest, least(told.until, @since))
        from told full outer join recent using (symbol) order by symbol""",
        [ScalarQueryParameter("interval", "STRING", interval), _instant("since", datetime.now(UTC) - _RECENT)],
        "newest bars of series",
    )
    return dict(rows)


def gaps(client: bigquery.Client) -> list[Gap]:
    """Every gap, in order of symbol and time."""
    rows = _rows(
        client,
        f"""select symbol, first_missing_open_time, resumed_at, missing_bars, verdict
        from {ANALYTICS}.int_klines_gaps order by symbol, resumed_at""",
        [],
        "gaps",
    )
    return [Gap(*row) for row in rows]


def _instant(name: str, at: datetime) -> ScalarQueryParameter:
    return ScalarQueryParameter(name, "TIMESTAMP", at)


def _rows(
    client: bigquery.Client, sql: str, parameters: Sequence[ScalarQueryParameter], purpose: str
) -> list[tuple[Any, ...]]:
    config = QueryJobConfig(query_parameters=list(parameters), labels=labels(purpose))
    with explained(purpose):
        return [tuple(row.values()) for row in client.query(sql, job_config=config).result()]
