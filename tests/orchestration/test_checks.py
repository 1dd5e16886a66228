"""Freshness by the data's own clock; whole as the exchange has it."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestration.checks import MAX_AGE, complete, stale_series
from warehouse.measure import Gap

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(("age", "stale"), [(MAX_AGE, False), (MAX_AGE + timedelta(seconds=1), True)])
def test_a_series_is_stale_when_its_newest_bar_is_too_old(age: timedelta, stale: bool) -> None:
    assert stale_series({"BTCUSDT": NOW - age}, NOW) == (["BTCUSDT"] if stale else [])


@pytest.mark.parametrize(("verdict", "passed"), [("exchange", True), ("late", True), ("missing", False)])
def test_only_a_gap_that_can_be_healed_is_incomplete(verdict: str, passed: bool) -> None:
    newest = {"BTCUSDT": NOW}
    gap = Gap("BTCUSDT", NOW - timedelta(hours=2), NOW - timedelta(hours=1), 12, verdict)
    result = complete(newest, [gap])
    assert result.passed is passed
    assert result.metadata["missing_bars"].value == (0 if passed else 12)


def test_a_warehouse_without_bars_is_not_complete() -> None:
    assert not complete({}, []).passed
