"""What came by stream gives way to history: compared bar by bar, then dropped.

History owns a UTC day of a series when what landed covers all of it. A bar that only the stream has is kept: no source
has taken it back.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ingestion.grid import Window
from ingestion.klines import Month, Series
from ingestion.provenance import SOURCES, Provenance
from ingestion.raw_zone import RawZone
from ingestion.reconcile import differences
from ingestion.stream_zone import StreamFile, StreamZone, one_row_per_bar


def retire(zone: RawZone, streamed: StreamZone, months: Sequence[Month]) -> int:
    """Drop from the stream's part what history owns in `months`, after its differences have been noted; returns how
    many rows went. The caller keeps readers away. Stopped anywhere and run again, it does the same."""
    if not months:
        return 0
    files = streamed.files(Window(months[0].start, months[-1].end))
    days = {file.day: [other for other in files if other.day == file.day] for file in files}
    return sum(_retire_day(zone, streamed, of_day) for of_day in days.values())


def _retire_day(zone: RawZone, streamed: StreamZone, files: Sequence[StreamFile]) -> int:
    window = files[0].window
    owned = {series for file in files for series in streamed.extents(file) if _owns(zone, series, window)}
    if not owned:
        return 0
    rows = one_row_per_bar(streamed.read(file) for file in files)
    kept = []
    for series in sorted({Series(*pair) for pair in zip(*_names(rows), strict=True)}):
        own = rows.filter(pc.and_(pc.equal(rows["symbol"], series.symbol), pc.equal(rows["interval"], series.interval)))
        kept.append(_superseded(zone, series, own, window) if series in owned else own)
    left = pa.concat_tables(kept)
    if left.num_rows < rows.num_rows:
        streamed.replace(files, left)
    return int(rows.num_rows - left.num_rows)


def _owns(zone: RawZone, series: Series, day: Window) -> bool:
    landed = zone.provenance(series, Month.containing(day.start.date()))
    return landed is not None and landed.covered_until >= day.end


def _superseded(zone: RawZone, series: Series, rows: pa.Table, day: Window) -> pa.Table:
    """Note what history says differently about `rows`; returns those that history does not have."""
    month = Month.containing(day.start.date())
    landed = zone.read_landed(series, month)
    if landed is None:
        return rows
    history, provenance = landed
    same = history.filter(pc.is_in(history["open_time"], rows["open_time"].combine_chunks()))
    zone.add_differences(series, month, _told(same, rows, provenance, day))
    return rows.filter(pc.invert(pc.is_in(rows["open_time"], same["open_time"].combine_chunks())))


def _told(history: pa.Table, rows: pa.Table, provenance: Provenance, day: Window) -> pa.Table:
    """Each source of history against each of the stream's, for the time that the former spoke of."""
    found = [
        differences(
            history.filter(pc.equal(history["source"], by)), rows.filter(pc.equal(rows["source"], of)), windows, by, of
        )
        for by in provenance.sources
        if (windows := _inside(provenance.spoke(by), day))
        for of in SOURCES
        if pc.any(pc.equal(rows["source"], of)).as_py()
    ]
    return pa.concat_tables(found)


def _inside(windows: Sequence[Window], day: Window) -> list[Window]:
    cut = [Window(max(window.start, day.start), min(window.end, day.end)) for window in windows]
    return [window for window in cut if window.start < window.end]


def _names(rows: pa.Table) -> tuple[list[str], list[str]]:
    return rows["symbol"].to_pylist(), rows["interval"].to_pylist()
