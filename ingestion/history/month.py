"""Landing one month of one series: the monthly zip, else daily zips, else REST for the rest.

What a source gave badly is put into quarantine and the next source is asked; what all sources lack stays a hole that
says so. The month is written once, whole, at the end.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum

import pyarrow as pa

from ingestion.binance.archive import ArchiveFile, BadArchiveFile, checksum_of, daily_path, monthly_path
from ingestion.binance.rest import RestKlines, UnknownSymbol
from ingestion.binance.wire import MalformedKlines, ParsedKlines, nothing_parsed, parse_archive_csv
from ingestion.errors import ExchangeRefused
from ingestion.grid import Window, without
from ingestion.history.draft import Draft
from ingestion.history.plan import (
    LATE,
    MonthPlan,
    day_window,
    find_holes,
    month_span,
    plan_month,
    spoken_until,
    unasked,
    whole_days,
)
from ingestion.history.sources import Sources
from ingestion.klines import Month, Series
from ingestion.provenance import DAILY, MONTHLY, REST, Provenance, SourceFile
from ingestion.row_rules import Ints, integers


class Outcome(StrEnum):
    LANDED = "landed"
    UNCHANGED = "unchanged"
    ABSENT = "absent"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class Problem:
    """Something that a source gave badly, or refused to give. `kept_in` is its place in quarantine, if it went there;
    `replaced_by` says what stands for it."""

    url: str
    reason: str
    kept_in: str | None = None
    replaced_by: str = "nothing yet"

    def __str__(self) -> str:
        kept = f" (kept in {self.kept_in})" if self.kept_in else ""
        return f"{self.url}: {self.reason}{kept}; replaced by {self.replaced_by}"


@dataclass(frozen=True)
class MonthResult:
    """What became of one month of one series.

    `rows` counts the rows that the raw zone holds for it; `files` are the answers that came in now; `missing` is what a
    source is still to be asked for; `is_unknown` says that REST has no such symbol.
    """

    series: Series
    month: Month
    outcome: Outcome
    rows: int = 0
    files: tuple[SourceFile, ...] = ()
    problems: tuple[Problem, ...] = ()
    missing: tuple[Window, ...] = ()
    seconds: float = 0.0
    is_unknown: bool = False

    @property
    def downloads(self) -> int:
        return sum(file.source != REST for file in self.files)

    @property
    def downloaded_bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def quarantined(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.kept_in)

    @property
    def refused(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if not problem.kept_in)


def land_month(sources: Sources, series: Series, month: Month, now: datetime) -> MonthResult:
    """Land what `month` still needs.

    Raises ExchangeRefused when the archive refuses. REST refusing is a problem of the result, because the archive alone
    gives nearly everything.
    """
    begin = time.perf_counter()
    while True:
        landed = sources.zone.provenance(series, month)
        attempt = _Attempt(sources, series, month, now, landed)
        try:
            attempt.follow(plan_month(series, month, now, landed, sources.known_first_open_time(series)))
            return replace(attempt.finish(), seconds=time.perf_counter() - begin)
        except _LandedMeanwhile:  # by another process: what is to be done is another thing now
            continue


class _LandedMeanwhile(Exception):
    """The month is not the one that was planned for any more."""


class _Attempt:
    """One month while its sources are asked."""

    def __init__(
        self, sources: Sources, series: Series, month: Month, now: datetime, landed: Provenance | None
    ) -> None:
        self._sources, self._series, self._month, self._now = sources, series, month, now
        self._landed = landed
        self._draft: Draft | None = None
        self._came: list[SourceFile] = []
        self._bad: list[tuple[Problem, Window | Ints]] = []
        self._refusals: dict[str, Problem] = {}
        self._is_unknown = False

    # --- asking --------------------------------------------------------------------------------------------------

    def follow(self, plan: MonthPlan) -> None:
        if plan.reason:
            return
        changed = self._changed_files() if plan.recheck else set()
        days = {day for day in changed if isinstance(day, date)}
        has_month = bool(self._landed and self._landed.spoke(MONTHLY))
        if plan.monthly or MONTHLY in changed:
            window = Window(self._month.start, self._month.end)
            if self._take_archive(MONTHLY, monthly_path(self._series, self._month), window):
                has_month, days = True, set()  # it stands for all days that it has
        if not has_month:
            plan = self._replanned()
            days.update(plan.days)
        elif self._came or plan.days:
            days.update(whole_days(self._series, self._missing(plan), self._now))
        self._take_days(sorted(days))
        if self._came or plan.rest:
            self._take_rest(self._missing(plan))

    def _replanned(self) -> MonthPlan:
        """The plan again, with what only the exchange knows: its clock, and when the series began."""
        self._now = min(self._now, self._sources.now())
        return plan_month(self._series, self._month, self._now, self._landed, self._first_open_time())

    def _changed_files(self) -> set[str | date]:
        """Ask for the checksums of landed files again: MONTHLY, or the days, whose files are others at the source."""
        changed: set[str | date] = set()
        for file in self._landed.files if self._landed else ():
            if file.source != REST:
                name = MONTHLY if file.source == MONTHLY else file.start.date()
                path = self._path(name)
                line = self._sources.checksum(path)
                if line is not None and checksum_of(path, line) != file.sha256:
                    changed.add(name)
                else:
                    self._sources.forgive(path)
        return changed

    def _path(self, name: str | date) -> str:
        return daily_path(self._series, name) if isinstance(name, date) else monthly_path(self._series, self._month)

    def _take_days(self, days: Sequence[date]) -> None:
        # An old month of which neither the first nor the last day is there has no daily files, as a rule; REST has its
        # bars in any case.
        is_old = self._now - self._month.end > LATE
        ends = [days[0], days[-1]] if is_old and len(days) > 2 else []
        found = [self._take_day(day) for day in ends]
        if not ends or any(is_there is not None for is_there in found):
            for day in days:
                if day not in ends:
                    self._take_day(day)

    def _take_day(self, day: date) -> bool | None:
        return self._take_archive(DAILY, self._path(day), day_window(day))

    def _take_archive(self, source: str, path: str, window: Window) -> bool | None:
        """Fetch one archive file; None when it is absent, False when it was refused, now or before."""
        if self._sources.is_known_bad(path):
            return False
        try:
            file = self._sources.fetch(path)
            if file is None:
                return None
            with self._sources.cores:
                parsed = self._parse(source, file, window)
                self._put(_answer(source, file, len(file.content), window, parsed), parsed)
        except BadArchiveFile as bad:
            kept = self._sources.quarantine(path, bad)
            self._bad.append((Problem(bad.url, bad.reason, kept), window))
            return False
        return True

    def _parse(self, source: str, file: ArchiveFile, window: Window) -> ParsedKlines:
        try:
            parsed = parse_archive_csv(file.text, self._series, window, source, file.fetched_at)
            self._refuse_partial_month(source, parsed)
        except MalformedKlines as error:
            raise BadArchiveFile(file.url, str(error), file.content, file.fingerprint) from error
        return parsed

    def _refuse_partial_month(self, source: str, parsed: ParsedKlines) -> None:
        """It has happened that a monthly file held ten days only, while the daily ones had more."""
        if source != MONTHLY or self._landed is None:
            return
        have = sum(file.rows for file in self._landed.files if file.source == DAILY)
        if parsed.rows.num_rows < have:
            raise MalformedKlines(f"it has {parsed.rows.num_rows} bars, its daily files have {have} already")

    def _take_rest(self, windows: Sequence[Window]) -> None:
        for window in windows:
            try:
                found = self._sources.rest_klines(self._series, window)
            except ExchangeRefused as refused:
                self._note_refusal(refused)
                return
            parsed = found.parsed or nothing_parsed()
            end = spoken_until(self._series, window, integers(parsed.rows["open_time"]), self._now)
            if window.start < end:
                self._put(_answer(REST, found, found.bytes, Window(window.start, end), parsed), parsed)

    def _note_refusal(self, refused: ExchangeRefused) -> None:
        if isinstance(refused, UnknownSymbol):  # then REST has nothing, now and next time; the archive may
            self._is_unknown = True
            return
        reason = str(refused)
        self._refusals.setdefault(reason, Problem(f"REST klines of {self._series} in {self._month}", reason))

    def _put(self, file: SourceFile, parsed: ParsedKlines) -> None:
        if self._draft is None:
            self._draft = self._begun()
        if file.source != REST:
            self._sources.release(self._series, _period(file))
        self._draft.put(file, parsed)
        self._came.append(file)
        if parsed.broken.reasons:
            kept = self._sources.quarantine_rows(file, self._series, self._month, parsed.broken)
            problem = Problem(file.url, parsed.broken.summary, kept)
            self._bad.append((problem, integers(parsed.broken.rows["open_time"])))

    def _begun(self) -> Draft:
        if self._landed is None:
            return Draft(self._series)
        found = self._sources.zone.read_landed(self._series, self._month)
        if found is None or found[1] != self._landed:
            raise _LandedMeanwhile
        return Draft.of(self._series, *found)

    # --- what is missing -----------------------------------------------------------------------------------------

    def _missing(self, plan: MonthPlan) -> list[Window]:
        """The windows of this month that have no bars and for which REST has not been asked."""
        if self._draft is None:
            return list(plan.rest)
        asked = [file.window for file in self._draft.files if file.source == REST]
        return without(find_holes(self._series, self._draft.open_times, self._span()), asked)

    def _span(self) -> Window:
        """The part of the month in which bars can be. When the series began is asked for only where it matters."""
        span = month_span(self._series, self._month, self._now, self._sources.known_first_open_time(self._series))
        if self._draft is not None and self._draft.begins_by(span.start):
            return span
        return Window(max(span.start, self._first_open_time() or span.start), span.end)

    def _first_open_time(self) -> datetime | None:
        """None also while REST refuses: if that matters, the window before the first bar is asked of REST too."""
        try:
            return self._sources.first_open_time(self._series)
        except ExchangeRefused:
            return None

    # --- the end -------------------------------------------------------------------------------------------------

    def finish(self) -> MonthResult:
        """Write what came in, if anything did."""
        provenance = self._landed
        if self._draft is not None and self._came:
            with self._sources.cores:
                provenance = self._write(self._draft)
        problems = (*(self._replaced(*bad) for bad in self._bad), *self._refusals.values())
        return MonthResult(
            self._series,
            self._month,
            self._outcome(),
            provenance.rows if provenance else 0,
            tuple(self._came),
            problems,
            tuple(unasked(provenance)) if provenance else (),
            is_unknown=self._is_unknown,
        )

    def _write(self, draft: Draft) -> Provenance:
        covered_until = max(file.end for file in draft.files)
        provenance = draft.provenance(Window(self._span().start, covered_until))
        zone = self._sources.zone
        if self._landed is not None and zone.provenance(self._series, self._month) != self._landed:
            raise _LandedMeanwhile
        found = [table for table in draft.disagreements if table.num_rows]
        if found:
            zone.add_differences(self._series, self._month, pa.concat_tables(found))
        if self._landed is not None:
            zone.write_history(self._series, self._month, draft.rows, provenance)
        elif not zone.create_history(self._series, self._month, draft.rows, provenance):
            raise _LandedMeanwhile
        return provenance

    def _outcome(self) -> Outcome:
        if self._refusals:
            return Outcome.INCOMPLETE
        if self._came:
            return Outcome.LANDED
        return Outcome.UNCHANGED if self._landed else Outcome.ABSENT

    def _replaced(self, problem: Problem, place: Window | Ints) -> Problem:
        """The problem with what stands in its place now."""
        if self._draft is None and self._landed is None:
            return problem
        rows = (self._draft or self._begun()).rows_by_source(place)
        return replace(
            problem, replaced_by=", ".join(f"{n} bars of {name}" for name, n in rows.items()) or "nothing yet"
        )


def _answer(source: str, came: ArchiveFile | RestKlines, size: int, window: Window, parsed: ParsedKlines) -> SourceFile:
    return SourceFile(
        source,
        came.url,
        came.sha256,
        parsed.rows.num_rows,
        size,
        came.fetched_at,
        *window,
        parsed.duplicates,
        parsed.superseded.num_rows,
        parsed.broken.rows.num_rows,
    )


def _period(file: SourceFile) -> str:
    """The part of an archive file's name that says which time it is of."""
    return str(Month.containing(file.start.date())) if file.source == MONTHLY else file.start.date().isoformat()
