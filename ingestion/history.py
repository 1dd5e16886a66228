"""History: plan a month of a series, land it from the archive.

A month is decided by a pure function (`plan_month`), then landed: the monthly zip, or the daily ones while the month is
running or its zip is late. What is already in the raw zone is not asked for again.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from ingestion.binance.archive import Archive, ArchiveFile, BadArchiveFile, daily_path, monthly_path
from ingestion.binance.wire import MalformedKlines, parse_archive_csv
from ingestion.klines import Month, Series
from ingestion.raw_zone import Environment, Provenance, RawZone, SourceFile

MONTHLY = "archive_monthly"
DAILY = "archive_daily"

# A monthly zip is due on the first Monday of the next month; the latest seen came 13 days into it (2024-02). A month
# whose zip is still absent after two months was not traded.
LATE_MONTHLY = timedelta(days=62)

# The archive has no daily files of these.
_MONTHLY_ONLY = ("3d", "1w", "1M")


class Outcome(StrEnum):
    LANDED = "landed"
    UNCHANGED = "unchanged"
    ABSENT = "absent"
    QUARANTINED = "quarantined"


@dataclass(frozen=True)
class MonthPlan:
    """What to ask the archive for: first the monthly zip if `monthly`, then these days if it is not there."""

    monthly: bool
    days: tuple[date, ...]


@dataclass(frozen=True)
class MonthResult:
    """What became of one month of one series. `rows` counts the rows that the raw zone holds for it."""

    series: Series
    month: Month
    outcome: Outcome
    rows: int = 0
    downloads: int = 0
    downloaded_bytes: int = 0
    problems: tuple[str, ...] = ()


def plan_month(series: Series, month: Month, now: datetime, landed: Provenance | None) -> MonthPlan:
    """Decide what a month still needs, given what has landed of it."""
    if landed and landed.source == MONTHLY:
        return MonthPlan(False, ())
    today = now.date()
    over = month.next.first_day <= today
    late = now - month.end > LATE_MONTHLY
    if late or series.interval in _MONTHLY_ONLY:
        return MonthPlan(over, ())
    have = {_day_of(file) for file in landed.files} if landed else set()
    return MonthPlan(over, tuple(day for day in month.days() if day < today and day not in have))


def _day_of(file: SourceFile) -> date:
    return date.fromisoformat(file.url.removesuffix(".zip")[-10:])


def land(
    archive: Archive,
    zone: RawZone,
    series: Sequence[Series],
    months: Sequence[Month],
    *,
    workers: int,
    on_result: Callable[[MonthResult], None] = lambda result: None,
    now: datetime | None = None,
) -> list[MonthResult]:
    """Land `months` of each series, several at a time; memory is bounded by `workers` files.

    `on_result` hears of each month as it is done, from the worker's thread. Bad files are quarantined and reported in
    the results; an exchange that refuses ends the whole run with ExchangeRefused, and what has landed stays.
    """
    now = now or datetime.now(UTC)

    def task(one: Series, month: Month) -> MonthResult:
        result = _land_month(archive, zone, one, month, now)
        on_result(result)
        return result

    with ThreadPoolExecutor(workers, thread_name_prefix="land") as pool:
        futures = [pool.submit(task, one, month) for one in series for month in months]
        return _results(pool, futures)


def _results(pool: ThreadPoolExecutor, futures: Iterable[Future[MonthResult]]) -> list[MonthResult]:
    futures = list(futures)
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    failed = next((future for future in done if future.exception()), None)
    if failed is not None:
        pool.shutdown(cancel_futures=True)
        failed.result()
    return [future.result() for future in futures]


def _land_month(archive: Archive, zone: RawZone, series: Series, month: Month, now: datetime) -> MonthResult:
    landed = zone.provenance(series, month)
    plan = plan_month(series, month, now, landed)
    attempt = _Attempt(archive, zone, series, month)
    if plan.monthly and attempt.take_month(landed):
        return attempt.write(MONTHLY)
    for day in plan.days:
        start = datetime.combine(day, time(), UTC)
        attempt.take_day(daily_path(series, day), (start, start + timedelta(days=1)))
    if attempt.tables:
        return attempt.write(DAILY)
    return attempt.nothing_new(landed)


class _Attempt:
    """The files of one month as they come in: parsed, or put into quarantine."""

    def __init__(self, archive: Archive, zone: RawZone, series: Series, month: Month) -> None:
        self._archive, self._zone, self._series, self._month = archive, zone, series, month
        self.tables: list[pa.Table] = []
        self._files: list[SourceFile] = []
        self._windows: list[tuple[datetime, datetime]] = []
        self._problems: list[str] = []

    def take_month(self, landed: Provenance | None) -> bool:
        """Fetch and parse the monthly file; False when it is absent or was refused.

        It has happened that a monthly file held ten days only; one with fewer bars than its days have is refused.
        """

        def check(rows: int) -> None:
            if landed and rows < landed.rows:
                raise MalformedKlines(f"it has {rows} bars, its daily files have {landed.rows} already")

        window = (self._month.start, self._month.end)
        return self._take(monthly_path(self._series, self._month), MONTHLY, window, check)

    def take_day(self, path: str, window: tuple[datetime, datetime]) -> bool:
        """Fetch and parse a daily file; False when it is absent or was refused."""
        return self._take(path, DAILY, window, lambda rows: None)

    def _take(self, path: str, source: str, window: tuple[datetime, datetime], check: Callable[[int], None]) -> bool:
        try:
            file = self._archive.fetch(path)
            if file is None:
                return False
            self._zone.claim(Environment.of(file.simulation))
            self._parse(file, source, window, check)
        except BadArchiveFile as bad:
            kept = self._zone.quarantine(bad.url, bad.content, bad.reason)
            self._problems.append(f"{bad.url}: {bad.reason} (kept in {kept})")
            return False
        return True

    def _parse(
        self, file: ArchiveFile, source: str, window: tuple[datetime, datetime], check: Callable[[int], None]
    ) -> None:
        try:
            rows = parse_archive_csv(file.text, self._series, window, source, file.fetched_at)
            check(rows.num_rows)
        except MalformedKlines as error:
            raise BadArchiveFile(file.url.removesuffix(".zip") + ".csv", str(error), file.text) from error
        self.tables.append(rows)
        self._files.append(SourceFile(file.url, file.sha256, rows.num_rows, file.zip_bytes, file.fetched_at))
        self._windows.append(window)

    def write(self, source: str) -> MonthResult:
        """Write what came in: a month whole, days together with the days that have landed before.

        What has landed is read now, not when the month was planned: another process may have landed it since.
        """
        landed = self._zone.provenance(self._series, self._month) if source == DAILY else None
        if landed and landed.source == MONTHLY:
            return self.nothing_new(landed)
        new = pa.concat_tables(self.tables)
        files = tuple(self._files)
        covered = max(end for _, end in self._windows)
        if landed:
            earlier = self._zone.read_history(self._series, self._month)
            new = pa.concat_tables([earlier.filter(pc.invert(self._inside(earlier["open_time"]))), new])
            files = (*(file for file in landed.files if file.url not in {own.url for own in files}), *files)
            covered = max(covered, landed.covered_until)
        rows = new.sort_by("open_time")
        self._zone.write_history(self._series, self._month, rows, Provenance(source, files, rows.num_rows, covered))
        days = [start.date().isoformat() for start, _ in self._windows]
        for period in [str(self._month)] if source == MONTHLY else days:
            self._zone.release(self._series, period)
        return self._result(Outcome.QUARANTINED if self._problems else Outcome.LANDED, rows.num_rows)

    def _inside(self, open_time: pa.ChunkedArray) -> pa.ChunkedArray:
        """Which bars open in one of the windows of the files that came in."""
        inside = [pc.and_(pc.greater_equal(open_time, start), pc.less(open_time, end)) for start, end in self._windows]
        return reduce(pc.or_, inside)

    def nothing_new(self, landed: Provenance | None) -> MonthResult:
        if self._problems:
            return self._result(Outcome.QUARANTINED, landed.rows if landed else 0)
        return self._result(Outcome.UNCHANGED, landed.rows) if landed else self._result(Outcome.ABSENT, 0)

    def _result(self, outcome: Outcome, rows: int) -> MonthResult:
        size = sum(file.bytes for file in self._files)
        problems = tuple(self._problems)
        return MonthResult(self._series, self._month, outcome, rows, len(self._files), size, problems)
