"""The decisions about partitions, without Dagster running."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.homes import home

from ingestion.klines import Month, Series
from ingestion.raw_zone import HistoryFile
from orchestration.partitions import (
    PartitionSpace,
    landing_plan,
    month_symbol_key,
    partition_space,
    refresh_months,
    run_window,
)
from warehouse.dbt import Window

MONTHS = st.builds(Month, st.integers(2017, 2040), st.integers(1, 12))
SYMBOLS = st.sampled_from(["BTCUSDT", "ETHUSDT", "SOLUSDT"])


@given(st.sets(st.tuples(MONTHS, SYMBOLS)))
def test_partition_keys_become_the_months_of_each_series(chosen: set[tuple[Month, str]]) -> None:
    keys = [month_symbol_key(month, symbol) for month, symbol in chosen]
    plan = landing_plan(keys, "5m")
    landed = [(month, series) for together, months in plan for series in together for month in months]
    assert sorted((month, series.symbol) for month, series in landed) == sorted(chosen)
    assert {series.interval for _, series in landed} <= {"5m"}


def test_series_of_which_the_same_months_are_asked_for_are_landed_together() -> None:
    asked = {"BTCUSDT": (1, 2), "ETHUSDT": (1, 2), "SOLUSDT": (2,)}
    keys = [month_symbol_key(Month(2024, month), symbol) for symbol, months in asked.items() for month in months]
    btc, eth, sol = (Series(symbol, "5m") for symbol in asked)
    january, february = Month(2024, 1), Month(2024, 2)
    assert landing_plan(keys, "5m") == [([btc, eth], [january, february]), ([sol], [february])]


def test_the_space_is_the_settings_and_what_landed_beyond_them(tmp_path: Path) -> None:
    settings = home(tmp_path, symbols="BTCUSDT", start="2020-03-15")
    landed = [HistoryFile(Series("ADAUSDT", "5m"), Month(2018, 4), "path", 1, "1")]
    assert partition_space(settings, []) == PartitionSpace(Month(2020, 3), ("BTCUSDT",))
    assert partition_space(settings, landed) == PartitionSpace(Month(2018, 4), ("BTCUSDT", "ADAUSDT"))


def test_the_running_month_is_a_partition() -> None:
    now = datetime(2024, 5, 17, tzinfo=UTC)
    keys = PartitionSpace(Month(2024, 1), ("BTCUSDT",)).months().get_partition_keys(current_time=now)
    assert list(keys) == ["2024-01", "2024-02", "2024-03", "2024-04", "2024-05"]


def test_a_month_partition_runs_on_its_half_open_month() -> None:
    months = PartitionSpace(Month(2024, 1), ("BTCUSDT",)).months()
    window = months.time_window_for_partition_key("2024-02")
    expected = Window(datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC))
    assert run_window((window.start, window.end)) == expected


@pytest.mark.parametrize(
    ("day", "months"),
    [
        (datetime(2024, 5, 17, tzinfo=UTC), (Month(2024, 4), Month(2024, 5))),
        (datetime(2024, 1, 1, tzinfo=UTC), (Month(2023, 12), Month(2024, 1))),
    ],
)
def test_a_refresh_asks_for_the_last_month_and_the_running_one(day: datetime, months: tuple[Month, Month]) -> None:
    assert refresh_months(day) == months
