from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.hourly import EPOCH, HOUR, JULY, JULY_ZIP, LATER, SERIES, Landing, Publisher, at, hours, hours_of, kline

from ingestion.binance.archive import Archive, ArchiveFile, daily_path, monthly_path
from ingestion.errors import ConfigurationError, ExchangeRefused
from ingestion.grid import Window
from ingestion.history.month import MonthResult, Outcome
from ingestion.klines import Month, Series
from ingestion.raw_zone import Environment, RawZone

if TYPE_CHECKING:
    from tests.ingestion.conftest import ArchiveHost

AUGUST, SEPTEMBER = Month(2024, 8), Month(2024, 9)
ALL_OF_JULY = tuple(range(1, 32))


def july(day: int) -> date:
    return date(2024, 7, day)


def july_zip(day: int) -> str:
    return daily_path(SERIES, july(day))


def zips(host: ArchiveHost) -> list[str]:
    return [path for path in host.asked if path.endswith(".zip")]


def days_asked(host: ArchiveHost) -> list[str]:
    return [path[-14:-4] for path in zips(host) if "/daily/" in path]


def files_of(zone: RawZone) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file of a local zone."""
    root = Path(zone.root)
    paths = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


# --- a closed month --------------------------------------------------------------------------------------------


def test_a_closed_month_lands_whole(exchange: Publisher, landing: Landing) -> None:
    exchange.month()
    landing.july()
    assert landing.opens() == hours_of(*ALL_OF_JULY)


def test_a_landed_month_is_reported_with_its_rows_and_downloads(exchange: Publisher, landing: Landing) -> None:
    size = len(exchange.month())
    result = landing.july()
    assert (result.series, result.month, result.outcome, result.rows) == (SERIES, JULY, Outcome.LANDED, 744)
    assert (result.downloads, result.downloaded_bytes, result.problems, result.missing) == (1, size, (), ())


def test_a_landed_month_tells_its_file_and_that_it_is_complete(
    host: ArchiveHost, exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    exchange.month()
    landing.july()
    landed = zone.provenance(SERIES, JULY)
    assert (landed.sources, landed.rows, landed.covered_until) == (("archive_monthly",), 744, JULY.end)
    assert [(file.url, file.rows) for file in landed.files] == [(f"{host.url}/{JULY_ZIP}", 744)]
    assert (landed.holes, landed.replaced, landed.off_grid) == ((), (), 0)


def test_the_rows_of_a_month_out_of_order_land_in_order(host: ArchiveHost, landing: Landing) -> None:
    lines = hours(JULY.start, JULY.end).splitlines(keepends=True)
    host.publish(JULY_ZIP, b"".join(reversed(lines)))
    landing.july()
    assert landing.opens() == hours_of(*ALL_OF_JULY)


def test_landing_again_downloads_nothing(host: ArchiveHost, exchange: Publisher, landing: Landing) -> None:
    exchange.month()
    landing.july()
    host.asked.clear()
    host.asked_rest.clear()
    landing.july()
    assert (host.asked, host.asked_rest) == ([f"{JULY_ZIP}.CHECKSUM"], [])


def test_landing_again_reports_the_month_unchanged(exchange: Publisher, landing: Landing) -> None:
    exchange.month()
    landing.july()
    again = landing.july()
    assert (again.outcome, again.rows, again.files, again.problems) == (Outcome.UNCHANGED, 744, (), ())


def test_landing_again_changes_no_file(exchange: Publisher, landing: Landing, zone: RawZone) -> None:
    exchange.days(*range(1, 11))
    exchange.rest(at(1, 0), at(12, 10))
    landing.july(now=at(12))
    before = files_of(zone)
    again = landing.july(now=at(12))
    assert (again.outcome, again.files, files_of(zone)) == (Outcome.UNCHANGED, (), before)


def test_a_month_that_the_exchange_does_not_have_is_absent(landing: Landing) -> None:
    result = landing.july()
    assert (result.rows, result.problems) == (0, ())


def test_an_absent_month_leaves_no_rows_in_the_zone(exchange: Publisher, landing: Landing, zone: RawZone) -> None:
    exchange.rest(AUGUST.start, AUGUST.end)
    assert landing.july().outcome is Outcome.ABSENT
    assert zone.history_files() == []


def test_a_month_before_the_first_bar_is_asked_for_once(
    host: ArchiveHost, exchange: Publisher, landing: Landing
) -> None:
    exchange.rest(AUGUST.start, AUGUST.end)
    landing.july()
    host.asked.clear()
    host.asked_rest.clear()
    landing.july()
    assert (host.asked, host.asked_rest) == ([], [])


def test_a_calendar_month_bar_lands_from_the_file_named_1mo(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    monthly = Series("BTCUSDT", "1M")
    path = "data/spot/monthly/klines/BTCUSDT/1mo/BTCUSDT-1mo-2024-07.zip"
    host.publish(path, hours(JULY.start, JULY.start + HOUR))
    landing.months(JULY, series=monthly)
    assert zone.read_history(monthly, JULY)["interval"].to_pylist() == ["1M"]


# --- quarantine ------------------------------------------------------------------------------------------------


def test_a_bad_file_is_reported_as_quarantined(exchange: Publisher, landing: Landing) -> None:
    exchange.month()
    exchange.break_file()
    [problem] = landing.july().quarantined
    assert problem.url.endswith(JULY_ZIP)
    assert problem.reason.startswith("SHA-256 is")


def test_a_bad_file_is_kept_with_its_reason(
    host: ArchiveHost, exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    exchange.month()
    exchange.break_file()
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
    host.publish(JULY_ZIP, hours(JULY.start, JULY.end + HOUR))
    [problem] = landing.july().quarantined
    assert "outside of" in problem.reason
    assert zone.provenance(SERIES, JULY) is None or zone.read_history(SERIES, JULY).num_rows == 0


def test_a_bad_month_does_not_stop_the_others(exchange: Publisher, landing: Landing) -> None:
    for month in (JULY, AUGUST, SEPTEMBER):
        exchange.month(month)
    exchange.break_file(monthly_path(SERIES, AUGUST))
    results = landing.months(JULY, AUGUST, SEPTEMBER)
    assert [len(result.quarantined) for result in results] == [0, 1, 0]
    assert [result.rows for result in results] == [744, 0, 720]


def test_a_bad_month_lands_once_it_is_good(exchange: Publisher, landing: Landing) -> None:
    exchange.month()
    exchange.break_file()
    landing.july()
    exchange.month()
    result = landing.july()
    assert (result.outcome, result.rows, result.problems) == (Outcome.LANDED, 744, ())


def test_a_bad_month_leaves_the_quarantine_when_it_lands(exchange: Publisher, landing: Landing, zone: RawZone) -> None:
    exchange.month()
    exchange.break_file()
    landing.july()
    exchange.month()
    landing.july()
    assert zone.quarantined() == []


def test_a_bad_file_is_not_downloaded_again_while_it_is_the_same(
    host: ArchiveHost, exchange: Publisher, landing: Landing
) -> None:
    exchange.month()
    exchange.break_file()
    landing.july()
    host.asked.clear()
    again = landing.july()
    assert JULY_ZIP not in zips(host)
    assert again.quarantined == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda host: host.script(JULY_ZIP, b"other"),
        lambda host: host.script(f"{JULY_ZIP}.CHECKSUM", b"another line"),
        lambda host: host.script(JULY_ZIP, host.reply(body=b"broken", headers={"ETag": "new"})),
    ],
    ids=["its size", "its checksum", "its etag"],
)
def test_a_bad_file_is_downloaded_again_when_it_changes(
    host: ArchiveHost, exchange: Publisher, landing: Landing, change: Callable[[ArchiveHost], None]
) -> None:
    exchange.month()
    exchange.break_file()
    landing.july()
    change(host)
    host.asked.clear()
    again = landing.july()
    assert JULY_ZIP in zips(host)
    assert len(again.quarantined) == 1


def test_a_file_too_large_is_not_downloaded_again(host: ArchiveHost, exchange: Publisher, landing: Landing) -> None:
    exchange.month()
    host.script(JULY_ZIP, bytes(2 << 20))
    [problem] = landing.july().quarantined
    assert "larger than 1 MB" in problem.reason
    host.asked.clear()
    landing.july()
    assert JULY_ZIP not in zips(host)


def test_a_checksum_without_end_is_a_bad_checksum(host: ArchiveHost, exchange: Publisher, landing: Landing) -> None:
    exchange.month()
    landing.july()
    host.script(f"{JULY_ZIP}.CHECKSUM", bytes(2 << 20))
    [problem] = landing.july().quarantined
    assert "is not the checksum line" in problem.reason


def test_a_bad_day_does_not_stop_the_other_days(exchange: Publisher, landing: Landing) -> None:
    exchange.days(1, 2, 3)
    exchange.break_file(july_zip(2))
    result = landing.july(now=at(4))
    assert (len(result.quarantined), landing.opens()) == (1, hours_of(1, 3))


def test_a_bad_day_heals_in_its_place(exchange: Publisher, landing: Landing, zone: RawZone) -> None:
    exchange.days(1, 2, 3)
    exchange.break_file(july_zip(2))
    landing.july(now=at(4))
    exchange.days(2)
    landing.july(now=at(4))
    assert (landing.opens(), zone.quarantined()) == (hours_of(1, 2, 3), [])


def test_a_bad_monthly_file_gives_way_to_its_days(exchange: Publisher, landing: Landing) -> None:
    exchange.month()
    exchange.break_file()
    exchange.days(*ALL_OF_JULY)
    result = landing.july(now=datetime(2024, 8, 2, tzinfo=UTC))
    assert (landing.opens(), {source for _, source, _ in landing.bars()}) == (
        hours_of(*ALL_OF_JULY),
        {"archive_daily"},
    )
    assert [problem.replaced_by for problem in result.quarantined] == ["744 bars of archive_daily"]


def test_a_bad_monthly_file_and_a_bad_day_give_way_to_rest(exchange: Publisher, landing: Landing) -> None:
    exchange.month()
    exchange.break_file()
    exchange.days(*ALL_OF_JULY)
    exchange.break_file(july_zip(9))
    exchange.rest(JULY.start, JULY.end)
    result = landing.july(now=datetime(2024, 8, 2, tzinfo=UTC))
    assert landing.opens() == hours_of(*ALL_OF_JULY)
    assert {opens for opens, source, _ in landing.bars() if source == "rest"} == set(hours_of(9))
    assert [problem.replaced_by for problem in result.quarantined] == [
        "720 bars of archive_daily, 24 bars of rest",
        "24 bars of rest",
    ]


def test_a_file_that_returns_to_what_has_landed_leaves_the_quarantine(
    host: ArchiveHost, exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    exchange.month()
    landing.july()
    host.script(f"{JULY_ZIP}.CHECKSUM", b"0" * 64 + b"  BTCUSDT-1h-2024-07.zip\n")
    [problem] = landing.july().quarantined
    assert problem.replaced_by == "744 bars of archive_monthly"
    exchange.month()
    assert landing.july().outcome is Outcome.UNCHANGED
    assert zone.quarantined() == []


# --- rows that break a rule ------------------------------------------------------------------------------------


def _with_broken_rows(host: ArchiveHost, *broken: datetime) -> None:
    lines = hours(JULY.start, JULY.end).decode().splitlines()
    for opens in broken:
        place = (opens - JULY.start) // HOUR
        row = kline(opens)
        row[3] = "1.00000001"  # the low, above everything
        lines[place] = ",".join(map(str, row))
    host.publish(JULY_ZIP, "\n".join(lines).encode())


def test_broken_rows_are_kept_apart_and_filled_from_rest(
    host: ArchiveHost, exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    _with_broken_rows(host, at(3), at(3, 11), at(20))
    exchange.rest(JULY.start, JULY.end, price="9.00000000")
    result = landing.july()
    assert [bar for bar in landing.bars() if bar[1] == "rest"] == [
        (opens, "rest", "9.00") for opens in (at(3), at(3, 11), at(20))
    ]
    assert landing.opens() == hours_of(*ALL_OF_JULY)
    [problem] = result.quarantined
    assert (problem.reason, problem.replaced_by) == ("3 rows break low <= open", "3 bars of rest")
    [note] = zone.quarantined()
    assert note["rows"] == 3
    kept = Path(problem.kept_in).read_text().splitlines()
    assert len(kept) == 4
    assert all(line.endswith('"low <= open"') for line in kept[1:])


def test_broken_rows_that_nothing_replaces_are_said_to_be_so(host: ArchiveHost, landing: Landing) -> None:
    _with_broken_rows(host, at(3))
    result = landing.july()
    assert [problem.replaced_by for problem in result.quarantined] == ["nothing yet"]
    assert landing.opens() == [opens for opens in hours_of(*ALL_OF_JULY) if opens != at(3)]


def test_broken_rows_leave_the_quarantine_with_a_corrected_file(
    host: ArchiveHost, exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    _with_broken_rows(host, at(3))
    landing.july()
    assert zone.provenance(SERIES, JULY).files[0].broken == 1
    exchange.month()
    landing.july()
    assert zone.quarantined() == []
    assert sum(file.broken for file in zone.provenance(SERIES, JULY).files) == 0


def test_a_file_of_broken_rows_only_leaves_the_month_to_rest(
    host: ArchiveHost, exchange: Publisher, landing: Landing
) -> None:
    _with_broken_rows(host, *hours_of(*ALL_OF_JULY))
    exchange.rest(JULY.start, JULY.end)
    landing.july()
    assert {source for _, source, _ in landing.bars()} == {"rest"}
    assert landing.opens() == hours_of(*ALL_OF_JULY)


def test_duplicates_and_conflicts_are_counted_and_the_later_row_counts(
    host: ArchiveHost, landing: Landing, zone: RawZone
) -> None:
    again = hours(at(5, 0), at(5, 3))
    other = hours(at(6, 0), at(6, 2), price="3.00000000")
    host.publish(JULY_ZIP, hours(JULY.start, JULY.end) + again + other)
    landing.july()
    [file] = zone.provenance(SERIES, JULY).files
    assert (file.rows, file.duplicates, file.conflicts) == (744, 3, 2)
    assert [bar for bar in landing.bars() if bar[2] == "3.00"] == [
        (opens, "archive_monthly", "3.00") for opens in (at(6, 0), at(6, 1))
    ]
    found = zone.read_differences(SERIES, JULY).to_pylist()
    assert {(row["open_time"], row["field"], row["kept_value"], row["other_value"]) for row in found} == {
        (opens, field, "3.00000000", "1.00000000")
        for opens in (at(6, 0), at(6, 1))
        for field in ("open", "high", "low", "close")
    }


def test_bars_off_the_grid_are_kept_and_counted(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    shifted = at(9, 5) + timedelta(minutes=28, seconds=14)
    text = hours(JULY.start, JULY.end, missing=(at(9, 5),)).decode()
    host.publish(JULY_ZIP, (text + ",".join(map(str, kline(shifted))) + "\n").encode())
    landing.july()
    landed = zone.provenance(SERIES, JULY)
    assert (landed.off_grid, landed.holes, landed.rows) == (1, (), 744)
    assert shifted in landing.opens()


# --- the running month -----------------------------------------------------------------------------------------


def test_the_running_month_lands_day_by_day_up_to_yesterday(exchange: Publisher, landing: Landing) -> None:
    exchange.days(1, 2, 3, 4)
    landing.july(now=at(4))
    assert landing.opens() == hours_of(1, 2, 3)


def test_the_running_month_is_asked_for_by_days_alone(host: ArchiveHost, exchange: Publisher, landing: Landing) -> None:
    exchange.days(1, 2, 3)
    landing.july(now=at(4))
    assert zips(host) == [july_zip(day) for day in (1, 2, 3)]


def test_the_rest_of_the_running_month_comes_from_rest_up_to_the_last_closed_bar(
    exchange: Publisher, landing: Landing
) -> None:
    exchange.days(1, 2, 3)
    exchange.rest(at(1, 0), at(4, 11))  # the bar of ten is open
    landing.july(now=at(4, 10) + timedelta(minutes=30))
    assert landing.opens() == [*hours_of(1, 2, 3), *(at(4, hour) for hour in range(10))]
    assert {source for opens, source, _ in landing.bars() if opens >= at(4, 0)} == {"rest"}


def test_a_closed_bar_that_rest_does_not_have_yet_is_asked_for_again(exchange: Publisher, landing: Landing) -> None:
    exchange.rest(at(1, 0), at(1, 9))
    landing.july(now=at(1, 10) + timedelta(minutes=1))
    exchange.rest(at(1, 9), at(1, 10))
    landing.july(now=at(1, 10) + timedelta(minutes=2))
    assert landing.opens() == [at(1, hour) for hour in range(10)]


def test_only_the_new_day_is_asked_for_next_time(host: ArchiveHost, exchange: Publisher, landing: Landing) -> None:
    exchange.days(1, 2, 3, 4)
    landing.july(now=at(4))
    host.asked.clear()
    landing.july(now=at(5))
    assert zips(host) == [july_zip(4)]


def test_a_new_day_joins_the_days_before_it(exchange: Publisher, landing: Landing) -> None:
    exchange.days(1, 2, 3, 4)
    landing.july(now=at(4))
    result = landing.july(now=at(5))
    assert (result.rows, result.downloads, landing.opens()) == (96, 1, hours_of(1, 2, 3, 4))


def test_a_new_day_keeps_the_provenance_of_the_days_before_it(
    exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    exchange.days(1, 2, 3)
    landing.july(now=at(3))
    landing.july(now=at(4))
    landed = zone.provenance(SERIES, JULY)
    days = [file.url[-14:-4] for file in landed.files if file.source == "archive_daily"]
    assert days == ["2024-07-01", "2024-07-02", "2024-07-03"]
    assert (landed.sources, landed.rows) == (("archive_daily",), 72)


def test_a_month_is_covered_until_what_was_asked_for(exchange: Publisher, landing: Landing, zone: RawZone) -> None:
    exchange.days(1, 2)
    exchange.rest(at(1, 0), at(3, 4))
    landing.july(now=at(3, 4) + timedelta(minutes=5))
    assert zone.provenance(SERIES, JULY).covered_until == at(3, 4)


def test_days_cover_the_month_until_the_end_of_the_last_one(
    host: ArchiveHost, exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    exchange.days(1, 2)
    host.blocked = host.reply(403)
    landing.july(now=at(4))
    assert zone.provenance(SERIES, JULY).covered_until == at(3, 0)


def test_a_day_that_comes_late_is_asked_for_again_and_put_in_its_place(
    host: ArchiveHost, exchange: Publisher, landing: Landing
) -> None:
    exchange.days(1, 3)
    landing.july(now=at(4))
    exchange.days(2)
    host.asked.clear()
    landing.july(now=at(4))
    assert (days_asked(host), landing.opens()) == (["2024-07-02"], hours_of(1, 2, 3))


def test_a_day_that_comes_late_takes_the_place_of_rest(exchange: Publisher, landing: Landing, zone: RawZone) -> None:
    exchange.days(1, 3)
    exchange.rest(at(1, 0), at(4, 0), price="2.00000000")
    landing.july(now=at(4, 0))
    exchange.days(2)
    landing.july(now=at(4, 0))
    assert landing.bars() == [(opens, "archive_daily", "1.00") for opens in hours_of(1, 2, 3)]
    changed = zone.read_differences(SERIES, JULY).to_pylist()
    assert {(row["open_time"], row["kept_source"], row["other_source"]) for row in changed} == {
        (opens, "archive_daily", "rest") for opens in hours_of(2)
    }


def test_a_day_that_comes_late_does_not_shorten_what_is_covered(
    host: ArchiveHost, exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    exchange.days(1, 3)
    host.blocked = host.reply(403)
    landing.july(now=at(4))
    exchange.days(2)
    landing.july(now=at(4))
    assert zone.provenance(SERIES, JULY).covered_until == at(4, 0)


def test_a_running_month_without_a_new_day_is_unchanged(exchange: Publisher, landing: Landing) -> None:
    exchange.days(1, 2)
    landing.july(now=at(3))
    again = landing.july(now=at(3))
    assert (again.outcome, again.rows, again.files) == (Outcome.UNCHANGED, 48, ())


def test_a_month_asked_for_every_few_minutes_remembers_one_answer_of_rest(
    exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    exchange.rest(at(1, 0), at(4, 0))
    came = [landing.july(now=at(1, 0) + timedelta(minutes=20 * step)) for step in range(1, 150)]
    [file] = zone.provenance(SERIES, JULY).files
    assert (file.source, file.start, file.rows) == ("rest", at(1, 0), 49)
    assert file.bytes == sum(result.downloaded_bytes for result in came)
    assert landing.opens() == [at(1, 0) + i * HOUR for i in range(49)]


def test_every_day_that_exists_lands_though_the_first_and_the_last_are_late(
    host: ArchiveHost, exchange: Publisher, landing: Landing
) -> None:
    exchange.days(*range(2, 10))
    host.blocked = host.reply(403)
    result = landing.july(now=at(11))
    assert (result.outcome, landing.opens()) == (Outcome.INCOMPLETE, hours_of(*range(2, 10)))


# --- the month turns over --------------------------------------------------------------------------------------


def _days_then_month(exchange: Publisher, landing: Landing) -> MonthResult:
    exchange.days(*range(1, 31))
    landing.july(now=at(31, 0))
    exchange.month(price="2.00000000")
    return landing.july(now=datetime(2024, 8, 5, 12, tzinfo=UTC))


def test_the_monthly_file_replaces_the_days(exchange: Publisher, landing: Landing) -> None:
    _days_then_month(exchange, landing)
    assert landing.bars() == [(opens, "archive_monthly", "2.00") for opens in hours_of(*ALL_OF_JULY)]


def test_after_the_monthly_file_only_it_is_named_as_the_origin(
    host: ArchiveHost, exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    _days_then_month(exchange, landing)
    landed = zone.provenance(SERIES, JULY)
    assert (landed.sources, [file.url for file in landed.files]) == (("archive_monthly",), [f"{host.url}/{JULY_ZIP}"])


def test_what_the_monthly_file_says_differently_is_remembered(
    exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    _days_then_month(exchange, landing)
    found = zone.read_differences(SERIES, JULY).to_pylist()
    assert len(found) == 4 * 24 * 30
    assert {(row["kept_source"], row["kept_value"], row["other_source"], row["other_value"]) for row in found} == {
        ("archive_monthly", "2.00000000", "archive_daily", "1.00000000")
    }


def test_a_month_whose_file_is_late_lands_from_its_days(exchange: Publisher, landing: Landing, zone: RawZone) -> None:
    exchange.days(*ALL_OF_JULY)
    landing.july(now=datetime(2024, 8, 1, 10, tzinfo=UTC))
    landed = zone.provenance(SERIES, JULY)
    assert (landed.sources, landed.rows, landed.covered_until) == (("archive_daily",), 744, JULY.end)


def test_a_month_landed_from_days_is_asked_for_whole_until_it_comes(
    host: ArchiveHost, exchange: Publisher, landing: Landing
) -> None:
    exchange.days(*ALL_OF_JULY)
    landing.july(now=datetime(2024, 8, 1, 10, tzinfo=UTC))
    host.asked.clear()
    landing.july(now=datetime(2024, 8, 2, 10, tzinfo=UTC))
    assert zips(host) == [JULY_ZIP]


def test_an_old_month_without_files_is_asked_for_by_its_first_and_last_day_only(
    host: ArchiveHost, landing: Landing
) -> None:
    landing.july(now=datetime(2024, 12, 1, tzinfo=UTC))
    assert zips(host) == [JULY_ZIP, july_zip(1), july_zip(31)]


def test_an_old_month_that_rest_filled_is_not_asked_for_by_days_again(
    host: ArchiveHost, exchange: Publisher, landing: Landing
) -> None:
    exchange.rest(JULY.start, JULY.end)
    landing.july(now=datetime(2024, 12, 1, tzinfo=UTC))
    host.asked.clear()
    landing.july(now=datetime(2024, 12, 2, tzinfo=UTC))
    assert zips(host) == [JULY_ZIP]


def test_a_monthly_file_with_fewer_bars_than_its_days_is_refused(
    host: ArchiveHost, exchange: Publisher, landing: Landing
) -> None:
    exchange.days(1, 2, 3)
    landing.july(now=at(4, 0))
    host.publish(JULY_ZIP, hours(at(1, 0), at(3, 0)))
    [problem] = landing.july(now=datetime(2024, 8, 2, tzinfo=UTC)).quarantined
    assert "it has 48 bars, its daily files have 72 already" in problem.reason
    assert landing.opens() == hours_of(1, 2, 3)


def test_a_monthly_file_of_ten_days_is_completed_by_days_and_rest(
    host: ArchiveHost, exchange: Publisher, landing: Landing
) -> None:
    host.publish(JULY_ZIP, hours(at(1, 0), at(10, 6)))
    exchange.days(*range(11, 21))
    exchange.rest(JULY.start, JULY.end)
    landing.july()
    counted = {
        source: sum(own == source for _, own, _ in landing.bars())
        for source in ("archive_monthly", "archive_daily", "rest")
    }
    assert counted == {"archive_monthly": 9 * 24 + 6, "archive_daily": 240, "rest": 18 + 11 * 24}
    assert landing.opens() == hours_of(*ALL_OF_JULY)


# --- a file that changed at the source -------------------------------------------------------------------------


def test_a_corrected_monthly_file_is_noticed_and_landed_again(
    exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    exchange.month()
    landing.july()
    first = zone.provenance(SERIES, JULY).files
    exchange.month(price="2.00000000")
    result = landing.july()
    assert (result.outcome, result.downloads) == (Outcome.LANDED, 1)
    assert {bar[2] for bar in landing.bars()} == {"2.00"}
    landed = zone.provenance(SERIES, JULY)
    assert (landed.replaced, len(landed.files)) == (first, 1)
    assert zone.read_differences(SERIES, JULY).num_rows == 4 * 744


def test_a_corrected_day_is_noticed_and_landed_again(exchange: Publisher, landing: Landing, zone: RawZone) -> None:
    exchange.days(1, 2, 3)
    landing.july(now=at(4, 0))
    exchange.days(2, price="2.00000000")
    landing.july(now=at(4, 0))
    assert [opens for opens, _, close in landing.bars() if close == "2.00"] == hours_of(2)
    assert [file.start for file in zone.provenance(SERIES, JULY).replaced] == [at(2, 0)]


def test_a_corrected_day_beside_a_monthly_file_is_noticed(
    host: ArchiveHost, exchange: Publisher, landing: Landing
) -> None:
    host.publish(JULY_ZIP, hours(at(1, 0), at(10, 0)))
    exchange.days(*range(10, 32))
    landing.july()
    exchange.days(20, price="2.00000000")
    landing.july()
    assert [opens for opens, _, close in landing.bars() if close == "2.00"] == hours_of(20)


def test_bars_that_a_corrected_file_took_back_are_gone_and_remembered(
    host: ArchiveHost, exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    exchange.month()
    landing.july()
    exchange.month(missing=(at(7), at(8)))
    landing.july()
    assert landing.opens() == [opens for opens in hours_of(*ALL_OF_JULY) if opens not in (at(7), at(8))]
    gone = zone.read_differences(SERIES, JULY).to_pylist()
    assert [(row["open_time"], row["field"], row["kept_value"], row["other_value"]) for row in gone] == [
        (at(7), "bar", None, "present"),
        (at(8), "bar", None, "present"),
    ]


# --- holes -----------------------------------------------------------------------------------------------------


def test_a_hole_that_no_source_fills_is_a_hole_of_the_month_and_asked_for_once(
    host: ArchiveHost, exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    exchange.month(missing=(at(7), at(7, 11)))
    first = landing.july()
    assert first.missing == ()
    assert zone.provenance(SERIES, JULY).holes == (Window(at(7), at(7, 12)),)
    host.asked_rest.clear()
    landing.july()
    assert host.asked_rest == []


def test_a_hole_is_filled_from_rest_and_the_archive_is_said_to_lack_it(
    exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    exchange.month(missing=(at(7),))
    exchange.rest(JULY.start, JULY.end)
    landing.july()
    assert (at(7), "rest", "1.00") in landing.bars()
    [row] = zone.read_differences(SERIES, JULY).to_pylist()
    assert (row["open_time"], row["field"], row["kept_source"], row["other_source"]) == (
        at(7),
        "bar",
        "rest",
        "archive_monthly",
    )


def test_a_month_before_whose_first_bar_is_nothing_has_no_hole_there(
    host: ArchiveHost, exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    exchange.rest(at(11, 6), JULY.end)
    host.publish(JULY_ZIP, hours(at(11, 6), JULY.end))
    landing.july()
    assert zone.provenance(SERIES, JULY).holes == ()
    assert not [path for path in zips(host) if "/daily/" in path]


def test_a_series_that_ended_has_a_hole_from_then_on_and_is_asked_for_once(
    host: ArchiveHost, exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    exchange.rest(at(1, 0), at(10, 3))
    host.publish(JULY_ZIP, hours(at(1, 0), at(10, 3)))
    landing.july()
    assert zone.provenance(SERIES, JULY).holes == (Window(at(10, 3), JULY.end),)
    host.asked_rest.clear()
    landing.july()
    assert host.asked_rest == []


# --- an exchange that refuses ----------------------------------------------------------------------------------


def test_a_refusing_archive_is_raised(host: ArchiveHost, exchange: Publisher, landing: Landing) -> None:
    exchange.month()
    host.script(monthly_path(SERIES, AUGUST), 403)
    with pytest.raises(ExchangeRefused):
        landing.months(JULY, AUGUST)
    assert landing.opens() == hours_of(*ALL_OF_JULY)


def test_a_run_after_a_refusal_goes_on_where_it_ended(host: ArchiveHost, exchange: Publisher, landing: Landing) -> None:
    exchange.month()
    host.script(monthly_path(SERIES, AUGUST), 403)
    with pytest.raises(ExchangeRefused):
        landing.months(JULY, AUGUST)
    exchange.month(AUGUST)
    assert [result.outcome for result in landing.months(JULY, AUGUST)] == [Outcome.UNCHANGED, Outcome.LANDED]


@pytest.mark.parametrize("status", [403, 418, 429, 451, 503])
def test_a_refusing_rest_leaves_what_the_archive_has_and_says_so(
    host: ArchiveHost, exchange: Publisher, landing: Landing, status: int
) -> None:
    exchange.month(missing=(at(7),))
    exchange.days(1)
    host.blocked = host.reply(status)
    result = landing.july()
    assert (result.outcome, result.rows, result.missing) == (Outcome.INCOMPLETE, 743, (Window(at(7), at(7, 11)),))
    assert len(result.refused) == 1
    assert (str(status) in result.refused[0].reason) or "address" in result.refused[0].reason


def test_a_refusing_rest_is_asked_once_in_a_run(host: ArchiveHost, exchange: Publisher, landing: Landing) -> None:
    for month in (JULY, AUGUST, SEPTEMBER):
        exchange.month(month, missing=(month.start + 9 * HOUR,))
    host.blocked = host.reply(451)
    results = landing.months(JULY, AUGUST, SEPTEMBER)
    assert {result.outcome for result in results} == {Outcome.INCOMPLETE}
    assert len(host.asked_rest) == 1


def test_a_refusing_rest_that_nobody_needs_is_no_problem(
    host: ArchiveHost, exchange: Publisher, landing: Landing
) -> None:
    exchange.days(*ALL_OF_JULY)
    host.blocked = host.reply(451)
    assert landing.july(now=datetime(2024, 8, 1, 1, tzinfo=UTC)).outcome is Outcome.LANDED


def test_what_rest_refused_is_asked_for_next_time(host: ArchiveHost, exchange: Publisher, landing: Landing) -> None:
    exchange.month(missing=(at(7),))
    exchange.rest(JULY.start, JULY.end)
    host.blocked = host.reply(403)
    landing.july()
    host.blocked = None
    result = landing.july()
    assert (result.outcome, result.downloads, result.missing) == (Outcome.LANDED, 0, ())
    assert landing.opens() == hours_of(*ALL_OF_JULY)


def test_a_symbol_that_rest_does_not_know_and_the_archive_does_not_have_is_said_to_be_unknown(
    host: ArchiveHost, exchange: Publisher, landing: Landing
) -> None:
    exchange.month()
    [unknown] = landing.months(JULY, series=Series("XYZUSDT", "1h"))
    assert (unknown.outcome, unknown.is_unknown, unknown.problems) == (Outcome.ABSENT, True, ())
    july = landing.july()
    assert (july.outcome, july.is_unknown) == (Outcome.LANDED, False)


def test_a_disk_that_is_full_ends_the_run(
    exchange: Publisher, landing: Landing, zone: RawZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError("No space left on device")

    exchange.month()
    monkeypatch.setattr(zone, "create_history", full)
    with pytest.raises(OSError, match="No space left"):
        landing.july()


# --- real and simulated ----------------------------------------------------------------------------------------


def test_data_of_the_exchange_bind_the_zone_to_it(exchange: Publisher, landing: Landing, zone: RawZone) -> None:
    exchange.month()
    landing.july()
    assert zone.environment() == Environment("exchange")


def test_a_simulated_file_is_not_landed_beside_real_ones(
    host: ArchiveHost, exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    exchange.month()
    landing.july()
    path = monthly_path(SERIES, AUGUST)
    content = exchange.month(AUGUST)
    simulated = {"x-klinehouse-simulated": "seed 1"}
    host.script(path, host.reply(body=content, headers=simulated))
    host.script(f"{path}.CHECKSUM", host.reply(body=host.checksum(content, path.rsplit("/")[-1]), headers=simulated))
    with pytest.raises(ConfigurationError):
        landing.months(AUGUST)
    assert [file.month for file in zone.history_files()] == [JULY]


def test_simulated_rest_does_not_fill_a_real_month(
    host: ArchiveHost, exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    exchange.month(missing=(at(7),))
    exchange.rest(JULY.start, JULY.end)
    host.rest_headers = {"x-klinehouse-simulated": "seed 1"}
    with pytest.raises(ConfigurationError):
        landing.july()
    assert (zone.environment(), zone.history_files()) == (Environment("exchange"), [])


# --- two at once -----------------------------------------------------------------------------------------------


def _both_at_once(host: ArchiveHost, content: bytes) -> None:
    """The first two who ask for July get it only when both have asked."""
    gate = threading.Barrier(2)
    host.script(JULY_ZIP, *[host.reply(body=content, gate=gate)] * 2, content)


def test_two_threads_landing_one_month_at_once_give_the_same_rows(
    host: ArchiveHost, exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    _both_at_once(host, exchange.month())
    threads = [threading.Thread(target=Landing(host, RawZone(zone.root)).july) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert landing.opens() == hours_of(*ALL_OF_JULY)


_LAND_JULY = """
import sys
from ingestion.history.run import land_history
from ingestion.klines import Month, Series
from ingestion.settings import load_settings

url, home = sys.argv[1:]
settings = load_settings(archive_url=url, rest_url=url, home=home)
[result] = land_history(settings, [Series("BTCUSDT", "1h")], [Month(2024, 7)])
print(result.outcome, result.rows)
"""


def test_two_processes_landing_one_month_at_once_both_have_it(
    host: ArchiveHost, exchange: Publisher, landing: Landing, zone: RawZone
) -> None:
    _both_at_once(host, exchange.month())
    command = [sys.executable, "-c", _LAND_JULY, host.url, str(Path(zone.root).parent)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate()[0] for process in processes}
    assert said <= {"landed 744\n", "unchanged 744\n"}
    assert "landed 744\n" in said
    assert landing.opens() == hours_of(*ALL_OF_JULY)
    assert len(zone.provenance(SERIES, JULY).files) == 1


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Do something once, after the next archive file has been fetched."""

    def once(meanwhile: Callable[[], object]) -> None:
        fetch = Archive.fetch

        def interrupted(self: Archive, path: str) -> ArchiveFile | None:
            found = fetch(self, path)
            if found is not None:
                monkeypatch.setattr(Archive, "fetch", fetch)
                meanwhile()
            return found

        monkeypatch.setattr(Archive, "fetch", interrupted)

    return once


def test_a_day_that_two_processes_land_at_once_is_there_once(
    exchange: Publisher, landing: Landing, interrupt: Callable[[Callable[[], object]], None]
) -> None:
    exchange.days(1, 2)
    interrupt(lambda: landing.july(now=at(3)))
    landing.july(now=at(3))
    assert landing.opens() == hours_of(1, 2)


def test_days_do_not_replace_a_monthly_file_that_landed_meanwhile(
    exchange: Publisher, landing: Landing, interrupt: Callable[[Callable[[], object]], None]
) -> None:
    exchange.days(1, 2)

    def monthly_appears() -> None:
        exchange.month()
        landing.july()

    interrupt(monthly_appears)
    landing.july(now=datetime(2024, 8, 2, tzinfo=UTC))
    assert landing.bars() == [(opens, "archive_monthly", "1.00") for opens in hours_of(*ALL_OF_JULY)]


def test_rows_and_origin_are_of_one_version_when_another_process_lands_meanwhile(
    exchange: Publisher, landing: Landing, zone: RawZone, interrupt: Callable[[Callable[[], object]], None]
) -> None:
    exchange.days(1)
    landing.july(now=at(2, 0))
    exchange.days(2, 3)
    interrupt(lambda: landing.july(now=at(4, 0)))
    landing.july(now=at(3, 0))
    assert landing.opens() == hours_of(1, 2, 3)
    landed = zone.provenance(SERIES, JULY)
    assert [file.start for file in landed.files if file.source == "archive_daily"] == [at(1, 0), at(2, 0), at(3, 0)]


# --- an object store -------------------------------------------------------------------------------------------


def test_everything_works_where_the_raw_zone_is_no_folder(host: ArchiveHost, exchange: Publisher) -> None:
    zone = RawZone(f"memory://{uuid.uuid4().hex}/raw")
    landing = Landing(host, zone)
    exchange.days(1, 2)
    exchange.break_file(july_zip(2))
    exchange.rest(at(1, 0), at(3, 0), price="2.00000000")
    landing.july(now=at(3, 0))
    assert len(zone.quarantined()) == 1
    exchange.days(2)
    landing.july(now=at(3, 0))
    _with_broken_rows(host, at(9))
    landing.july()
    exchange.month(price="3.00000000")
    result = landing.july()
    assert (result.outcome, result.rows, zone.quarantined()) == (Outcome.LANDED, 744, [])
    assert zone.first_open_time(SERIES) == at(1, 0)
    assert zone.read_differences(SERIES, JULY).num_rows > 0
    assert landing.july().outcome is Outcome.UNCHANGED


# --- what a month looks like -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("month", "rows"), [(Month(2024, 2), 696), (Month(2023, 2), 672), (Month(2023, 12), 744), (Month(2024, 1), 744)]
)
def test_leap_days_and_the_turn_of_the_year(exchange: Publisher, landing: Landing, month: Month, rows: int) -> None:
    exchange.month(month)
    [result] = landing.months(month)
    assert (result.rows, result.missing) == (rows, ())
    assert landing.opens(month) == [month.start + i * HOUR for i in range(rows)]


def test_a_week_still_open_is_asked_for_again_when_it_is_over(
    host: ArchiveHost, landing: Landing, zone: RawZone
) -> None:
    week = Series("BTCUSDT", "1w")
    mondays = [datetime(2024, 7, day, tzinfo=UTC) for day in (1, 8, 15, 22, 29)]
    weeks: list[list[Any]] = [kline(monday) for monday in mondays]
    for row in weeks:
        row[6] = row[0] + 7 * 86_400_000 - 1
    host.klines[week.symbol, week.interval] = weeks
    seen = []
    for day in range(2, 32):
        landing.months(JULY, now=at(day), series=week)
        landed = zone.provenance(week, JULY)
        seen.append(landed.rows if landed else 0)
    closed = [sum(monday + timedelta(days=7) <= at(day) for monday in mondays) for day in range(2, 32)]
    assert seen == closed


def test_the_bar_of_a_calendar_month_is_not_asked_for_while_it_runs(host: ArchiveHost, landing: Landing) -> None:
    monthly = Series("BTCUSDT", "1M")
    host.klines[monthly.symbol, monthly.interval] = [kline(JULY.start)]
    [running] = landing.months(JULY, now=at(31), series=monthly)
    assert (running.outcome, host.asked_rest) == (Outcome.ABSENT, [])
    [over] = landing.months(JULY, now=datetime(2024, 8, 1, 1, tzinfo=UTC), series=monthly)
    assert (over.outcome, over.rows) == (Outcome.LANDED, 1)


def test_prices_land_to_the_last_digit(host: ArchiveHost, landing: Landing, zone: RawZone) -> None:
    price = "12345678901234567890.12345678"
    host.publish(JULY_ZIP, hours(JULY.start, JULY.start + HOUR, price))
    landing.july()
    assert zone.read_history(SERIES, JULY)["close"].to_pylist() == [Decimal(price)]


def test_the_note_of_the_first_bar_can_be_read_by_others(exchange: Publisher, landing: Landing, zone: RawZone) -> None:
    exchange.rest(at(3, 7), at(4, 0))
    landing.july(now=at(4, 0))
    [path] = Path(zone.root).rglob("klines/first_bars/*/*.json")
    assert datetime.fromisoformat(json.loads(path.read_text())["first_open_time"]) == at(3, 7)
    assert EPOCH < at(3, 7) < LATER
