"""The oracle walks through every place of the grid, and through every instant of a window."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.grid import Window, holes, instant, micros, without

BASE = datetime(2024, 7, 1, tzinfo=UTC)
LENGTH = 10  # microseconds: small, so that everything can be walked through

offsets = st.integers(0, 200)


def window(start: int, end: int) -> Window:
    return Window(BASE + timedelta(microseconds=start), BASE + timedelta(microseconds=end))


@st.composite
def windows(draw: st.DrawFn) -> Window:
    start, end = sorted((draw(offsets), draw(offsets)))
    return window(start, end + 1)


def instants_of(parts: list[Window]) -> set[int]:
    return {at for part in parts for at in range(micros(part.start), micros(part.end))}


@given(st.sets(offsets), windows())
def test_holes_are_the_places_without_a_bar(opens: set[int], inside: Window) -> None:
    start, end = micros(inside.start), micros(inside.end)
    times = sorted(micros(BASE) + one for one in opens)
    places = [place for place in range(start // LENGTH - 1, end // LENGTH + 2) if start <= place * LENGTH < end]
    taken = {time // LENGTH for time in times if start <= time < end}
    found = holes(np.array(times, np.int64), inside, LENGTH)
    assert instants_of(found) == {
        at for place in places if place not in taken for at in range(place * LENGTH, (place + 1) * LENGTH)
    }
    assert all(one.end < other.start for one, other in pairwise(found)), "the longest, in order"


@pytest.mark.parametrize("first", [0, 3])
def test_a_window_without_any_bar_is_one_hole(first: int) -> None:
    assert holes(np.empty(0, np.int64), window(first, 50), LENGTH) == [window(-(-first // 10) * 10, 50)]


def test_an_empty_window_has_no_hole() -> None:
    assert holes(np.empty(0, np.int64), window(50, 50), LENGTH) == []


@given(st.lists(windows(), max_size=6), st.lists(windows(), max_size=6))
def test_without_takes_away_what_is_covered(all_of: list[Window], covered: list[Window]) -> None:
    left = without(all_of, covered)
    assert instants_of(left) == instants_of(all_of) - instants_of(covered)
    assert all(part.start < part.end for part in left)


@given(st.lists(windows(), max_size=6))
def test_nothing_is_left_of_what_is_covered_by_itself(all_of: list[Window]) -> None:
    assert without(all_of, all_of) == []


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001 - hypothesis adds the zone
def test_microseconds_lose_nothing(at: datetime) -> None:
    assert instant(micros(at)) == at
