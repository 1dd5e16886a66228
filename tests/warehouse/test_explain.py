"""The story of a bar: where it came from, and its indicators computed again."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.homes import compute_tables, home, put, random_walk
from support.streamed import streamed

from ingestion.errors import UsageError
from ingestion.klines import Series
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone
from warehouse.explain import explain
from warehouse.serving import publish

SERIES = Series("BTCUSDT", "1h")
START = datetime(2024, 1, 1, tzinfo=UTC)
# Three more bars came live.
END = 24 * 70


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = home(tmp_path_factory.mktemp("explained"), symbols="BTCUSDT", interval="1h")
    klines = random_walk(SERIES, START, END + 3, missing=[500, 501])
    put(settings, SERIES, klines.slice(0, END - 2), covered_until=START + timedelta(hours=END))
    StreamZone(settings.raw_root).write(streamed(klines.slice(END - 2)))
    compute_tables(settings)
    publish(settings)
    return settings


@pytest.mark.parametrize("hours", [1676, 400, 40])
@pytest.mark.parametrize("interval", ["1h", "4h"])
def test_the_steps_lead_to_what_is_stored(built: Settings, interval: str, hours: int) -> None:
    found = explain(built, Series("BTCUSDT", interval), START + timedelta(hours=hours))
    assert len(found.steps) == 8
    for step in found.steps:
        assert (step.computed is None) == (step.stored is None), step
        if step.stored is not None:
            assert step.computed == pytest.approx(step.stored, rel=1e-9, abs=1e-9), step


def test_indicators_that_warm_up_say_so(built: Settings) -> None:
    found = explain(built, SERIES, START)
    assert {step.how for step in found.steps} == {"still warming up"}


@pytest.mark.parametrize(("interval", "parts"), [("1h", 1), ("4h", 4), ("1d", 24)])
def test_a_derived_bar_is_made_of_landed_ones(built: Settings, interval: str, parts: int) -> None:
    found = explain(built, Series("BTCUSDT", interval), START + timedelta(days=3))
    assert len(found.raw) == parts
    assert sum(float(row["volume"]) for row in found.raw) == pytest.approx(found.bar["volume"])
    (answer,) = found.answers
    assert (answer.source, answer.url) == ("archive_monthly", "http://exchange.test/BTCUSDT-1h-2024-01.zip")


def test_a_bar_in_a_gap_names_the_gap(built: Settings) -> None:
    with pytest.raises(UsageError, match=r"lies in a gap .* missing \(no documented outage\). `klinehouse heal`"):
        explain(built, SERIES, START + timedelta(hours=500))


@pytest.mark.parametrize("at", [START + timedelta(minutes=30), START - timedelta(days=1)])
def test_a_time_at_which_no_bar_opens_says_so(built: Settings, at: datetime) -> None:
    with pytest.raises(UsageError, match="no bar that opens"):
        explain(built, SERIES, at)


def test_a_bar_that_came_live_names_its_file(built: Settings) -> None:
    found = explain(built, SERIES, START + timedelta(hours=END + 1))
    (part,) = found.stream
    assert (part.source, part.counting, found.bar["source"], found.answers) == ("stream", 1, "stream", [])
    assert Path(part.file).exists()


def test_a_bar_that_is_yet_to_come_says_where_the_series_ends(built: Settings) -> None:
    with pytest.raises(UsageError, match="ends, so far, with the bar that opens at 2024-03-11T02:00:00"):
        explain(built, SERIES, START + timedelta(hours=END + 3))
