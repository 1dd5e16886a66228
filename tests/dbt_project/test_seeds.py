"""Seeds hold what is known of the exchange's past, typed, and agree with gaps recorded from the exchange itself."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import duckdb
import pytest
from support.homes import home

from ingestion.klines import INTERVAL_MICROS
from ingestion.settings import Settings
from warehouse import dbt
from warehouse.engine import connect, writing

SCHEMA = "crypto_analytics"


@dataclass(frozen=True)
class Event:
    """A row of exchange_outages."""

    name: str
    halted_at: datetime
    resumed_at: datetime


@dataclass(frozen=True)
class Gap:
    """Missing bars of a series, `[first_missing, next_open)`, and the close time of the bar before them."""

    interval: str
    last_close: datetime
    first_missing: datetime
    next_open: datetime


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home whose warehouse holds the seeds alone, with their data tests passed."""
    settings = home(tmp_path_factory.mktemp("home"))
    with writing(settings):
        dbt.run(settings, dbt.build_args(None, settings.interval, select="resource_type:seed"))
    return settings


@pytest.fixture
def connection(seeded: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(seeded) as opened:
        yield opened


@pytest.fixture
def events(connection: duckdb.DuckDBPyConnection) -> list[Event]:
    rows = connection.execute(f"select outage, halted_at, resumed_at from {SCHEMA}.exchange_outages order by halted_at")
    return [Event(name, halted.astimezone(UTC), resumed.astimezone(UTC)) for name, halted, resumed in rows.fetchall()]


@pytest.fixture
def gaps(shared_data: Path) -> list[Gap]:
    with (shared_data / "outages.csv").open() as file:
        return [
            Gap(row["interval"], *(instant(row[name]) for name in ("last_close_time_utc", "first_missing_open")), end)
            for row in csv.DictReader(file)
            for end in [instant(row["next_open"])]
        ]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def inside(gap: Gap, event: Event) -> bool:
    return event.halted_at <= gap.last_close and gap.next_open <= event.resumed_at


def length(gap: Gap) -> timedelta:
    return timedelta(microseconds=INTERVAL_MICROS[gap.interval] or 0)


@pytest.mark.parametrize("seed", ["exchange_outages", "symbol_renames"])
def test_instants_are_instants_and_all_else_is_text(connection: duckdb.DuckDBPyConnection, seed: str) -> None:
    types = {name: kind for name, kind, *_ in connection.execute(f"describe {SCHEMA}.{seed}").fetchall()}
    assert types == {name: "TIMESTAMP WITH TIME ZONE" if name.endswith("_at") else "VARCHAR" for name in types}


def test_the_halt_of_2023_is_to_the_millisecond(events: list[Event]) -> None:
    assert events[-1] == Event(
        "2023-03-24", datetime(2023, 3, 24, 12, 39, 41, 646_000, tzinfo=UTC), datetime(2023, 3, 24, 14, tzinfo=UTC)
    )


def test_an_outage_is_named_by_the_day_on_which_it_began(events: list[Event]) -> None:
    assert [event.name for event in events] == [f"{event.halted_at:%Y-%m-%d}" for event in events]


def test_outages_have_no_instant_in_common(events: list[Event]) -> None:
    assert all(before.resumed_at < after.halted_at for before, after in pairwise(events))


def test_a_rename_whose_instants_are_not_known_has_none(connection: duckdb.DuckDBPyConnection) -> None:
    rows = connection.execute(
        f"select old_symbol, new_symbol, epoch(stopped_at), epoch(resumed_at) from {SCHEMA}.symbol_renames order by 1"
    ).fetchall()
    stopped, resumed = datetime(2024, 9, 10, 3, tzinfo=UTC), datetime(2024, 9, 13, 10, tzinfo=UTC)
    assert rows == [
        ("MATICUSDT", "POLUSDT", stopped.timestamp(), resumed.timestamp()),
        ("NANOUSDT", "XNOUSDT", None, None),
    ]


@pytest.mark.shared
def test_every_recorded_gap_lies_inside_exactly_one_outage(events: list[Event], gaps: list[Gap]) -> None:
    assert len(gaps) == 110
    for gap in gaps:
        assert len([event for event in events if inside(gap, event)]) == 1, gap


@pytest.mark.shared
def test_every_outage_is_seen_in_recorded_gaps_and_no_wider_than_they_allow(
    events: list[Event], gaps: list[Gap]
) -> None:
    """It begins with the earliest last close, and ends inside the first bar after the gap of the shortest interval."""
    for event in events:
        seen = [gap for gap in gaps if inside(gap, event)]
        assert seen, event
        assert event.halted_at == min(gap.last_close for gap in seen), event
        assert event.resumed_at < min(gap.next_open + length(gap) for gap in seen), event


@pytest.mark.shared
def test_five_minute_bars_around_the_halt_of_2023_are_missing_inside_it_alone(
    events: list[Event], shared_data: Path
) -> None:
    """A shorter interval than the gaps were recorded for."""
    step = timedelta(minutes=5)
    for file in sorted((shared_data / "outage-5m").glob("*.csv")):
        with file.open() as lines:
            opens = [instant(row["date"]) for row in csv.DictReader(line for line in lines if line[0] != "#")]
        (hole,) = [(left, right) for left, right in pairwise(opens) if right - left > step]
        assert hole[0] < events[-1].halted_at < hole[0] + step
        assert hole[1] == events[-1].resumed_at
