"""Indicators equal TA-Lib in every row of every series and interval."""

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from support.homes import bars, compute_bars, home, put, random_walk, rest_klines
from support.oracles import assert_indicators_equal_talib

from ingestion.history.run import land_history
from ingestion.klines import Series, months_between
from ingestion.settings import Settings
from ingestion.simulator.server import build_app, running


def assert_every_series_equals_talib(settings: Settings) -> set[tuple[str, str]]:
    table = bars(settings)
    seen = {
        (row["symbol"], row["interval"])
        for row in table.select(["symbol", "interval"]).group_by(["symbol", "interval"]).aggregate([]).to_pylist()
    }
    for symbol, interval in seen:
        chosen = pc.and_(pc.equal(table["symbol"], symbol), pc.equal(table["interval"], interval))
        assert_indicators_equal_talib(table.filter(chosen))
    return seen


def test_six_simulated_years_equal_talib_at_every_interval(tmp_path: Path) -> None:
    """Of one symbol; of the two others a year, so that series of other lengths and prices stand beside it."""
    with running(build_app(seed=3)) as address:
        settings = home(tmp_path, archive_url=address)
        for series, first in zip(settings.series, (2020, 2025, 2025), strict=True):
            land_history(settings, [series], months_between(date(first, 1, 1), date(2026, 1, 1)))
    compute_bars(settings)
    seen = assert_every_series_equals_talib(settings)
    assert len(seen) == 15


@pytest.mark.shared
def test_real_five_minute_bars_equal_talib_at_every_interval(tmp_path: Path, shared_data: Path) -> None:
    with running(build_app(data=shared_data)) as address:
        settings = home(tmp_path, archive_url=address, symbols="BTCUSDT")
        land_history(settings, settings.series, months_between(date(2024, 7, 1), date(2025, 2, 1)))
    compute_bars(settings)
    assert assert_every_series_equals_talib(settings) == {
        ("BTCUSDT", interval) for interval in ("5m", "15m", "1h", "4h", "1d")
    }


@pytest.mark.shared
@pytest.mark.parametrize(("interval", "derived"), [("15m", {"1h", "4h", "1d"}), ("1h", {"4h", "1d"}), ("1d", set())])
def test_real_rest_bars_with_their_outages_equal_talib(
    tmp_path: Path, shared_data: Path, interval: str, derived: set[str]
) -> None:
    settings = home(tmp_path, interval=interval)
    for series in settings.series:
        put(settings, series, rest_klines(shared_data / "rest" / series.symbol / interval, series))
    compute_bars(settings)
    seen = assert_every_series_equals_talib(settings)
    assert {found for _, found in seen} == {interval, *derived}


def test_short_and_block_sized_series_equal_talib(tmp_path: Path) -> None:
    counts = [1, 14, 15, 19, 20, 33, 34, 49, 50, 51, 1023, 1024, 1025, 2048, 2100]
    settings = home(tmp_path, symbols=",".join(f"N{count}USDT" for count in counts), interval="1d")
    for series, count in zip(settings.series, counts, strict=True):
        put(settings, series, random_walk(series, datetime(2019, 1, 1, tzinfo=UTC), count))
    compute_bars(settings)
    assert len(assert_every_series_equals_talib(settings)) == len(counts)
    for series, count in zip(settings.series, counts, strict=True):
        assert bars(settings, f"symbol = '{series.symbol}'").num_rows == count


def test_a_market_that_does_not_move_equals_talib(tmp_path: Path) -> None:
    settings = home(tmp_path, symbols="BTCUSDT", interval="1h")
    series = Series("BTCUSDT", "1h")
    moving = random_walk(series, datetime(2024, 1, 1, tzinfo=UTC), 400)
    still = moving.to_pylist()
    for row in still[100:]:
        row |= dict.fromkeys(("open", "high", "low", "close"), still[100]["close"])
    put(settings, series, moving.from_pylist(still, schema=moving.schema))
    compute_bars(settings)
    assert_indicators_equal_talib(bars(settings, "\"interval\" = '1h'"))


def test_bars_that_come_in_disorder_equal_talib(tmp_path: Path) -> None:
    """On DuckDB every average follows the order of rows, which the model itself must make."""
    settings = home(tmp_path, symbols="BTCUSDT,ETHUSDT", interval="1h")
    for series in settings.series:
        klines = random_walk(series, datetime(2024, 1, 1, tzinfo=UTC), 2500, seed=len(series.symbol))
        put(settings, series, klines.take(np.random.default_rng(7).permutation(klines.num_rows)))
    compute_bars(settings)
    assert len(assert_every_series_equals_talib(settings)) == 6
