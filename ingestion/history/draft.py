"""A month as it is put together from the answers of several sources, by their order of trust."""

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingestion.binance.wire import ParsedKlines
from ingestion.grid import Window, micros
from ingestion.history.plan import find_holes
from ingestion.klines import Series, grid_micros, no_klines
from ingestion.provenance import REST, SOURCES, Provenance, SourceFile
from ingestion.reconcile import conflicts, differences
from ingestion.row_rules import Ints, Mask, index_array, integers


@dataclass
class Draft:
    """Rows in order of time, one per open time; the answers they came from; what these disagreed about."""

    series: Series
    rows: pa.Table = field(default_factory=no_klines)
    files: tuple[SourceFile, ...] = ()
    replaced: tuple[SourceFile, ...] = ()
    disagreements: list[pa.Table] = field(default_factory=list)

    @classmethod
    def of(cls, series: Series, rows: pa.Table, landed: Provenance) -> "Draft":
        """What has landed, to be added to."""
        return cls(series, rows, landed.files, landed.replaced)

    @property
    def open_times(self) -> Ints:
        """Microseconds, in order."""
        return integers(self.rows["open_time"])

    def begins_by(self, at: datetime) -> bool:
        """Whether there is a bar at `at` or before it."""
        return self.rows.num_rows > 0 and int(self.open_times[0]) <= micros(at)

    def put(self, file: SourceFile, parsed: ParsedKlines) -> None:
        """Take an answer in; what was there and differs is remembered.

        An archive file stands for all rows of its window that came from archive files trusted no more than it. REST
        rows stay where no archive file has a bar, and come in only where there is none.
        """
        self._remember(file, parsed)
        opens = integers(parsed.rows["open_time"])
        kept = _where(self.rows, ~self._yields(file, opens))
        self._merge(kept, _where(parsed.rows, ~np.isin(opens, integers(kept["open_time"]))))
        if file.source == REST:
            self._add_rest(file)
            return
        self.replaced += tuple(own for own in self.files if own.url == file.url and own.sha256 != file.sha256)
        self.files = (*(own for own in self.files if own.source == REST or not _contains(file, own)), file)

    def _yields(self, file: SourceFile, opens: Ints) -> Mask:
        """Which rows make place for those of `file`, which open at `opens`."""
        if file.source == REST:
            return np.zeros(self.rows.num_rows, bool)
        trust = np.array([SOURCES.index(source) for source in self.rows["source"].to_pylist()], np.int64)
        of_archive = (
            _inside(self.open_times, file.window)
            & (trust < SOURCES.index(REST))
            & (trust >= SOURCES.index(file.source))
        )
        of_rest = (trust >= SOURCES.index(REST)) & np.isin(self.open_times, opens)
        yields: Mask = of_archive | of_rest
        return yields

    def _add_rest(self, file: SourceFile) -> None:
        for own in self.files:
            if own.source == REST and own.touches(file):
                file = own.joined(file)
                self.files = tuple(one for one in self.files if one is not own)
        self.files = (*self.files, file)

    def _merge(self, one: pa.Table, other: pa.Table) -> None:
        parts = [part for part in (one, other) if part.num_rows]
        rows = pa.concat_tables(parts) if len(parts) > 1 else (parts or [one])[0]
        self.rows = rows if _ascends(rows) else rows.sort_by("open_time")

    def _remember(self, file: SourceFile, parsed: ParsedKlines) -> None:
        if parsed.superseded.num_rows:
            self.disagreements.append(conflicts(parsed.rows, parsed.superseded))
        for source in sorted({own.source for own in self.files} - ({REST} if file.source == REST else set())):
            spoke = [_overlap(own.window, file.window) for own in self.files if own.source == source]
            rows = self.rows.filter(pc.equal(self.rows["source"], source))
            windows = [part for part in spoke if part]
            if windows:
                self.disagreements.append(differences(parsed.rows, rows, windows, file.source, source))

    def rows_by_source(self, place: Window | Ints) -> dict[str, int]:
        """How many bars each kind of source gave that open in a window, or at one of some times."""
        there = _inside(self.open_times, place) if isinstance(place, Window) else np.isin(self.open_times, place)
        counted = pc.value_counts(_where(self.rows, there)["source"])
        return {entry["values"]: entry["counts"] for entry in counted.to_pylist()}

    def provenance(self, window: Window) -> Provenance:
        """Of the rows as they are; `window` is the part of the month that the sources spoke of."""
        length = grid_micros(self.series.interval)
        return Provenance(
            files=self.files,
            rows=self.rows.num_rows,
            sources=tuple(sorted(pc.unique(self.rows["source"]).to_pylist())),
            covered_until=window.end,
            holes=find_holes(self.series, self.open_times, window),
            replaced=self.replaced,
            off_grid=int(np.count_nonzero(self.open_times % length)) if length else 0,
        )


def _where(table: pa.Table, mask: Mask) -> pa.Table:
    return table if mask.all() else table.take(index_array(np.flatnonzero(mask)))


def _inside(open_times: Ints, window: Window) -> Mask:
    inside: Mask = (open_times >= micros(window.start)) & (open_times < micros(window.end))
    return inside


def _contains(outer: SourceFile, inner: SourceFile) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end


def _overlap(one: Window, other: Window) -> Window | None:
    start, end = max(one.start, other.start), min(one.end, other.end)
    return Window(start, end) if start < end else None


def _ascends(table: pa.Table) -> bool:
    open_times = integers(table["open_time"])
    return bool((open_times[1:] > open_times[:-1]).all())
