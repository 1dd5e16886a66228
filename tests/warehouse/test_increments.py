"""A warehouse that grew equals one built at once."""

import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from support.homes import bars, compute_bars, home, put, random_walk
from support.oracles import assert_tables_equal

from ingestion.klines import Series, month_window
from ingestion.settings import Settings
from warehouse import dbt

START = datetime(2024, 1, 1, tzinfo=UTC)
SERIES = Series("BTCUSDT", "15m")


def rebuilt(path: Path, klines: pa.Table, covered_until: datetime | None = None) -> pa.Table:
    settings = home(path, symbols="BTCUSDT", interval="15m")
    put(settings, SERIES, klines, covered_until)
    compute_bars(settings)
    return bars(settings)


@pytest.fixture
def grown(tmp_path: Path) -> Settings:
    return home(tmp_path / "grown", symbols="BTCUSDT", interval="15m")


def holes(bars_count: int, seed: int) -> list[int]:
    """Positions of three outages: one bar, an evening, and three days."""
    seed = 1
    rng = random.Random(seed)
    return [at + i for length in (1, 20, 288) for at in [rng.randrange(10, bars_count - 300)] for i in range(length)]


def test_grown_month_by_month_equals_a_rebuild(tmp_path: Path, grown: Settings) -> None:
    klines = random_walk(SERIES, START, 96 * 120, missing=holes(96 * 120, 1))
    put(grown, SERIES, klines)
    for month in month_window((START, START + timedelta(days=120))):
        compute_bars(grown, month.start, month.end)
    assert_tables_equal(bars(grown), rebuilt(tmp_path / "rebuilt", klines))


def test_grown_in_random_steps_equals_a_rebuild(tmp_path: Path, grown: Settings) -> None:
    """Steps end anywhere, in the middle of derived bars and of outages too."""
    seed = 1
    rng = random.Random(seed)
    days = 50
    klines = random_walk(SERIES, START, 96 * days, seed=seed, missing=holes(96 * days, seed))
    at = START
    while at < START + timedelta(days=days):
        step_from, at = at, min(at + timedelta(minutes=15 * rng.randrange(1, 1500)), START + timedelta(days=days))
        known = klines.filter(pa.array([opened < at for opened in klines["open_time"].to_pylist()]))
        put(grown, SERIES, known, covered_until=at)
        compute_bars(grown, step_from, at)
    assert_tables_equal(bars(grown), rebuilt(tmp_path / "rebuilt", klines, covered_until=at))


def test_earlier_months_that_come_later_equal_a_rebuild(tmp_path: Path, grown: Settings) -> None:
    klines = random_walk(SERIES, START, 96 * 91)
    opened = klines["open_time"].to_pylist()
    later = datetime(2024, 2, 1, tzinfo=UTC)
    put(grown, SERIES, klines.filter(pa.array([time >= later for time in opened])))
    compute_bars(grown)
    put(grown, SERIES, klines)
    compute_bars(grown, START, later)
    assert_tables_equal(bars(grown), rebuilt(tmp_path / "rebuilt", klines))


def test_a_month_that_changed_is_replaced_and_the_bars_after_it_follow(tmp_path: Path, grown: Settings) -> None:
    put(grown, SERIES, random_walk(SERIES, START, 96 * 91))
    compute_bars(grown)
    changed = random_walk(SERIES, START, 96 * 91, missing=range(96 * 40, 96 * 42)).to_pylist()
    for row in changed[96 * 35 : 96 * 36]:
        row["close"] = row["high"]
    klines = pa.Table.from_pylist(changed, schema=random_walk(SERIES, START, 1).schema)
    put(grown, SERIES, klines)
    compute_bars(grown, datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC))
    assert_tables_equal(bars(grown), rebuilt(tmp_path / "rebuilt", klines))


@pytest.mark.parametrize(
    ("missing", "bars_before"),
    [
        pytest.param(0, 1024, id="what the averages remember"),
        pytest.param(4, 1536, id="half as much again for an hour that is missing"),
        pytest.param(600, None, id="everything for a week"),
    ],
)
def test_no_more_is_read_than_needed(tmp_path: Path, grown: Settings, missing: int, bars_before: int | None) -> None:
    last_day = START + timedelta(days=39)
    klines = random_walk(SERIES, START, 96 * 40, missing=range(96 * 38 - missing, 96 * 38))
    put(grown, SERIES, klines)
    compute_bars(grown, START, last_day)
    compute_bars(grown, last_day, last_day + timedelta(days=1))
    (compiled,) = (dbt.target_dir(grown) / "compiled").rglob("models/marts/market_data_unified.sql")
    _, _, before = compiled.read_text().partition("bars_before as (")
    since = re.search(r"'15m'\s+and bars\.open_time >= timestamptz '([^']*)'", before)
    assert since is not None
    reach = None if bars_before is None else last_day - bars_before * timedelta(minutes=15)
    assert datetime.fromisoformat(since[1]) == (reach or datetime(1970, 1, 1, tzinfo=UTC))
    assert_tables_equal(bars(grown), rebuilt(tmp_path / "rebuilt", klines))


def test_a_window_is_built_twice_with_the_same_result(grown: Settings) -> None:
    put(grown, SERIES, random_walk(SERIES, START, 96 * 60))
    compute_bars(grown)
    once = bars(grown)
    compute_bars(grown, START, START + timedelta(days=31))
    assert bars(grown).equals(once)


def test_the_first_run_writes_its_window_only(grown: Settings) -> None:
    put(grown, SERIES, random_walk(SERIES, START, 96 * 31))
    compute_bars(grown, START + timedelta(days=3), START + timedelta(days=6))
    opened = bars(grown)["open_time"].to_pylist()
    assert (min(opened), max(opened)) == (START + timedelta(days=3), START + timedelta(days=6, minutes=-15))


def test_a_derived_bar_appears_when_it_is_closed(grown: Settings) -> None:
    until = START + timedelta(days=2, hours=7, minutes=30)
    klines = random_walk(SERIES, START, 96 * 2 + 30)
    put(grown, SERIES, klines, covered_until=until)
    compute_bars(grown)
    counts = {interval: bars(grown, f"\"interval\" = '{interval}'").num_rows for interval in ("15m", "1h", "4h", "1d")}
    assert counts == {"15m": 222, "1h": 55, "4h": 13, "1d": 2}


def test_a_derived_bar_whose_end_fell_into_an_outage_appears(grown: Settings) -> None:
    put(grown, SERIES, random_walk(SERIES, START, 96 * 31, missing=range(96 * 31 - 10, 96 * 31)))
    compute_bars(grown)
    assert bars(grown, "\"interval\" = '1d'").num_rows == 31
