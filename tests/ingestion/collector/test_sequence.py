from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.collector.sequence import Fetched, Sequence, following
from ingestion.grid import micros
from ingestion.klines import Series
from ingestion.messages import KlineMessage
from tests.support.live import BTC, MINUTE, START, values


def bar(minute: int, source: str = "stream") -> KlineMessage:
    opened = START + minute * MINUTE
    return KlineMessage(
        symbol=BTC.symbol,
        interval=BTC.interval,
        open_time=opened,
        close_time=opened + MINUTE - 1000,
        **values(opened),
        trades=7,
        source=source,
        event_time=opened + MINUTE,
        received_time=opened + MINUTE,
    )


def fetched(start: int, end: int, *minutes: int) -> Fetched:
    bars = [bar(minute, "rest") for minute in minutes]
    return Fetched(BTC, START + start * MINUTE, START + end * MINUTE, bars, START + end * MINUTE)


def at(minute: int) -> Sequence:
    """A sequence of which the bar at `minute` is the next one."""
    return Sequence(BTC, START + minute * MINUTE)


def minutes(bars: list[KlineMessage]) -> list[int]:
    return [(one.open_time - START) // MINUTE for one in bars]


def next_of(sequence: Sequence) -> int:
    return ((sequence.next_open or 0) - START) // MINUTE


def test_the_next_bar_is_taken() -> None:
    sequence = at(0)
    assert minutes(sequence.closed(bar(0))) == [0]
    assert next_of(sequence) == 1


def test_the_first_bar_of_a_new_series_is_taken() -> None:
    assert minutes(Sequence(BTC, None).closed(bar(7))) == [7]


def test_a_bar_that_was_taken_is_known() -> None:
    sequence = at(0)
    sequence.closed(bar(0))
    assert sequence.knows(bar(0).open_time)
    assert not sequence.knows(bar(1).open_time)


def test_a_bar_after_a_gap_waits() -> None:
    sequence = at(0)
    assert sequence.closed(bar(2)) == []
    assert sequence.has_gap
    assert sequence.knows(bar(2).open_time)


def test_what_waited_follows_the_bars_of_rest() -> None:
    sequence = at(0)
    sequence.closed(bar(2))
    taken = sequence.fetched(fetched(0, 2, 0, 1))
    assert minutes(taken) == [0, 1, 2]
    assert [one.source for one in taken] == ["rest", "rest", "stream"]
    assert not sequence.has_gap


def test_a_late_closing_frame_closes_the_gap() -> None:
    sequence = at(0)
    sequence.closed(bar(1))
    assert minutes(sequence.closed(bar(0))) == [0, 1]


def test_a_bar_that_the_exchange_lacks_is_passed_over_once_a_later_one_is_known() -> None:
    sequence = at(0)
    sequence.closed(bar(3))
    assert minutes(sequence.fetched(fetched(0, 4, 0))) == [0, 3]


def test_a_bar_that_rest_lacks_is_waited_for_while_no_later_one_is_known() -> None:
    sequence = at(0)
    assert sequence.fetched(fetched(0, 3)) == []
    assert next_of(sequence) == 0


def test_a_hole_is_not_passed_over_beyond_the_answer() -> None:
    sequence = at(0)
    sequence.closed(bar(5))
    sequence.fetched(fetched(0, 3, 0, 1, 2))
    assert next_of(sequence) == 3


def test_an_answer_that_begins_later_gives_up_what_is_before() -> None:
    sequence = at(0)
    assert minutes(sequence.fetched(fetched(100, 102, 100, 101))) == [100, 101]


def test_a_late_word_of_which_bar_is_open_gives_up_none_that_the_stream_has_passed() -> None:
    sequence = Sequence(BTC, None)
    sequence.closed(bar(3))
    sequence.fetched(fetched(6, 6))
    assert next_of(sequence) == 4


def test_bars_of_an_answer_that_came_meanwhile_are_not_taken_again() -> None:
    sequence = at(0)
    sequence.closed(bar(0))
    assert minutes(sequence.fetched(fetched(0, 2, 0, 1))) == [1]


def test_released_bars_go_ahead_and_are_not_published_again() -> None:
    sequence = at(0)
    sequence.closed(bar(2))
    assert minutes(sequence.release()) == [2]
    assert next_of(sequence) == 0
    assert minutes(sequence.fetched(fetched(0, 3, 0, 1, 2))) == [0, 1]
    assert next_of(sequence) == 3


def test_bars_after_a_released_one_do_not_wait() -> None:
    sequence = at(0)
    sequence.closed(bar(2))
    sequence.release()
    assert minutes(sequence.closed(bar(3))) == [3]
    assert minutes(sequence.fetched(fetched(0, 2, 0, 1))) == [0, 1]
    assert next_of(sequence) == 4
    assert not sequence.has_gap


def test_a_bar_is_overdue_when_the_exchange_is_past_its_end() -> None:
    sequence = at(0)
    assert not sequence.is_overdue(START + MINUTE - 1)
    assert sequence.is_overdue(START + MINUTE)


def test_what_is_held_back_is_bounded_and_none_of_it_lost() -> None:
    sequence = at(0)
    for minute in range(1, 1000):
        sequence.closed(bar(minute))
    taken = sequence.fetched(fetched(0, 1000, 0))
    assert minutes(taken) == list(range(len(taken)))
    assert len(taken) < 100
    assert not sequence.knows(bar(len(taken)).open_time)


@pytest.mark.parametrize(
    ("interval", "opened", "expected"),
    [
        ("5m", datetime(2025, 3, 1, 12, tzinfo=UTC), datetime(2025, 3, 1, 12, 5, tzinfo=UTC)),
        ("5m", datetime(2025, 3, 1, 12, 3, tzinfo=UTC), datetime(2025, 3, 1, 12, 5, tzinfo=UTC)),
        ("1d", datetime(2025, 2, 28, tzinfo=UTC), datetime(2025, 3, 1, tzinfo=UTC)),
        ("3d", datetime(2025, 3, 2, tzinfo=UTC), datetime(2025, 3, 5, tzinfo=UTC)),
        ("1w", datetime(2025, 3, 3, tzinfo=UTC), datetime(2025, 3, 10, tzinfo=UTC)),
        ("1M", datetime(2025, 12, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_the_bar_after_a_bar(interval: str, opened: datetime, expected: datetime) -> None:
    assert following(Series("BTCUSDT", interval), micros(opened)) == micros(expected)


_BARS = 12


@given(
    st.lists(st.one_of(st.integers(0, _BARS - 1), st.just("fetch"), st.just("release")), max_size=40),
    st.sets(st.integers(0, _BARS - 1), max_size=4),
)
def test_whatever_comes_in_whatever_order_each_bar_is_published_once(steps: list[int | str], halted: set[int]) -> None:
    """`halted` are bars that the exchange never had. Without releases the order is that of time."""
    sequence = at(0)
    exchange = [minute for minute in range(_BARS) if minute not in halted]
    published: list[KlineMessage] = []
    newest = -1

    def fetch(end: int) -> None:
        start = next_of(sequence)
        published.extend(sequence.fetched(fetched(start, end, *(one for one in exchange if start <= one < end))))

    for step in steps:
        if step == "fetch":
            fetch(newest + 1)
        elif step == "release":
            published.extend(sequence.release())
        elif step not in halted:
            assert isinstance(step, int)
            newest = max(newest, step)
            if not sequence.knows(bar(step).open_time):
                published.extend(sequence.closed(bar(step)))
    fetch(_BARS)
    fetch(_BARS)
    assert sorted(minutes(published)) == exchange
    if "release" not in steps:
        assert minutes(published) == exchange
