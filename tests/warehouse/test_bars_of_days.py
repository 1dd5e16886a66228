"""What the dimensions are made of, kept window by window, is what the bars themselves say."""

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.homes import compute_tables, home, put, random_walk

from ingestion.klines import Series
from ingestion.settings import Settings
from warehouse.engine import connect

START = datetime(2024, 1, 30, tzinfo=UTC)
BTC, ETH = Series("BTCUSDT", "1h"), Series("ETHUSDT", "1h")
HOUR = timedelta(hours=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return home(tmp_path / "home", symbols="BTCUSDT,ETHUSDT", interval="1h")


def assert_as_the_bars_say(settings: Settings) -> None:
    of_base = "from crypto_analytics.market_data_unified where \"interval\" = '1h'"
    extent = "min(open_time), max(open_time), max(close_time), count(*)"
    with connect(settings) as connection:
        days = connection.execute(
            "select symbol, day_start, first_open_time, last_open_time, last_close_time, bars "
            "from crypto_analytics.int_bars_of_days order by 1, 2"
        ).fetchall()
        counted = connection.execute(
            f"select symbol, date_trunc('day', open_time) as day, {extent} {of_base} group by symbol, day order by 1, 2"
        ).fetchall()
        symbols = connection.execute(
            "select symbol, first_open_time, last_open_time, last_close_time, bars "
            "from crypto_analytics.dim_symbols order by 1"
        ).fetchall()
        of_symbols = connection.execute(f"select symbol, {extent} {of_base} group by 1 order by 1").fetchall()
        dates = connection.execute("select min(date_day), max(date_day) from crypto_analytics.dim_dates").fetchall()
        of_dates = connection.execute(f"select min(open_time)::date, max(open_time)::date {of_base}").fetchall()
    assert counted
    assert (days, symbols, dates) == (counted, of_symbols, of_dates)


def test_windows_that_end_within_a_day_keep_the_day_whole(settings: Settings) -> None:
    ends = [START + hours * HOUR for hours in (0, 30, 31, 75)]
    for begin, end in itertools.pairwise(ends):
        known = (end - START) // HOUR
        put(settings, BTC, random_walk(BTC, START, known), covered_until=end)
        put(settings, ETH, random_walk(ETH, START, known, missing=range(5)), covered_until=end)
        compute_tables(settings, begin, end)
        assert_as_the_bars_say(settings)


def test_days_whose_bars_go_go_too(settings: Settings) -> None:
    put(settings, BTC, random_walk(BTC, START, 120))
    compute_tables(settings)
    put(settings, BTC, random_walk(BTC, START, 120, missing=[*range(24, 50), *range(100, 120)]))
    compute_tables(settings)
    assert_as_the_bars_say(settings)


def test_a_warehouse_that_was_built_before_there_were_days_gets_all_of_them(settings: Settings) -> None:
    put(settings, BTC, random_walk(BTC, START, 120))
    compute_tables(settings)
    with connect(settings) as connection:
        connection.execute("drop table crypto_analytics.int_bars_of_days")
    compute_tables(settings, START + 96 * HOUR, START + 120 * HOUR)
    assert_as_the_bars_say(settings)
