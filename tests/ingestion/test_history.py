from __future__ import annotations

import csv
import io
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.binance.archive import Archive, ArchiveFile, daily_path, monthly_path
from ingestion.errors import ConfigurationError, ExchangeRefused
from ingestion.history import MonthResult, Outcome, land, plan_month
from ingestion.klines import INTERVAL_MICROS, Month, Series
from ingestion.raw_zone import Environment, Provenance, RawZone, SourceFile
from ingestion.settings import load_settings
from ingestion.simulator.server import build_app, running

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from tests.ingestion.conftest import ArchiveHost

SERIES = Series("BTCUSDT", "1h")
JULY, AUGUST, SEPTEMBER = Month(2024, 7), Month(2024, 8), Month(2024, 9)
JULY_ZIP = monthly_path(SERIES, JULY)
LATER = datetime(2024, 10, 15, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def july(day: int) -> date:
    return date(2024, 7, day)


def at(day: int, hour: int = 10) -> datetime:
    return datetime(2024, 7, day, hour, tzinfo=UTC)


def hours(start: datetime, end: datetime, price: str = "1.00000000") -> bytes:
    """The CSV of the hourly bars that open in `[start, end)`, all at one price."""
    opens = range((start - EPOCH) // timedelta(milliseconds=1), (end - EPOCH) // timedelta(milliseconds=1), 3_600_000)
    tail = f"{price},{price},{price},{price},5.00000000"
    return "".join(f"{t},{tail},{t + 3_599_999},5.00000000,7,2.00000000,2.00000000,0\n" for t in opens).encode()


def publish_month(host: ArchiveHost, month: Month, price: str = "1.00000000") -> None:
    host.publish(monthly_path(SERIES, month), hours(month.start, month.end, price))


def publish_days(host: ArchiveHost, *days: int) -> None:
    for day in days:
        host.publish(daily_path(SERIES, july(day)), hours(at(day, 0), at(day, 0) + timedelta(days=1)))


def break_file(host: ArchiveHost, path: str) -> None:
    host.script(path, b"broken")


def opens(zone: RawZone, month: Month = JULY) -> list[datetime]:
    return zone.read_history(SERIES, month)["open_time"].to_pylist()


def hours_of(*days: int) -> list[datetime]:
    return [at(day, hour) for day in days for hour in range(24)]


def days_asked(host: ArchiveHost) -> list[str]:
    return [path[-14:-4] for path in host.asked if "/daily/" in path and path.endswith(".zip")]


@pytest.fixture
def zone(tmp_path: Path) -> RawZone:
    return RawZone(str(tmp_path / "raw"))


class Landing:
    """Lands months of one series into one zone; `at` says what time it is."""

    def __init__(self, archive: Archive, zone: RawZone) -> None:
        self._archive, self._zone = archive, zone

    def months(self, *months: Month, now: datetime = LATER) -> list[MonthResult]:
        return land(self._archive, self._zone, [SERIES], months, workers=2, now=now)

    def july(self, now: datetime = LATER) -> MonthResult:
        return self.months(JULY, now=now)[0]


@pytest.fixture
def landing(archive: Archive, zone: RawZone) -> Landing:
    return Landing(archive, zone)


# --- a closed month --------------------------------------------------------------------------------------------


def test_a_closed_month_lands_whole(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    publish_month(host, JULY)
    landing.july()
    assert opens(zone) == hours_of(*range(1, 32))


def test_a_landed_month_is_reported_with_its_rows_and_downloads(host: ArchiveHost, landing: Landing) -> None:
    size = len(host.publish(JULY_ZIP, hours(JULY.start, JULY.end)))
    assert landing.july() == MonthResult(SERIES, JULY, Outcome.LANDED, 744, 1, size)


def test_a_landed_month_tells_its_file_and_that_it_is_complete(
    host: ArchiveHost, landing: Landing, zone: RawZone
) -> None:
    publish_month(host, JULY)
    landing.july()
    landed = zone.provenance(SERIES, JULY)
    assert (landed.source, landed.rows, landed.covered_until) == ("archive_monthly", 744, JULY.end)
    assert [(file.url, file.rows) for file in landed.files] == [(f"{host.url}/{JULY_ZIP}", 744)]


def test_the_rows_of_a_month_out_of_order_land_in_order(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    lines = hours(JULY.start, JULY.end).splitlines(keepends=True)
    host.publish(JULY_ZIP, b"".join(reversed(lines)))
    landing.july()
    assert opens(zone) == hours_of(*range(1, 32))


def test_landing_again_asks_the_exchange_for_nothing(host: ArchiveHost, landing: Landing) -> None:
    publish_month(host, JULY)
    landing.july()
    host.asked.clear()
    landing.july()
    assert host.asked == []


def test_landing_again_reports_the_month_unchanged(host: ArchiveHost, landing: Landing) -> None:
    publish_month(host, JULY)
    landing.july()
    assert landing.july() == MonthResult(SERIES, JULY, Outcome.UNCHANGED, 744)


def test_a_month_that_the_exchange_does_not_have_is_absent(landing: Landing) -> None:
    assert landing.july() == MonthResult(SERIES, JULY, Outcome.ABSENT)


def test_an_absent_month_leaves_nothing_in_the_zone(landing: Landing, zone: RawZone) -> None:
    landing.july()
    assert (zone.history_files(), zone.environment()) == ([], None)


def test_a_calendar_month_bar_lands_from_the_file_named_1mo(host: ArchiveHost, archive: Archive, zone: RawZone) -> None:
    monthly = Series("BTCUSDT", "1M")
    path = "data/spot/monthly/klines/BTCUSDT/1mo/BTCUSDT-1mo-2024-07.zip"
    host.publish(path, hours(JULY.start, JULY.start + timedelta(hours=1)))
    land(archive, zone, [monthly], [JULY], workers=1, now=LATER)
    assert zone.read_history(monthly, JULY)["interval"].to_pylist() == ["1M"]


def test_each_month_is_announced_when_it_is_done(host: ArchiveHost, archive: Archive, zone: RawZone) -> None:
    publish_month(host, JULY)
    heard: list[MonthResult] = []
    results = land(archive, zone, [SERIES], [JULY, AUGUST], workers=2, on_result=heard.append, now=LATER)
    assert sorted(heard, key=lambda result: result.month) == results


def test_results_come_in_the_order_asked_for(host: ArchiveHost, archive: Archive, zone: RawZone) -> None:
    ether = Series("ETHUSDT", "1h")
    results = land(archive, zone, [ether, SERIES], [AUGUST, JULY], workers=4, now=LATER)
    assert [(result.series, result.month) for result in results] == [
        (ether, AUGUST),
        (ether, JULY),
        (SERIES, AUGUST),
        (SERIES, JULY),
    ]


# --- quarantine ------------------------------------------------------------------------------------------------


def test_a_bad_file_is_reported_as_quarantined(host: ArchiveHost, landing: Landing) -> None:
    publish_month(host, JULY)
    break_file(host, JULY_ZIP)
    result = landing.july()
    assert (result.outcome, result.rows) == (Outcome.QUARANTINED, 0)
    assert f"{JULY_ZIP}: SHA-256 is" in result.problems[0]


def test_a_bad_file_is_kept_with_its_reason(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    publish_month(host, JULY)
    break_file(host, JULY_ZIP)
    landing.july()
    [note] = zone.quarantined()
    assert (note["url"], note["bytes"]) == (f"{host.url}/{JULY_ZIP}", len(b"broken"))
    assert note["reason"].startswith("SHA-256 is")


def test_a_file_that_is_no_kline_file_is_kept_with_its_reason(
    host: ArchiveHost, landing: Landing, zone: RawZone
) -> None:
    host.publish(JULY_ZIP, b"1,2,3\n")
    landing.july()
    assert "not the twelve columns" in zone.quarantined()[0]["reason"]


def test_a_file_with_bars_of_another_month_is_quarantined(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    host.publish(JULY_ZIP, hours(JULY.start, JULY.end + timedelta(hours=1)))
    assert landing.july().outcome == Outcome.QUARANTINED
    assert zone.history_files() == []


def test_a_bad_month_does_not_stop_the_others(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    for month in (JULY, AUGUST, SEPTEMBER):
        publish_month(host, month)
    break_file(host, monthly_path(SERIES, AUGUST))
    outcomes = [result.outcome for result in landing.months(JULY, AUGUST, SEPTEMBER)]
    assert outcomes == [Outcome.LANDED, Outcome.QUARANTINED, Outcome.LANDED]
    assert [file.month for file in zone.history_files()] == [JULY, SEPTEMBER]


def test_a_bad_month_lands_once_it_is_good(host: ArchiveHost, landing: Landing) -> None:
    publish_month(host, JULY)
    break_file(host, JULY_ZIP)
    landing.july()
    publish_month(host, JULY)
    assert landing.july().outcome == Outcome.LANDED


def test_a_bad_month_leaves_the_quarantine_when_it_lands(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    publish_month(host, JULY)
    break_file(host, JULY_ZIP)
    landing.july()
    publish_month(host, JULY)
    landing.july()
    assert zone.quarantined() == []


def test_a_bad_day_does_not_stop_the_other_days(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    publish_days(host, 1, 2, 3)
    break_file(host, daily_path(SERIES, july(2)))
    result = landing.july(now=at(4))
    assert (result.outcome, opens(zone)) == (Outcome.QUARANTINED, hours_of(1, 3))


def test_a_bad_day_heals_in_its_place(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    publish_days(host, 1, 2, 3)
    break_file(host, daily_path(SERIES, july(2)))
    landing.july(now=at(4))
    publish_days(host, 2)
    landing.july(now=at(4))
    assert (opens(zone), zone.quarantined()) == (hours_of(1, 2, 3), [])


def test_a_bad_monthly_file_of_a_recent_month_gives_way_to_its_days(
    host: ArchiveHost, landing: Landing, zone: RawZone
) -> None:
    publish_month(host, JULY)
    break_file(host, JULY_ZIP)
    publish_days(host, *range(1, 32))
    result = landing.july(now=datetime(2024, 8, 2, tzinfo=UTC))
    assert (result.outcome, opens(zone)) == (Outcome.QUARANTINED, hours_of(*range(1, 32)))


# --- the running month -----------------------------------------------------------------------------------------


def test_the_running_month_lands_day_by_day_up_to_yesterday(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    publish_days(host, 1, 2, 3, 4)
    landing.july(now=at(4))
    assert opens(zone) == hours_of(1, 2, 3)


def test_the_running_month_is_asked_for_by_days_alone(host: ArchiveHost, landing: Landing) -> None:
    publish_days(host, 1, 2, 3)
    landing.july(now=at(4))
    zips = [path for path in host.asked if path.endswith(".zip")]
    assert zips == [daily_path(SERIES, july(day)) for day in (1, 2, 3)]


def test_only_the_new_day_is_asked_for_next_time(host: ArchiveHost, landing: Landing) -> None:
    publish_days(host, 1, 2, 3, 4)
    landing.july(now=at(4))
    host.asked.clear()
    landing.july(now=at(5))
    new_day = daily_path(SERIES, july(4))
    assert host.asked == [new_day, f"{new_day}.CHECKSUM"]


def test_a_new_day_joins_the_days_before_it(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    publish_days(host, 1, 2, 3, 4)
    landing.july(now=at(4))
    result = landing.july(now=at(5))
    assert (result.rows, result.downloads, opens(zone)) == (96, 1, hours_of(1, 2, 3, 4))


def test_a_new_day_keeps_the_provenance_of_the_days_before_it(
    host: ArchiveHost, landing: Landing, zone: RawZone
) -> None:
    publish_days(host, 1, 2, 3)
    landing.july(now=at(3))
    landing.july(now=at(4))
    landed = zone.provenance(SERIES, JULY)
    assert [file.url[-14:-4] for file in landed.files] == ["2024-07-01", "2024-07-02", "2024-07-03"]
    assert (landed.source, landed.rows) == ("archive_daily", 72)


def test_days_cover_the_month_until_the_end_of_the_last_one(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    publish_days(host, 1, 2)
    landing.july(now=at(4))
    assert zone.provenance(SERIES, JULY).covered_until == at(3, 0)


def test_a_day_that_comes_late_is_asked_for_again_and_put_in_its_place(
    host: ArchiveHost, landing: Landing, zone: RawZone
) -> None:
    publish_days(host, 1, 3)
    landing.july(now=at(4))
    publish_days(host, 2)
    host.asked.clear()
    landing.july(now=at(4))
    assert (days_asked(host), opens(zone)) == (["2024-07-02"], hours_of(1, 2, 3))


def test_a_day_that_comes_late_does_not_shorten_what_is_covered(
    host: ArchiveHost, landing: Landing, zone: RawZone
) -> None:
    publish_days(host, 1, 3)
    landing.july(now=at(4))
    publish_days(host, 2)
    landing.july(now=at(4))
    assert zone.provenance(SERIES, JULY).covered_until == at(4, 0)


def test_a_running_month_without_a_new_day_is_unchanged(host: ArchiveHost, landing: Landing) -> None:
    publish_days(host, 1, 2)
    landing.july(now=at(3))
    assert landing.july(now=at(3, 23)) == MonthResult(SERIES, JULY, Outcome.UNCHANGED, 48)


# --- the month turns over --------------------------------------------------------------------------------------


def _days_then_month(host: ArchiveHost, landing: Landing) -> None:
    publish_days(host, *range(1, 31))
    landing.july(now=at(31))
    publish_month(host, JULY, price="2.00000000")
    landing.july(now=datetime(2024, 8, 5, 12, tzinfo=UTC))


def test_the_monthly_file_replaces_the_days(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    _days_then_month(host, landing)
    rows = zone.read_history(SERIES, JULY)
    assert set(zip(rows["source"].to_pylist(), rows["close"].to_pylist(), strict=True)) == {
        ("archive_monthly", Decimal(2))
    }
    assert opens(zone) == hours_of(*range(1, 32))


def test_after_the_monthly_file_only_it_is_named_as_the_origin(
    host: ArchiveHost, landing: Landing, zone: RawZone
) -> None:
    _days_then_month(host, landing)
    landed = zone.provenance(SERIES, JULY)
    assert (landed.source, [file.url for file in landed.files]) == ("archive_monthly", [f"{host.url}/{JULY_ZIP}"])


def test_a_month_whose_file_is_late_lands_from_its_days(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    publish_days(host, *range(1, 32))
    landing.july(now=datetime(2024, 8, 1, 10, tzinfo=UTC))
    landed = zone.provenance(SERIES, JULY)
    assert (landed.source, landed.rows, landed.covered_until) == ("archive_daily", 744, JULY.end)


def test_a_month_landed_from_days_is_asked_for_whole_until_it_comes(host: ArchiveHost, landing: Landing) -> None:
    publish_days(host, *range(1, 32))
    landing.july(now=datetime(2024, 8, 1, 10, tzinfo=UTC))
    host.asked.clear()
    landing.july(now=datetime(2024, 8, 2, 10, tzinfo=UTC))
    assert host.asked == [JULY_ZIP]


def test_the_days_of_a_month_long_gone_are_not_asked_for(host: ArchiveHost, landing: Landing) -> None:
    landing.july(now=datetime(2024, 12, 1, tzinfo=UTC))
    assert host.asked == [JULY_ZIP]


# --- an exchange that refuses ----------------------------------------------------------------------------------


def test_a_refusal_ends_the_run(host: ArchiveHost, landing: Landing) -> None:
    publish_month(host, JULY)
    host.script(monthly_path(SERIES, AUGUST), 403)
    with pytest.raises(ExchangeRefused):
        landing.months(JULY, AUGUST)


def test_what_landed_before_a_refusal_stays(host: ArchiveHost, archive: Archive, zone: RawZone) -> None:
    publish_month(host, JULY)
    host.script(monthly_path(SERIES, AUGUST), 403)
    with pytest.raises(ExchangeRefused):
        land(archive, zone, [SERIES], [JULY, AUGUST], workers=1, now=LATER)
    assert opens(zone) == hours_of(*range(1, 32))


def test_a_run_after_a_refusal_goes_on_where_it_ended(host: ArchiveHost, archive: Archive, zone: RawZone) -> None:
    publish_month(host, JULY)
    host.script(monthly_path(SERIES, AUGUST), 403)
    with pytest.raises(ExchangeRefused):
        land(archive, zone, [SERIES], [JULY, AUGUST], workers=1, now=LATER)
    publish_month(host, AUGUST)
    outcomes = [r.outcome for r in land(archive, zone, [SERIES], [JULY, AUGUST], workers=1, now=LATER)]
    assert outcomes == [Outcome.UNCHANGED, Outcome.LANDED]


def test_a_disk_that_is_full_ends_the_run(
    host: ArchiveHost, landing: Landing, zone: RawZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError("No space left on device")

    publish_month(host, JULY)
    monkeypatch.setattr(zone, "write_history", full)
    with pytest.raises(OSError, match="No space left"):
        landing.july()


# --- real and simulated ----------------------------------------------------------------------------------------


def test_data_of_the_exchange_bind_the_zone_to_it(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    publish_month(host, JULY)
    landing.july()
    assert zone.environment() == Environment("exchange")


def test_a_simulated_file_is_not_landed_beside_real_ones(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    publish_month(host, JULY)
    landing.july()
    path = monthly_path(SERIES, AUGUST)
    content = host.publish(path, hours(AUGUST.start, AUGUST.end))
    host.script(path, host.reply(body=content, headers={"x-klinehouse-simulated": "seed 1"}))
    with pytest.raises(ConfigurationError):
        landing.months(AUGUST)
    assert [file.month for file in zone.history_files()] == [JULY]


# --- two at once -----------------------------------------------------------------------------------------------


def test_two_threads_landing_one_month_at_once_give_the_same_rows(
    host: ArchiveHost, archive: Archive, zone: RawZone
) -> None:
    both_are_here = threading.Barrier(2)
    host.script(JULY_ZIP, host.reply(body=host.publish(JULY_ZIP, hours(JULY.start, JULY.end)), gate=both_are_here))
    threads = [
        threading.Thread(target=land, args=(archive, one, [SERIES], [JULY]), kwargs={"workers": 1, "now": LATER})
        for one in (zone, RawZone(zone.root))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opens(zone) == hours_of(*range(1, 32))


_LAND_JULY = """
import sys
from ingestion.binance.archive import Archive
from ingestion.history import land
from ingestion.klines import Month, Series
from ingestion.raw_zone import RawZone
from ingestion.settings import load_settings

with Archive(load_settings(archive_url=sys.argv[1])) as archive:
    [result] = land(archive, RawZone(sys.argv[2]), [Series("BTCUSDT", "1h")], [Month(2024, 7)], workers=1)
print(result.outcome, result.rows)
"""


def test_two_processes_landing_one_month_at_once_both_land_it(host: ArchiveHost, zone: RawZone) -> None:
    both_are_here = threading.Barrier(2)
    host.script(JULY_ZIP, host.reply(body=host.publish(JULY_ZIP, hours(JULY.start, JULY.end)), gate=both_are_here))
    command = [sys.executable, "-c", _LAND_JULY, host.url, zone.root]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in processes] == ["landed 744\n"] * 2
    assert opens(zone) == hours_of(*range(1, 32))


# --- the plan --------------------------------------------------------------------------------------------------

months = st.dates(date(2019, 1, 1), date(2027, 12, 31)).map(Month.containing)
daily_intervals = st.sampled_from([i for i in INTERVAL_MICROS if i not in ("3d", "1w", "1M")])
edges = st.sampled_from([timedelta(microseconds=-1), timedelta(0), timedelta(hours=12), timedelta(days=62)])
around = edges | st.timedeltas(timedelta(days=-40), timedelta(days=120))


def landed_days(series: Series, days: list[date]) -> Provenance | None:
    files = [SourceFile(f"https://x/{daily_path(series, day)}", "", 1, 1, LATER) for day in days]
    return Provenance("archive_daily", tuple(files), len(files), LATER) if files else None


@st.composite
def states(draw: st.DrawFn) -> tuple[Series, Month, datetime, list[date]]:
    """A series, a month, a moment near it and the days of the month that have landed by then."""
    month = draw(months)
    now = draw(st.sampled_from([month.start, month.end])) + draw(around)
    over = [day for day in month.days() if day < now.date()]
    landed = draw(st.lists(st.sampled_from(over), unique=True)) if over else []
    return Series("BTCUSDT", draw(daily_intervals)), month, now, sorted(landed)


@given(states())
def test_a_plan_never_asks_for_today_or_the_future(state: tuple[Series, Month, datetime, list[date]]) -> None:
    series, month, now, landed = state
    assert all(day < now.date() for day in plan_month(series, month, now, landed_days(series, landed)).days)


@given(states())
def test_a_plan_never_asks_for_a_day_that_has_landed(state: tuple[Series, Month, datetime, list[date]]) -> None:
    series, month, now, landed = state
    assert not set(plan_month(series, month, now, landed_days(series, landed)).days) & set(landed)


@given(states())
def test_a_plan_asks_for_days_of_its_own_month_in_order_and_once(
    state: tuple[Series, Month, datetime, list[date]],
) -> None:
    series, month, now, landed = state
    planned = plan_month(series, month, now, landed_days(series, landed)).days
    assert list(planned) == sorted(set(planned) & set(month.days()))


@given(states())
def test_a_plan_asks_for_the_monthly_file_exactly_when_the_month_is_over(
    state: tuple[Series, Month, datetime, list[date]],
) -> None:
    series, month, now, landed = state
    assert plan_month(series, month, now, landed_days(series, landed)).monthly == (now >= month.end)


@given(states())
def test_a_plan_leaves_no_day_out_until_two_months_after(state: tuple[Series, Month, datetime, list[date]]) -> None:
    series, month, now, landed = state
    over = {day for day in month.days() if day < now.date()} if now - month.end <= timedelta(days=62) else set(landed)
    assert set(plan_month(series, month, now, landed_days(series, landed)).days) | set(landed) == over


@given(states())
def test_a_month_landed_whole_needs_nothing(state: tuple[Series, Month, datetime, list[date]]) -> None:
    series, month, now, _ = state
    landed = Provenance("archive_monthly", (), 0, month.end)
    plan = plan_month(series, month, now, landed)
    assert (plan.monthly, plan.days) == (False, ())


@given(months, st.lists(around, min_size=1, max_size=20))
def test_a_month_landed_bit_by_bit_asks_for_each_day_once(month: Month, moments: list[timedelta]) -> None:
    asked: list[date] = []
    for moment in sorted(moments):
        asked += plan_month(SERIES, month, month.start + moment, landed_days(SERIES, asked)).days
    assert len(asked) == len(set(asked))


@given(months, around, st.sampled_from(["3d", "1w", "1M"]))
def test_intervals_without_daily_files_are_never_asked_for_by_day(
    month: Month, moment: timedelta, interval: str
) -> None:
    assert plan_month(Series("BTCUSDT", interval), month, month.start + moment, None).days == ()


# --- the real archive ------------------------------------------------------------------------------------------

FIVE_MINUTES = Series("BTCUSDT", "5m")
RECORDED = [Month(2024, number) for number in range(7, 13)] + [Month(2025, 1)]
CSV_COLUMNS = {
    "open": 1,
    "high": 2,
    "low": 3,
    "close": 4,
    "volume": 5,
    "quote_volume": 7,
    "taker_buy_base_volume": 9,
    "taker_buy_quote_volume": 10,
}


class _Counted:
    """Serves the recorded archive and keeps the paths it was asked for."""

    def __init__(self, data: Path) -> None:
        self._app, self.asked = build_app(data=data), []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        await self._app(scope, receive, send)


def _recorded_rows(folder: Path) -> list[list[str]]:
    rows = []
    for month in RECORDED:
        with zipfile.ZipFile(folder / monthly_path(FIVE_MINUTES, month)) as archive:
            [name] = archive.namelist()
            rows += csv.reader(io.StringIO(archive.read(name).decode()))
    return rows


@pytest.mark.shared
def test_the_real_archive_lands_equal_to_its_text_and_only_once(shared_data: Path, zone: RawZone) -> None:
    app = _Counted(shared_data / "archive")
    now = datetime(2025, 3, 1, tzinfo=UTC)
    with running(app) as url, Archive(load_settings(archive_url=url)) as archive:
        landed = land(archive, zone, [FIVE_MINUTES], RECORDED, workers=2, now=now)
        app.asked.clear()
        again = land(archive, zone, [FIVE_MINUTES], RECORDED, workers=2, now=now)

    assert sum(result.rows for result in landed) == 61_920
    assert {result.outcome for result in again} == {Outcome.UNCHANGED}
    assert app.asked == []

    recorded = _recorded_rows(shared_data / "archive")
    tables = [zone.read_history(FIVE_MINUTES, month) for month in RECORDED]
    for name, column in CSV_COLUMNS.items():
        values = [value for table in tables for value in table[name].to_pylist()]
        assert values == [Decimal(row[column]) for row in recorded]
    for name, column in {"open_time": 0, "close_time": 6}.items():
        micros = [value for table in tables for value in table[name].cast("int64").to_pylist()]
        assert micros == [int(row[column]) * {13: 1000, 16: 1}[len(row[column])] for row in recorded]
    assert [n for table in tables for n in table["trades"].to_pylist()] == [int(row[8]) for row in recorded]


@pytest.mark.shared
def test_the_real_archive_has_no_gap_where_its_unit_changes(shared_data: Path, zone: RawZone) -> None:
    with running(build_app(data=shared_data / "archive")) as url, Archive(load_settings(archive_url=url)) as archive:
        land(archive, zone, [FIVE_MINUTES], RECORDED[-2:], workers=2, now=datetime(2025, 3, 1, tzinfo=UTC))
    last = zone.read_history(FIVE_MINUTES, Month(2024, 12)).slice(8927)
    first = zone.read_history(FIVE_MINUTES, Month(2025, 1)).slice(0, 1)
    new_year = datetime(2025, 1, 1, tzinfo=UTC)
    assert last["open_time"].to_pylist() == [new_year - timedelta(minutes=5)]
    assert last["close_time"].to_pylist() == [new_year - timedelta(milliseconds=1)]
    assert first["open_time"].to_pylist() == [new_year]
    assert first["close_time"].to_pylist() == [new_year + timedelta(minutes=5, microseconds=-1)]


# --- what others do meanwhile, and files that are not whole -----------------------------------------------------


def test_a_monthly_file_with_fewer_bars_than_its_days_is_refused(
    host: ArchiveHost, landing: Landing, zone: RawZone
) -> None:
    publish_days(host, 1, 2, 3)
    landing.july(now=at(4))
    host.publish(JULY_ZIP, hours(at(1, 0), at(3, 0)))
    result = landing.july(now=datetime(2024, 8, 2, tzinfo=UTC))
    assert result.outcome is Outcome.QUARANTINED
    assert opens(zone) == hours_of(1, 2, 3)


class Interrupted:
    """An archive at which another process lands the same month while a file is on its way."""

    def __init__(self, archive: Archive, meanwhile: Callable[[], object]) -> None:
        self._archive, self._meanwhile = archive, meanwhile

    def fetch(self, path: str) -> ArchiveFile | None:
        found = self._archive.fetch(path)
        if found is not None:
            self._meanwhile()
        return found


def test_a_day_that_two_processes_land_at_once_is_there_once(
    host: ArchiveHost, archive: Archive, landing: Landing, zone: RawZone
) -> None:
    publish_days(host, 1, 2)
    interrupted = Interrupted(archive, lambda: landing.july(now=at(3)))
    land(cast("Archive", interrupted), zone, [SERIES], [JULY], workers=1, now=at(3))
    assert opens(zone) == hours_of(1, 2)


def test_days_do_not_replace_a_monthly_file_that_landed_meanwhile(
    host: ArchiveHost, archive: Archive, landing: Landing, zone: RawZone
) -> None:
    publish_days(host, 1, 2)

    def monthly_appears() -> None:
        publish_month(host, JULY)
        landing.july()

    interrupted = Interrupted(archive, monthly_appears)
    land(cast("Archive", interrupted), zone, [SERIES], [JULY], workers=1, now=datetime(2024, 8, 2, tzinfo=UTC))
    assert opens(zone) == hours_of(*range(1, 32))
