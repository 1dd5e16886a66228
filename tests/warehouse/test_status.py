"""Status and measures of a home."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from support.homes import compute_tables, home, put, random_walk

from ingestion.klines import Month, Series
from warehouse.engine import connect
from warehouse.measure import bars_by_month, extents, gaps, latest_bars
from warehouse.serving import publish
from warehouse.status import status

START = datetime(2024, 1, 31, tzinfo=UTC)
SERIES = Series("BTCUSDT", "1h")


def test_status_tells_rows_extent_and_sources_of_each_layer(tmp_path: Path) -> None:
    settings = home(tmp_path, symbols="BTCUSDT", interval="1h")
    put(settings, SERIES, random_walk(SERIES, START, 48))
    compute_tables(settings)
    publish(settings)
    found = {(series.layer, series.interval): series for series in status(settings).series}
    raw, served = found["raw", "1h"], found["serving", "1h"]
    assert raw.sources == ("archive_monthly",)
    for series in (raw, served):
        assert (series.rows, series.files, series.first_open_time) == (48, 2, START)
        assert series.last_close_time == START + timedelta(hours=48, milliseconds=-1)
    assert {interval for layer, interval in found if layer == "serving"} == {"1h", "4h", "1d"}


def test_status_of_an_empty_home_is_empty(tmp_path: Path) -> None:
    found = status(home(tmp_path))
    assert (found.environment, found.series, found.quarantined) == (None, (), ())


def test_a_series_is_measured_in_bars_gaps_and_months(tmp_path: Path) -> None:
    settings = home(tmp_path, symbols="BTCUSDT", interval="1h")
    put(settings, SERIES, random_walk(SERIES, START, 48, missing=[5, 6, 30]))
    compute_tables(settings)
    with connect(settings) as connection:
        (extent,) = extents(connection, "1h")
        assert extent.bars == 45
        assert [(gap.first_missing_open_time, gap.missing_bars, gap.verdict) for gap in gaps(connection)] == [
            (START + timedelta(hours=5), 2, "missing"),
            (START + timedelta(hours=30), 1, "missing"),
        ]
        rows = bars_by_month(connection, START, START + timedelta(days=2))
        assert rows.keys() == {Month(2024, 1), Month(2024, 2)}
        newest = latest_bars(connection, "BTCUSDT", "1h", START + timedelta(days=1), count=3)
        assert newest["open_time"].to_pylist() == [START + timedelta(hours=hour) for hour in (21, 22, 23)]
