"""What a month of a series still needs: a pure function, so that it can be printed before anything is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from ingestion.grid import Window, holes, instant, micros, without
from ingestion.klines import INTERVAL_MICROS, Month, Series, grid_micros
from ingestion.provenance import DAILY, MONTHLY, REST, Provenance
from ingestion.row_rules import Ints

# A bar may take this long after its close to be answered for; until then its absence says nothing.
GRACE = timedelta(minutes=10)

# The latest daily files ever seen came weeks after their month (2025-07, re-uploaded).
LATE = timedelta(days=62)

# The archive has no daily files of these.
_MONTHLY_ONLY = ("3d", "1w", "1M")


@dataclass(frozen=True)
class MonthPlan:
    """What to ask for, in this order, each only for what the ones before it did not bring.

    `recheck`: the checksums of landed archive files. `monthly`: the monthly zip. `days`: daily zips. `rest`: windows.
    Where there is nothing to ask, `reason` says why.
    """

    recheck: bool = False
    monthly: bool = False
    days: tuple[date, ...] = ()
    rest: tuple[Window, ...] = ()
    reason: str = ""


def plan_month(
    series: Series, month: Month, now: datetime, landed: Provenance | None, first_open_time: datetime | None
) -> MonthPlan:
    """Decide what a month needs, given what has landed of it and when the series began, if that is known."""
    if first_open_time is not None and month.end <= first_open_time:
        return MonthPlan(reason="before the first bar")
    window = month_span(series, month, now, first_open_time)
    if window.start >= window.end:
        return MonthPlan(reason="no bar has closed yet")
    if landed and landed.spoke(MONTHLY):
        missing = unasked(landed)
        return MonthPlan(recheck=True, days=whole_days(series, missing, now), rest=tuple(missing))
    rest = without([window], [part for source in (DAILY, REST) for part in landed.spoke(source)] if landed else [])
    if landed:
        rest = sorted({*rest, *unasked(landed)})
    return MonthPlan(
        recheck=bool(landed and landed.spoke(DAILY)),
        monthly=month.end <= now,
        days=_days_without_file(series, month, window, now, landed),
        rest=tuple(rest),
    )


def month_span(series: Series, month: Month, now: datetime, first_open_time: datetime | None) -> Window:
    """The part of a month in which bars can be: from the series' first bar to the last one that has closed."""
    closed = _closed_until(series.interval, now)
    return Window(max(month.start, first_open_time or month.start), min(month.end, closed))


def _closed_until(interval: str, now: datetime) -> datetime:
    """All bars that open before this instant have closed by `now`, and no others."""
    length = INTERVAL_MICROS[interval]
    if length is None:
        return Month.containing(now.astimezone(UTC).date()).start
    if grid_micros(interval) is not None:
        return instant(micros(now) // length * length)
    # Bars of three days and weeks open on some midnight: the last closed one did not open later than their length ago.
    return day_window((instant(micros(now) - length)).date()).end


def unasked(landed: Provenance) -> list[Window]:
    """The holes of a landed month for which REST has not been asked yet."""
    return without(landed.holes, landed.spoke(REST))


def find_holes(series: Series, open_times: Ints, window: Window) -> tuple[Window, ...]:
    """Where bars are missing; none for intervals without a fixed grid, whose only hole is a month without any bar."""
    length = grid_micros(series.interval)
    if length is not None:
        return tuple(holes(open_times, window, length))
    return () if len(open_times) else (window,)


def _days_without_file(
    series: Series, month: Month, window: Window, now: datetime, landed: Provenance | None
) -> tuple[date, ...]:
    if series.interval in _MONTHLY_ONLY:
        return ()
    # Months later an archive may still grow a monthly file, but no daily ones.
    if landed and landed.covered_until >= window.end and now - month.end > LATE:
        return ()
    have = {part.start.date() for part in landed.spoke(DAILY)} if landed else set()
    return tuple(
        day for day in month.days() if window.start.date() <= day < now.astimezone(UTC).date() and day not in have
    )


def whole_days(series: Series, missing: Sequence[Window], now: datetime) -> tuple[date, ...]:
    """The days that lie whole in a hole (of a monthly file that has only its first ten days, as has happened)."""
    if series.interval in _MONTHLY_ONLY:
        return ()
    days = []
    for hole in missing:
        day = hole.start.date() if hole.start.time() == time() else hole.start.date() + timedelta(days=1)
        while (end := day_window(day).end) <= hole.end and end <= now:
            days.append(day)
            day += timedelta(days=1)
    return tuple(days)


def day_window(day: date) -> Window:
    start = datetime.combine(day, time(), UTC)
    return Window(start, start + timedelta(days=1))


def spoken_until(series: Series, window: Window, open_times: Ints, now: datetime) -> datetime:
    """Until when an answer of REST about `window` speaks: bars so new that they may still come are not missing yet."""
    if now - window.end >= GRACE:
        return window.end
    length = INTERVAL_MICROS[series.interval]
    if not len(open_times) or length is None:
        return window.start
    return min(window.end, instant(int(open_times[-1]) + length))
