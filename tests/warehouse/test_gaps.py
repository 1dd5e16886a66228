"""Gaps: found against the grid, judged by who was asked, the same window by window as all at once."""

import csv
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from support.homes import build_all, compute_tables, home, put, random_walk

from ingestion.history.run import land_history
from ingestion.klines import Series, months_between
from ingestion.settings import Settings
from ingestion.simulator.server import build_app, running
from warehouse.serving import publish, run_query

SERIES = Series("BTCUSDT", "1h")
START = datetime(2024, 1, 1, tzinfo=UTC)
GAPS = """
    select symbol, first_missing_open_time, last_missing_open_time, missing_bars, last_close_time, resumed_at, verdict,
        outage
    from klines_gaps order by symbol, resumed_at
"""


def gaps(settings: Settings) -> list[tuple[object, ...]]:
    publish(settings)
    return run_query(settings, GAPS).rows


def hour(number: int) -> datetime:
    return START + timedelta(hours=number)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return home(tmp_path, symbols="BTCUSDT", interval="1h")


def test_a_hole_of_which_only_the_archive_was_asked_is_missing(settings: Settings) -> None:
    put(settings, SERIES, random_walk(SERIES, START, 48, missing=[5, 6, 30]))
    compute_tables(settings)
    close = timedelta(hours=1) - timedelta(milliseconds=1)
    assert gaps(settings) == [
        ("BTCUSDT", hour(5), hour(6), 2, hour(4) + close, hour(7), "missing", None),
        ("BTCUSDT", hour(30), hour(30), 1, hour(29) + close, hour(31), "missing", None),
    ]


def test_a_gap_over_the_end_of_a_window_is_found_once_whichever_side_is_built_last(settings: Settings) -> None:
    hours = 24 * 60
    end_of_january = 31 * 24
    whole = random_walk(SERIES, START, hours, missing=range(end_of_january - 3, end_of_january + 4))
    put(settings, SERIES, whole)
    compute_tables(settings)
    expected = gaps(settings)
    assert [(row[3], row[1], row[5]) for row in expected] == [
        (7, hour(end_of_january - 3), hour(end_of_january + 4)),
    ]
    february = datetime(2024, 2, 1, tzinfo=UTC)
    for window in ((START, february), (february, february + timedelta(days=29)), (START, february)):
        compute_tables(settings, *window)
        assert gaps(settings) == expected


def test_a_gap_that_is_filled_from_the_left_shrinks_and_then_goes(settings: Settings) -> None:
    january, february = range(31 * 24), range(31 * 24, 60 * 24)
    walk = random_walk(SERIES, START, 60 * 24)
    put(settings, SERIES, walk.take([0, *february[100:]]))
    compute_tables(settings)
    assert [row[3] for row in gaps(settings)] == [31 * 24 + 99]
    put(settings, SERIES, walk.slice(0, len(january)))
    compute_tables(settings, START, datetime(2024, 2, 1, tzinfo=UTC))
    assert [(row[1], row[3]) for row in gaps(settings)] == [(hour(31 * 24), 100)]
    put(settings, SERIES, walk)
    compute_tables(settings, datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC))
    assert gaps(settings) == []


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[Settings]:
    """The recorded REST history of four years as base interval, landed and built."""
    with running(build_app(data=shared_data)) as address:
        settings = home(tmp_path_factory.mktemp("real"), archive_url=address, interval="1h")
        land_history(settings, settings.series, months_between(date(2020, 1, 1), date(2024, 1, 1)))
    build_all(settings)
    publish(settings)
    return settings


@pytest.mark.shared
def test_the_real_history_lands_bar_for_bar(real: Settings) -> None:
    counted = run_query(
        real, "select symbol, count(*) from market_data_unified where \"interval\" = '1h' group by all order by all"
    )
    assert counted.rows == [("BTCUSDT", 35_032), ("ETHUSDT", 35_032), ("SOLUSDT", 29_686)]


@pytest.mark.shared
def test_the_real_outages_are_the_gaps_and_nothing_is_filled(real: Settings, shared_data: Path) -> None:
    def at(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    with (shared_data / "outages.csv").open() as file:
        recorded = [
            (
                *(row["symbol"], at(row["first_missing_open"]), at(row["last_missing_open"])),
                *(int(row["missing_bars"]), at(row["last_close_time_utc"]), at(row["next_open"]), "exchange"),
            )
            for row in csv.DictReader(file)
            if row["interval"] == "1h" and "2020" <= row["first_missing_open"] < "2024"
        ]
    found = run_query(real, GAPS).rows
    assert [row[:-1] for row in found] == sorted(recorded, key=lambda row: (row[0], row[5]))
    assert len(found) == 40
    assert all(row[-1] for row in found), "each of them is a documented outage"
