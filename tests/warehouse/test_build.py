"""What is built: the months that changed in the raw zone, the bars that remember them, and nothing else."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.homes import bars, build_all, compute_tables, home, provenance, put, random_walk
from support.oracles import assert_tables_equal

from ingestion.klines import Month, Series, months_between
from ingestion.raw_zone import RawZone
from ingestion.settings import Settings
from warehouse.build import build_changed, changed_months, stretches
from warehouse.dbt import BuildFailed, Window

SERIES = Series("BTCUSDT", "4h")
START = datetime(2023, 1, 1, tzinfo=UTC)
BARS = 365 * 6


@pytest.fixture
def built(tmp_path: Path) -> Settings:
    settings = home(tmp_path, symbols="BTCUSDT", interval="4h")
    put(settings, SERIES, random_walk(SERIES, START, BARS))
    compute_tables(settings)
    return settings


def correct(settings: Settings, month: Month, seed: int) -> None:
    """As if the exchange had published other bars for one month."""
    first = (month.start - START).days * 6
    rows = random_walk(SERIES, START, BARS, seed=seed).slice(first, (month.end - month.start).days * 6)
    RawZone(settings.raw_root).write_history(SERIES, month, rows, provenance(SERIES, month, rows, month.end))


def test_what_is_built_is_not_built_again(built: Settings) -> None:
    assert changed_months(built) == []
    assert build_changed(built) == []


def test_a_corrected_month_changes_its_bars_and_the_indicators_that_remember_it(built: Settings) -> None:
    before = bars(built)
    march = Month(2023, 3)
    correct(built, march, seed=9)
    assert changed_months(built) == [march]
    assert build_changed(built) == [Window(march.start, march.end)]
    after = bars(built)
    assert after["open_time"].equals(before["open_time"])
    keys = list(zip(after["interval"].to_pylist(), after["open_time"].to_pylist(), strict=True))
    prices, averages = (
        {
            key
            for key, one, other in zip(keys, *(table[name].to_pylist() for table in (after, before)), strict=True)
            if one != other
        }
        for name in ("close", "ema_50")
    )
    assert {Month.containing(at.date()) for _, at in prices} == {march}
    assert min(at for _, at in averages) >= march.start
    remembering = [at for interval, at in averages if interval == "4h"]
    assert max(remembering) > march.end, "averages after it remember it"
    assert max(remembering) < march.end + 1024 * timedelta(hours=4), "and forget it"


def test_it_equals_a_rebuild_from_nothing(built: Settings) -> None:
    correct(built, Month(2023, 5), seed=4)
    correct(built, Month(2023, 9), seed=5)
    assert len(build_changed(built)) == 2
    increment = bars(built)
    build_all(built, full_refresh=True)
    assert_tables_equal(increment, bars(built))


def test_a_month_that_went_is_built_away(built: Settings) -> None:
    (file,) = RawZone(built.raw_root).history_files("4h", ["BTCUSDT"], [Month(2023, 6)])
    Path(file.path).unlink()
    assert changed_months(built) == [Month(2023, 6)]
    build_changed(built)
    assert changed_months(built) == []
    assert not bars(built, "open_time >= '2023-06-01' and open_time < '2023-07-01'").num_rows


def test_a_build_that_fails_is_tried_again(built: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    correct(built, Month(2023, 6), seed=2)
    with monkeypatch.context() as patch:
        patch.setattr("warehouse.dbt.run", lambda *args: (_ for _ in ()).throw(BuildFailed("it broke", "mend it")))
        with pytest.raises(BuildFailed):
            build_changed(built)
    assert changed_months(built) == [Month(2023, 6)]


YEARS = months_between(datetime(2020, 1, 1, tzinfo=UTC).date(), datetime(2023, 1, 1, tzinfo=UTC).date())


@given(st.sets(st.sampled_from(YEARS)))
def test_stretches_cover_exactly_the_months(chosen: set[Month]) -> None:
    windows = stretches(sorted(chosen))
    inside = {month for month in YEARS if any(window.start <= month.start < window.end for window in windows)}
    assert inside == chosen
    assert all(one.end < other.start for one, other in pairwise(windows))
