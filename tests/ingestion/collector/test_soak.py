"""The benchmark of a week, in short: half a day in some seconds, with the bus away for a seventh of it."""

import pytest

from benchmarks.collector import collect


@pytest.fixture(scope="module")
def figures() -> dict[str, object]:
    return collect(days=0.5, seconds=8)


def test_every_bar_is_there_once_and_in_order(figures: dict[str, object]) -> None:
    found = {name: figures[name] for name in ("missing", "wrong", "out_of_order")}
    assert found == {"missing": 0, "wrong": 0, "out_of_order": 0}
    assert int(str(figures["bars"])) > 300


def test_what_waited_for_the_bus_is_drained(figures: dict[str, object]) -> None:
    assert int(str(figures["spool_peak"])) > 10
    assert figures["spool_end"] == 0


def test_memory_does_not_grow_with_what_is_collected(figures: dict[str, object]) -> None:
    assert float(str(figures["rss_end_mb"])) - float(str(figures["rss_start_mb"])) < 16


def test_health_is_good_all_the_time(figures: dict[str, object]) -> None:
    assert figures["health"] in ("ok", "starting > ok")
