"""Freshness by the data's own clock."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestration.checks import MAX_AGE, stale_series
from warehouse.measure import SeriesExtent

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(("age", "stale"), [(MAX_AGE, False), (MAX_AGE + timedelta(seconds=1), True)])
def test_a_series_is_stale_when_its_newest_bar_is_too_old(age: timedelta, stale: bool) -> None:
    extent = SeriesExtent("BTCUSDT", "5m", 10, 0, datetime(2020, 1, 1, tzinfo=UTC), NOW - age)
    assert stale_series([extent], NOW) == ([extent] if stale else [])
