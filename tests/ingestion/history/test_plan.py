"""The plan as a pure function: what it asks for, against sets of days and hours."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.binance.archive import daily_path
from ingestion.grid import Window, without
from ingestion.history.plan import MonthPlan, day_window, month_span, plan_month, whole_days
from ingestion.klines import INTERVAL_MICROS, Month, Series
from ingestion.provenance import Provenance, SourceFile

SERIES = Series("BTCUSDT", "1h")
LATER = datetime(2024, 10, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

months = st.dates(date(2019, 1, 1), date(2027, 12, 31)).map(Month.containing)
daily_intervals = st.sampled_from([i for i in INTERVAL_MICROS if i not in ("3d", "1w", "1M")])
monthly_intervals = st.sampled_from(["3d", "1w", "1M"])
edges = st.sampled_from([timedelta(microseconds=-1), timedelta(0), timedelta(hours=12), timedelta(days=62)])
around = edges | st.timedeltas(timedelta(days=-40), timedelta(days=120))

State = tuple[Series, Month, datetime, list[date]]


def file_of(source: str, window: Window, series: Series = SERIES) -> SourceFile:
    url = f"https://x/{daily_path(series, window.start.date())}"
    return SourceFile(source, url, "0" * 64, 1, 1, LATER, window.start, window.end)


def landed_days(series: Series, days: list[date], holes: tuple[Window, ...] = ()) -> Provenance | None:
    files = tuple(file_of("archive_daily", day_window(day), series) for day in days)
    return Provenance(files, len(files), ("archive_daily",), day_window(days[-1]).end, holes) if files else None


def landed_month(month: Month, *holes: Window, asked: tuple[Window, ...] = ()) -> Provenance:
    monthly = file_of("archive_monthly", Window(month.start, month.end))
    rest = tuple(file_of("rest", window) for window in asked)
    return Provenance((monthly, *rest), 1, ("archive_monthly",), month.end, holes)


@st.composite
def states(draw: st.DrawFn) -> State:
    """A series, a month, a moment near it and the days of the month that have landed by then."""
    month = draw(months)
    now = draw(st.sampled_from([month.start, month.end])) + draw(around)
    over = [day for day in month.days() if day < now.date()]
    landed = draw(st.lists(st.sampled_from(over), unique=True)) if over else []
    return Series("BTCUSDT", draw(daily_intervals)), month, now, sorted(landed)


def planned(state: State, first: datetime | None = None) -> MonthPlan:
    series, month, now, landed = state
    return plan_month(series, month, now, landed_days(series, landed), first)


# --- days ------------------------------------------------------------------------------------------------------


@given(states())
def test_a_plan_never_asks_for_today_or_the_future(state: State) -> None:
    assert all(day < state[2].date() for day in planned(state).days)


@given(states())
def test_a_plan_never_asks_for_a_day_that_has_landed(state: State) -> None:
    assert not set(planned(state).days) & set(state[3])


@given(states())
def test_a_plan_asks_for_days_of_its_own_month_in_order_and_once(state: State) -> None:
    days = planned(state).days
    assert list(days) == sorted(set(days) & set(state[1].days()))


@given(states())
def test_a_plan_leaves_no_day_out_until_two_months_after(state: State) -> None:
    _, month, now, landed = state
    over = {day for day in month.days() if day < now.date()}
    covered = bool(landed) and landed[-1] == max(month.days())
    expected = set(landed) if covered and now - month.end > timedelta(days=62) else over
    assert set(planned(state).days) | set(landed) == expected


@given(months, st.lists(around, min_size=1, max_size=20))
def test_a_month_landed_bit_by_bit_asks_for_each_day_once(month: Month, moments: list[timedelta]) -> None:
    asked: list[date] = []
    for moment in sorted(moments):
        asked += plan_month(SERIES, month, month.start + moment, landed_days(SERIES, asked), None).days
    assert len(asked) == len(set(asked))


@given(months, around, monthly_intervals)
def test_intervals_without_daily_files_are_never_asked_for_by_day(
    month: Month, moment: timedelta, interval: str
) -> None:
    assert plan_month(Series("BTCUSDT", interval), month, month.start + moment, None, None).days == ()


@given(states(), st.timedeltas(timedelta(days=-5), timedelta(days=40)))
def test_nothing_is_asked_for_before_the_first_bar(state: State, offset: timedelta) -> None:
    first = state[1].start + offset
    plan = planned(state, first)
    if state[1].end <= first:
        assert plan == MonthPlan(reason="before the first bar")
    assert all(day >= first.date() for day in plan.days)
    assert all(window.start >= first for window in plan.rest)


# --- the monthly file ------------------------------------------------------------------------------------------


@given(states())
def test_a_plan_asks_for_the_monthly_file_exactly_when_the_month_is_over(state: State) -> None:
    assert planned(state).monthly == (state[2] >= state[1].end)


@given(states())
def test_a_month_landed_whole_needs_only_a_look_at_its_checksum(state: State) -> None:
    series, month, now, _ = state
    plan = plan_month(series, month, max(now, month.end), landed_month(month), None)
    assert plan == MonthPlan(recheck=True)


def test_a_whole_day_that_the_monthly_file_lacks_is_asked_for_by_day_and_rest() -> None:
    month = Month(2024, 7)
    hole = Window(month.start + 9 * DAY - 6 * HOUR, month.start + 11 * DAY + 3 * HOUR)
    plan = plan_month(SERIES, month, LATER, landed_month(month, hole), None)
    assert plan == MonthPlan(recheck=True, days=(date(2024, 7, 10), date(2024, 7, 11)), rest=(hole,))


def test_a_hole_for_which_rest_was_asked_is_not_asked_for_again() -> None:
    month = Month(2024, 7)
    hole = Window(month.start + 9 * DAY, month.start + 11 * DAY)
    asked = Window(hole.start - DAY, hole.end)
    assert plan_month(SERIES, month, LATER, landed_month(month, hole, asked=(asked,)), None) == MonthPlan(recheck=True)


# --- REST ------------------------------------------------------------------------------------------------------


@given(states())
def test_rest_is_asked_for_every_closed_hour_that_no_day_speaks_of(state: State) -> None:
    _, month, now, landed = state
    series = Series("BTCUSDT", "1h")
    closed = {
        month.start + i * HOUR for i in range((month.end - month.start) // HOUR) if month.start + (i + 1) * HOUR <= now
    }
    spoken = {day_window(day).start + i * HOUR for day in landed for i in range(24)}
    plan = plan_month(series, month, now, landed_days(series, landed), None)
    asked = {window.start + i * HOUR for window in plan.rest for i in range((window.end - window.start) // HOUR)}
    assert asked == closed - spoken


def test_a_hole_in_a_landed_day_is_asked_of_rest() -> None:
    month, hole = Month(2024, 7), Window(datetime(2024, 7, 2, 3, tzinfo=UTC), datetime(2024, 7, 2, 5, tzinfo=UTC))
    landed = landed_days(SERIES, [date(2024, 7, 1), date(2024, 7, 2)], (hole,))
    plan = plan_month(SERIES, month, datetime(2024, 7, 3, tzinfo=UTC), landed, None)
    assert plan == MonthPlan(recheck=True, rest=(hole,))


@given(months, around, st.sampled_from(list(INTERVAL_MICROS)))
def test_a_month_that_has_not_begun_or_closed_a_bar_says_so(month: Month, moment: timedelta, interval: str) -> None:
    series, now = Series("BTCUSDT", interval), month.start + moment
    plan = plan_month(series, month, now, None, None)
    assert (plan.reason == "no bar has closed yet") == (plan == MonthPlan(reason=plan.reason))
    if now <= month.start:
        assert plan.reason == "no bar has closed yet"


# --- which bars have closed ------------------------------------------------------------------------------------


def _opens(interval: str, month: Month) -> list[datetime]:
    """When bars of an interval may open in a month; of three days in each of the three ways they can be counted."""
    if interval == "1M":
        return [month.start]
    if interval in ("3d", "1w"):
        return [day_window(day).start for day in month.days()]
    length = timedelta(microseconds=INTERVAL_MICROS[interval] or 0)
    return [month.start + i * length for i in range((month.end - month.start) // length)]


@pytest.mark.parametrize(
    "interval", [name for name in INTERVAL_MICROS if name not in ("1s", "1m", "3m", "5m", "15m", "30m")]
)
@given(month=months, moment=around)
def test_the_span_of_a_month_has_all_bars_that_have_closed_and_no_others(
    interval: str, month: Month, moment: timedelta
) -> None:
    now = month.start + moment
    length = INTERVAL_MICROS[interval]
    span = month_span(Series("BTCUSDT", interval), month, now, None)
    for opens in _opens(interval, month):
        closes = opens + timedelta(microseconds=length) if length else month.end
        assert (span.start <= opens < span.end) == (closes <= now), opens


@given(
    st.lists(st.tuples(st.integers(0, 240), st.integers(1, 100)), max_size=4),
    st.integers(0, 400),
)
def test_whole_days_are_those_of_which_every_hour_is_missing(holes: list[tuple[int, int]], now: int) -> None:
    start = datetime(2024, 7, 1, tzinfo=UTC)
    windows = [Window(start + begin * HOUR, start + (begin + length) * HOUR) for begin, length in holes]
    missing = without(windows, [])
    found = whole_days(SERIES, missing, start + now * HOUR)
    expected = [
        (start + day * DAY).date()
        for begin, length in sorted(holes)
        for day in range(20)
        if begin <= 24 * day and 24 * day + 24 <= begin + length and 24 * day + 24 <= now
    ]
    assert list(found) == expected
