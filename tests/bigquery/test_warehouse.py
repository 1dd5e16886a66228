"""The warehouse on BigQuery from the first landed month to live bars, beside DuckDB over the same files.

Each test is a step that goes on from the one before: a run of dbt takes seconds on the emulator, however few rows.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support.bigquery_home import Cloud
from support.bigquery_jobs import catalog_of, executed, named_without
from support.bigquery_live import computed as compute_pending
from support.command import answer
from support.googlesql import GoogleSql, analyze_all
from support.homes import build_window, compute_tables, home, put, random_walk
from support.object_store import BUCKET
from support.partitions import Scan, scans
from support.raw_zones import remove
from support.streamed import streamed

from ingestion.klines import INTERVAL_MICROS, Series
from ingestion.raw_zone import RawZone
from ingestion.settings import Settings
from ingestion.simulator.server import build_app, running
from ingestion.stream_zone import StreamZone
from warehouse import dbt
from warehouse.bigquery.client import ANALYTICS, opened
from warehouse.bigquery.live import LiveBigQuery
from warehouse.build import changed_months, prepared
from warehouse.build import stretches as windows_of
from warehouse.parity import KEYS, compare_engines
from warehouse.serving import publish

pytestmark = pytest.mark.bigquery

HOUR = timedelta(hours=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
MARCH = datetime(2024, 3, 1, tzinfo=UTC)
# History ends where this day begins; the stream tells of the day, and then history does.
DAY = datetime(2024, 3, 20, tzinfo=UTC)
END = DAY + timedelta(days=1)

# Landed by the command from the simulated exchange; with holes, of which history brings one later; listed within March;
# and one of which a month goes.
LANDED, HOLED, LISTED, GONE = (Series(symbol, "1h") for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "LTCUSDT"))
HOLES = {"late": range(200, 230), "for ever": range(1100, 1117)}
LISTED_AT = datetime(2024, 3, 9, 13, tzinfo=UTC)
DIFFERENT, ONLY_STREAMED = DAY + 3 * HOUR, DAY + 5 * HOUR

BARS = random_walk(HOLED, START, (END - START) // HOUR, seed=2)
LISTED_BARS = random_walk(LISTED, LISTED_AT, (END - LISTED_AT) // HOUR, seed=3, price=20.0)
GONE_BARS = random_walk(GONE, START, 24 * 31, seed=4, price=70.0)

_MODELS = "stg_klines market_data_unified int_klines_gaps int_bars_of_days klines_reconciliation"
"""What depends on history of a window; all else is made by the full build, and by the last one."""


# Views are as large as what they read.
VIEWS = ("stg_klines", "market_data_live")
TABLES = ("market_data_unified", "klines", "klines_stream", *VIEWS)
# Every day that could have bars before the end, so that a condition without a beginning is seen.
KNOWN_DAYS = [date(2015, 1, 1) + timedelta(days) for days in range((END.date() - date(2015, 1, 1)).days)]
_REACH = 1536


def is_outside(scan: Scan) -> bool:
    """Whether a scan reads more than the window and what the averages remember before it, of its own interval."""
    before = _REACH * timedelta(microseconds=INTERVAL_MICROS[scan.interval] or 0) if scan.interval else timedelta()
    return not scan.days <= {day for day in KNOWN_DAYS if day >= (DAY - before).date()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of the home that has been there all the time."""
    path = tmp_path_factory.mktemp("home")
    return {"path": path, "raw_url": f"gs://{BUCKET}/raw", "interval": "1h", "symbols": "BTCUSDT,ETHUSDT,SOLUSDT"}


@pytest.fixture
def settings(cloud: Cloud, place: dict[str, Any]) -> Settings:
    return home(**place)


def without(rows: pa.Table, *names: str) -> pa.Table:
    gone = [START + position * HOUR for name in names for position in HOLES[name]]
    return rows.filter(pc.invert(pc.is_in(rows["open_time"], pa.array(gone, rows["open_time"].type))))


def within(rows: pa.Table, start: datetime, end: datetime) -> pa.Table:
    times = rows["open_time"]
    return rows.filter(pc.and_(pc.greater_equal(times, start), pc.less(times, end)))


def compute_changed(settings: Settings) -> list[tuple[date, date]]:
    """Run the models over what changed in the raw zone, without tests; the windows, as days."""
    windows = windows_of(changed_months(settings))
    for window in windows:
        with prepared(settings, window) as succeeded:
            args = dbt.build_args(window, settings.interval, select=_MODELS)
            dbt.run(settings, ["--no-write-json", *args, "--resource-type", "model"])
            succeeded()
    return [(window.start.date(), window.end.date()) for window in windows]


def told(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    with opened(settings) as warehouse:
        return warehouse.run(sql, purpose="test")


def newest(settings: Settings, table: str, series: Series) -> datetime:
    ((found,),) = told(
        settings,
        f"select max(open_time) from {ANALYTICS}.{table} where symbol = '{series.symbol}' and `interval` = '1h' "
        f"and open_time >= timestamp '{START}'",
    )
    assert isinstance(found, datetime)
    return found


def bars_of_day(settings: Settings, table: str) -> dict[tuple[Any, ...], tuple[Any, Any]]:
    """Of each bar of the streamed day its numbers, and its source."""
    rows = told(
        settings,
        "select symbol, open_time, source, close, sma_20, ema_50, rsi_14, macd, macd_signal, bb_upper, bb_middle, "
        f"bb_lower, hour, day_of_week, month from {ANALYTICS}.{table} "
        f"where `interval` = '1h' and open_time >= timestamp '{DAY}'",
    )
    return {row[:2]: (row[3:], row[2]) for row in rows}


# --- the steps ---------------------------------------------------------------------------------------------------


def test_landed_months_are_loaded_and_built(settings: Settings) -> None:
    with running(build_app(seed=1, now=DAY)) as exchange:
        place = {"home": str(settings.home), "raw_url": settings.raw_root, "archive_url": exchange, "target": "duckdb"}
        landed = answer("land", "--start", "2024-01", "--end", "2024-04", **place, symbols="BTCUSDT", interval="1h")
    assert [one["rows"] for one in landed["series"]] == [(DAY - START) // HOUR]
    put(settings, HOLED, within(without(BARS, *HOLES), START, MARCH))
    put(settings, GONE, GONE_BARS)
    compute_tables(settings)
    counted = told(
        settings,
        f"select symbol, count(*) from {ANALYTICS}.market_data_unified "
        f"where `interval` = '1h' and open_time >= timestamp '{START}' group by 1 order by 1",
    )
    assert counted == [
        ("BTCUSDT", (DAY - START) // HOUR),
        ("ETHUSDT", (MARCH - START) // HOUR - sum(map(len, HOLES.values()))),
        ("LTCUSDT", GONE_BARS.num_rows),
    ]


def test_a_month_that_is_repaired_and_one_that_goes_are_computed_again(settings: Settings) -> None:
    before = dict(told(settings, _EMA_AFTER))
    put(settings, HOLED, within(BARS, START, START + timedelta(31)))
    (gone,) = (file for file in RawZone(settings.raw_root).history_files() if file.series == GONE)
    remove(gone.path)
    assert compute_changed(settings) == [(date(2024, 1, 1), date(2024, 2, 1))]
    after = dict(told(settings, _EMA_AFTER))
    assert set(after) == {"BTCUSDT", "ETHUSDT"}
    assert after["BTCUSDT"] == before["BTCUSDT"]
    assert after["ETHUSDT"] != before["ETHUSDT"]


_EMA_AFTER = (
    f"select symbol, max(if(open_time = timestamp '{START + 240 * HOUR}', ema_50, null)) "
    f"from {ANALYTICS}.market_data_unified where `interval` = '1h' and open_time >= timestamp '{START}' group by symbol"
)


def test_a_month_is_added_with_a_symbol_that_is_listed_within_it(settings: Settings) -> None:
    put(settings, HOLED, within(BARS, MARCH, DAY), covered_until=DAY)
    put(settings, LISTED, within(LISTED_BARS, MARCH, DAY), covered_until=DAY)
    assert compute_changed(settings) == [(date(2024, 3, 1), date(2024, 4, 1))]
    assert {newest(settings, "market_data_unified", one) for one in (LANDED, HOLED, LISTED)} == {DAY - HOUR}


def stream(settings: Settings, live: LiveBigQuery, first: int, last: int) -> None:
    """Bars of the day, by their hours."""
    rows = pa.concat_tables(
        streamed(within(bars, DAY + first * HOUR, DAY + last * HOUR)) for bars in (BARS, LISTED_BARS)
    )
    StreamZone(settings.raw_root).write(rows)
    live.apply(rows)


def test_streamed_bars_are_seen_at_once_as_they_are_computed_later(settings: Settings) -> None:
    def every(minutes: float) -> Settings:
        return settings.model_copy(update={"bigquery_increment_minutes": minutes})

    with LiveBigQuery(every(10_000)) as live:
        stream(settings, live, 0, 24)
        seen = bars_of_day(settings, "market_data_live")
        assert bars_of_day(settings, "market_data_unified") == {}
    assert len(seen) == 2 * 24
    with LiveBigQuery(every(0)) as live:
        compute_pending(live)
    computed = bars_of_day(settings, "market_data_unified")
    assert computed.keys() == seen.keys()
    for key, (values, names) in seen.items():
        assert computed[key] == (pytest.approx(values, rel=1e-9), names)
    assert bars_of_day(settings, "market_data_live") == computed


def test_history_takes_over_the_streamed_day(settings: Settings) -> None:
    rows = [row for row in within(BARS, MARCH, END).to_pylist() if row["open_time"] != ONLY_STREAMED]
    for row in rows:
        if row["open_time"] == DIFFERENT:
            row["close"] = row["high"]
    put(settings, HOLED, pa.Table.from_pylist(rows, schema=BARS.schema), covered_until=END)
    put(settings, LISTED, within(LISTED_BARS, MARCH, END), covered_until=END)
    assert compute_changed(settings) == [(date(2024, 3, 1), date(2024, 4, 1))]
    sources = told(
        settings,
        f"select symbol, source, count(*) from {ANALYTICS}.market_data_unified "
        f"where `interval` = '1h' and open_time >= timestamp '{DAY}' group by 1, 2 order by 1, 2",
    )
    assert sources == [
        ("ETHUSDT", "archive_monthly", 23),
        ("ETHUSDT", "stream", 1),
        ("SOLUSDT", "archive_monthly", 24),
    ]
    differences = told(settings, f"select open_time, field from {ANALYTICS}.klines_reconciliation order by 1")
    assert differences == [(DIFFERENT, "close"), (ONLY_STREAMED, "bar")]


def test_an_increment_of_a_day_touches_its_own_partitions(settings: Settings) -> None:
    since = datetime.now(UTC)
    build_window(settings, DAY, END)  # with all of dbt's tests
    with opened(settings) as warehouse:
        jobs = executed(warehouse, since)
    assert [job.error for job in jobs if job.error] == []
    by_dbt = [job.query for job in jobs if job.node is not None]
    found = [scan for query in by_dbt for scan in scans(query, TABLES, KNOWN_DAYS)]
    assert {scan.table for scan in found} >= {"market_data_unified", "klines", "klines_stream"}
    assert [scan.days for scan in found if scan.writes] == [{DAY.date()}]
    assert [scan for scan in found if is_outside(scan)] == []
    # History is loaded by months: what brings it looks at the month.
    loads = [scan for job in jobs if job.node is None for scan in scans(job.query, TABLES, KNOWN_DAYS)]
    assert {day for scan in loads for day in scan.days} <= {MARCH.date() + timedelta(days) for days in range(31)}
    # What is compiled says the same, and a condition that is missing would be noticed.
    compiled = [
        path.read_text()
        for path in (dbt.target_dir(settings) / "compiled").rglob("*.sql")
        if path.is_file() and path.stem not in VIEWS
    ]
    assert [scan for query in compiled for scan in scans(query, TABLES, KNOWN_DAYS) if is_outside(scan)] == []
    for query in (*by_dbt, *compiled):
        for scan in scans(query.replace("open_time >=", "close_time >="), TABLES, KNOWN_DAYS):
            assert scan.writes or is_outside(scan) or scan.days == {DAY.date()}


def test_every_mart_is_that_of_duckdb(settings: Settings, place: dict[str, Any]) -> None:
    beside = home(**place | {"path": place["path"] / "duckdb"}, target="duckdb")
    compute_tables(beside)
    publish(beside)
    found = {one.mart: one for one in compare_engines(beside, START, END)}
    assert set(found) == set(KEYS)
    assert [one for one in found.values() if not one.is_equal] == []
    assert min(found[mart].rows_duckdb for mart in KEYS) > 0
    assert max(one.largest_difference for one in found.values()) <= 1e-9


def test_google_takes_every_statement(settings: Settings, google_sql: GoogleSql) -> None:
    with opened(settings) as warehouse:
        jobs, catalog = executed(warehouse), catalog_of(warehouse)
    assert {job.error for job in jobs} == {None}
    assert analyze_all(google_sql, dbt.target_dir(settings) / "compiled", catalog) == {}
    # By the project's own client, which names a dataset for tables without one, and by dbt, which does not.
    for dataset, known in ((ANALYTICS, named_without(ANALYTICS, catalog)), (None, catalog)):
        own = [job for job in jobs if job.dataset == dataset]
        assert len(own) > 50
        analyses = google_sql.analyze([job.query for job in own], known, [job.parameters for job in own])
        refused = [(one.error, job.query) for one, job in zip(analyses, own, strict=True) if one.error]
        assert refused == []
