"""Figures of a warehouse on BigQuery: bytes, and dollars a month. Nothing is measured here, or asked of Google."""

from collections.abc import Iterable

from benchmarks.bigquery_layout import prices
from benchmarks.bigquery_layout.prices import DAYS_PER_MONTH, EUR_PER_USD, GIB, TIB
from benchmarks.bigquery_layout.scans import (
    STREAMING_RUNS,
    TIDYINGS,
    Layout,
    Statement,
    daily_increment,
    dimensions,
    handed_over,
    history_refresh,
    live_increments,
    question,
    tidying,
)
from ingestion.messages import KlineMessage, encode

CASES = (Layout(3, "5m"), Layout(3, "1m"), Layout(600, "5m"), Layout(600, "1m"))
BACKFILL = Layout(600, "1m", years=9)
REPLACED_EUR = 145
MINUTES = 5

# Of 61,920 real klines (BTCUSDT, 5m, 2024-07 to 2025-01): a file of the raw zone, and the archive's zip.
_PARQUET_ROW, _ZIP_ROW = 46.8, 52.3
# docs/benchmarks.md: landing 209 files of 9,147,960 rows at 1m, on two cores.
_LANDED_ROWS, _LANDED_SECONDS, LANDED_MB = 9_147_960, 20.433, 495.8
# As in warehouse/bigquery/load.py.
FILES_PER_LOAD = 5_000
# A Dagster run starts in 10 to 15 s; eight of them at a time, and a line of 100 Mbit/s.
_RUN_SECONDS, AT_A_TIME, _BYTES_PER_SECOND = 15, 8, 100e6 / 8
_STREAMED_YEARS = 1.0
HOURS = 730.5
_LEAST_REQUEST = 1000
_KEPT_DAYS = 6  # of the seven that the monitoring subscription keeps what nobody acknowledges, the first is free

_SAMPLE = KlineMessage(
    symbol="BTCUSDT",
    interval="5m",
    open_time=1735689300000000,
    close_time=1735689599999999,
    open="93576.00000000",
    high="93702.15000000",
    low="93489.03000000",
    close="93656.18000000",
    volume="118.24913000",
    quote_volume="11068271.21381640",
    trades=17448,
    taker_buy_base_volume="57.06173000",
    taker_buy_quote_volume="5341189.05918310",
    source="stream",
    event_time=1735689600004000,
    received_time=1735689600010123,
)


def figures(layout: Layout, minutes: int = MINUTES) -> dict[str, float]:
    """All figures of one warehouse: bytes, and dollars a month as `usd_*`."""
    live = [statement for one in live_increments(layout, minutes) for statement in one]
    live += STREAMING_RUNS * handed_over(layout) + TIDYINGS * tidying(layout)
    daily, refresh, dimension = daily_increment(layout), history_refresh(layout), dimensions(layout)
    billed = _billed(live) + _billed(refresh) + _billed(dimension)
    stored, recent = _stored(layout)
    raw_month = layout.raw_day() * DAYS_PER_MONTH
    found = {
        "raw_rows_per_day": layout.raw_rows_per_day,
        "mart_rows_per_day": layout.mart_rows_per_day,
        "raw_bytes_per_row": layout.raw_day() / layout.raw_rows_per_day,
        "mart_bytes_per_row": layout.mart_day() / layout.mart_rows_per_day,
        "raw_bytes_per_month": raw_month,
        "mart_bytes_per_month": layout.mart_day() * DAYS_PER_MONTH,
        "stored_bytes": stored,
        "daily_increment_read": _read(daily),
        "daily_increment_billed": _billed(daily),
        "live_increments": float(1440 // minutes),
        "live_read_per_day": _read(live),
        "live_billed_per_day": _billed(live),
        "refresh_billed_per_day": _billed(refresh),
        "dimensions_billed_per_day": _billed(dimension),
        "question_billed": question(layout).bytes_billed,
        "billed_per_month": billed * DAYS_PER_MONTH,
        "usd_queries": prices.QUERY.of(billed * DAYS_PER_MONTH / TIB),
        "usd_storage": prices.ACTIVE.of(recent / GIB) + prices.LONG_TERM.of((stored - recent) / GIB),
        "usd_bucket": prices.BUCKET.of(layout.raw_rows_per_day * 365.25 * layout.years * _PARQUET_ROW / GIB),
        "usd_storage_write": prices.STORAGE_WRITE.of(raw_month / GIB),
        "usd_pubsub": _pubsub(layout),
        "usd_collector": prices.E2_SMALL.of(HOURS),
        "usd_dagster": prices.E2_MEDIUM.of(HOURS),
    }
    found["usd_storage_after_backfill"] = prices.ACTIVE.of(stored / GIB)
    counted = [value for name, value in found.items() if name.startswith("usd_") and not name.endswith("_backfill")]
    return found | {"eur_total": sum(counted) * EUR_PER_USD}


def collector_on_cloud_run() -> float:
    """Dollars a month of one vCPU and 512 MiB that are always there."""
    return prices.CLOUD_RUN_CPU.of(HOURS * 3600) + prices.CLOUD_RUN_MEMORY.of(HOURS * 3600 / 2)


def message_bytes() -> int:
    """Bytes of one closed kline on the bus, attributes included."""
    message = encode(_SAMPLE)
    return len(message.data) + sum(len(name) + len(value) for name, value in message.attributes.items())


def backfill(layout: Layout) -> dict[str, float]:
    """What it takes to land all of history and build it once, if every symbol existed from the first day on."""
    rows = layout.raw_rows_per_day * 365.25 * layout.years
    mart = layout.mart_day() * 365.25 * layout.years
    months = layout.years * 12
    per_load = FILES_PER_LOAD // layout.symbols
    raw = layout.raw_day() * 365.25 * layout.years
    return {
        "bars": rows,
        "mart_rows": layout.mart_rows_per_day * 365.25 * layout.years,
        "files": layout.symbols * months,
        "zip_bytes": rows * _ZIP_ROW,
        "parquet_bytes": rows * _PARQUET_ROW,
        "raw_bytes": raw,
        "mart_bytes": mart,
        "rows_per_symbol": rows / layout.symbols,
        "seconds_per_symbol": rows / layout.symbols / (_LANDED_ROWS / _LANDED_SECONDS),
        "runs_seconds": layout.symbols
        * (_RUN_SECONDS + rows / layout.symbols * _LANDED_SECONDS / _LANDED_ROWS)
        / AT_A_TIME,
        "fetch_seconds": rows * _ZIP_ROW / _BYTES_PER_SECOND,
        "load_jobs": float(-(-months // per_load)),
        "days_per_load": per_load * DAYS_PER_MONTH,
        "days": 365.25 * layout.years,
        # Staging is read once, and raw once more for the first build.
        "usd_load": prices.QUERY.usd * raw / TIB,
        "usd_first_build": prices.QUERY.usd * raw / TIB,
        # All again over a table that is there: raw, what was made (twice), and the old partitions, read and replaced.
        "rebuild_bytes": raw + 4 * mart,
        "years_per_rebuild": (TIB / (4 * mart)) * layout.years,
    }


def _read(statements: Iterable[Statement]) -> float:
    return sum(statement.bytes_read for statement in statements)


def _billed(statements: Iterable[Statement]) -> float:
    return sum(statement.bytes_billed for statement in statements)


def _stored(layout: Layout) -> tuple[float, float]:
    """Logical bytes of history, its bars and a year of streamed klines; and those of the last 90 days."""
    day = layout.raw_day() + layout.mart_day()
    stored = 365.25 * (layout.years * day + _STREAMED_YEARS * layout.raw_day())
    return stored, 90 * (day + layout.raw_day())


def _pubsub(layout: Layout) -> float:
    """Every message alone in its request, a pull each second that finds nothing, and what nobody listens to."""
    messages = layout.raw_rows_per_day * DAYS_PER_MONTH
    requests = 2 * messages * max(message_bytes(), _LEAST_REQUEST) + 86_400 * DAYS_PER_MONTH * _LEAST_REQUEST
    kept = layout.raw_rows_per_day * _KEPT_DAYS * message_bytes()
    return prices.THROUGHPUT.of(requests / GIB) + prices.KEPT_MESSAGES.of(kept / GIB)
