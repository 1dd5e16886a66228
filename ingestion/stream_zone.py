"""The part of the raw zone where bars lie that history does not have yet: what came by stream, in micro-batches.

    klines/stream/date=YYYY-MM-DD/<batch>.parquet     bars that opened on that UTC day, named by their content

A batch written twice is one file. A day's files are put together into one from time to time, and dropped when history
owns the day. Which file a bar lies in says nothing: where two have the same bar, staging decides.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingestion.grid import Window, instant
from ingestion.klines import DECIMAL_COLUMNS, KLINE_SCHEMA, Series, grid_micros
from ingestion.provenance import SOURCES
from ingestion.row_rules import integers
from ingestion.store import Store

_METADATA_KEY = b"klinehouse"
_STREAM = "klines/stream"
_DAY = 86_400_000_000
# Files are put together every minute at most, and dropped when history is built: a second look finds all of them.
_LOOKS = 5
# Each costs a millisecond or two in every batch of that day.
_FILES_OF_A_DAY = 8

_Thing = TypeVar("_Thing")


@dataclass(frozen=True, order=True)
class StreamFile:
    """One file of a UTC day, and the path that DuckDB or BigQuery reads it by."""

    day: date
    name: str
    path: str

    @property
    def window(self) -> Window:
        start = datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC)
        return Window(start, start + timedelta(days=1))


class StreamZone(Store):
    """Reads and writes the stream's part of the raw zone under `root`. Safe to share between threads and processes."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        # Files never change: the footers of those read last need not be opened again.
        self.extents = functools.lru_cache(maxsize=4096)(self._read_extents)

    def write(self, rows: pa.Table) -> list[StreamFile]:
        """Add bars, in KLINE_SCHEMA: one file for each day on which one of them opened. Writing them again adds
        nothing."""
        rows = rows.cast(KLINE_SCHEMA)
        days = integers(rows["open_time"]) // _DAY
        found = []
        for day in np.unique(days).tolist():
            part = rows.filter(pa.array(days == day))
            found.append(self._write_day(instant(day * _DAY).date(), part))
        return found

    def _write_day(self, day: date, rows: pa.Table) -> StreamFile:
        rows = rows.sort_by([("symbol", "ascending"), ("interval", "ascending"), ("open_time", "ascending")])
        sink = pa.BufferOutputStream()
        pq.write_table(
            rows.replace_schema_metadata({_METADATA_KEY: json.dumps(_extents(rows)).encode()}),
            sink,
            compression="zstd",
            compression_level=1,
            use_dictionary=["symbol", "interval", "source"],
            write_statistics=["open_time"],
            column_encoding=dict.fromkeys(DECIMAL_COLUMNS, "PLAIN"),
        )
        content = sink.getvalue()
        name = f"{hashlib.sha256(content).hexdigest()[:32]}.parquet"
        path = f"{self.root}/{_STREAM}/date={day}/{name}"
        self._create(path, content)
        return StreamFile(day, name, self._address(path))

    def files(self, window: Window | None = None) -> list[StreamFile]:
        """The files of all days, or of those that `window` touches, in order."""
        found = []
        for path in self._listed(f"{_STREAM}/date=*/*.parquet"):
            *_, folder, name = path.split("/")
            file = StreamFile(date.fromisoformat(folder.partition("=")[2]), name, self._address(path))
            if window is None or (file.window.start < window.end and window.start < file.window.end):
                found.append(file)
        return sorted(found)

    def read(self, file: StreamFile) -> pa.Table:
        """The rows of one file, in KLINE_SCHEMA."""
        with self._opened(self._path(file)) as opened:
            return pq.read_table(opened, schema=KLINE_SCHEMA)

    def survey(
        self, look: Callable[[StreamFile], _Thing], window: Window | None = None
    ) -> list[tuple[StreamFile, _Thing]]:
        """What `look` (such as `read`) finds in each of `files(window)`, also while they are put together: begun anew
        when one of them has gone meanwhile. For readers who do not keep the writer away."""
        for left in reversed(range(_LOOKS)):
            try:
                files = self.files(window)
                return list(zip(files, self.each(look, files), strict=True))
            except FileNotFoundError:
                if not left:
                    raise
        raise AssertionError

    def _read_extents(self, file: StreamFile) -> dict[Series, Window]:
        """From the first bar's open to the last bar's end, for each series of a file; from its footer alone."""
        told = json.loads(self._footer(self._path(file)).metadata[_METADATA_KEY])
        return {Series(symbol, interval): Window(instant(start), instant(end)) for symbol, interval, start, end in told}

    def replace(self, files: Sequence[StreamFile], rows: pa.Table) -> list[StreamFile]:
        """Put `rows` in the place of `files`; for an instant both are there. The caller keeps readers away."""
        written = self.write(rows) if rows.num_rows else []
        self.each(self._remove, [self._path(file) for file in files if file not in written])
        return written

    def compact(self, window: Window) -> None:
        """Put the files of each day of `window` together that has many. The caller keeps readers away."""
        files = self.files(window)
        for day in {file.day for file in files}:
            of_day = [file for file in files if file.day == day]
            if len(of_day) > _FILES_OF_A_DAY:
                self.replace(of_day, one_row_per_bar(self.each(self.read, of_day)))

    def _path(self, file: StreamFile) -> str:
        return f"{self.root}/{_STREAM}/date={file.day}/{file.name}"


def one_row_per_bar(tables: Iterable[pa.Table]) -> pa.Table:
    """Rows of several batches, of the same bar only the one that staging would take: the most trusted source's, then
    the latest."""
    rows = pa.concat_tables(tables)
    trust = pa.array([SOURCES.index(source) for source in rows["source"].to_pylist()], pa.int8())
    order = pc.sort_indices(
        rows.append_column("trust", trust),
        [
            *((name, "ascending") for name in ("symbol", "interval", "open_time", "trust")),
            ("ingested_at", "descending"),
        ],
    )
    rows = rows.take(order)
    keys = [rows[name].combine_chunks() for name in ("symbol", "interval", "open_time")]
    is_same = [pc.equal(key.slice(1), key.slice(0, max(len(key) - 1, 0))) for key in keys]
    repeats = pc.and_(pc.and_(is_same[0], is_same[1]), is_same[2])
    return rows.filter(pa.concat_arrays([pa.array([True] * min(len(rows), 1), pa.bool_()), pc.invert(repeats)]))


def _extents(rows: pa.Table) -> list[tuple[str, str, int, int]]:
    """Symbol, interval, start and end in microseconds of each series; `rows` are in order."""
    found: dict[tuple[str, str], list[int]] = {}
    names = zip(rows["symbol"].to_pylist(), rows["interval"].to_pylist(), strict=True)
    for key, opened in zip(names, integers(rows["open_time"]).tolist(), strict=True):
        found.setdefault(key, []).append(opened)
    return [
        (symbol, interval, opens[0], opens[-1] + (grid_micros(interval) or 1))
        for (symbol, interval), opens in found.items()
    ]
