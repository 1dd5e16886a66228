"""Where a bar's values came from: answers of the exchange, files of the stream, and what these said otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingestion.grid import Window, instant, micros
from ingestion.klines import Month, Series, grid_micros, no_klines
from ingestion.provenance import SourceFile
from ingestion.raw_zone import RawZone
from ingestion.reconcile import conflicts
from ingestion.settings import Settings
from ingestion.stream_zone import StreamFile, StreamZone, one_row_per_bar


@dataclass(frozen=True)
class StreamPart:
    """What one file of the live path has of a bar: how many bars inside it by one way (`stream`, or `rest` after an
    interruption), how many of these count, and when the collector had the first and the last of them."""

    source: str
    file: str
    bars: int
    counting: int
    first_received_at: datetime
    last_received_at: datetime


@dataclass(frozen=True)
class Origin:
    """`raw` are the landed bars inside, those that count; `answers` what history asked of the exchange about them;
    `stream` what came live and lies there still; `disagreements` have the fields of DIFFERENCE_SCHEMA."""

    raw: list[dict[str, Any]]
    answers: list[SourceFile]
    stream: list[StreamPart]
    disagreements: list[dict[str, Any]]


def origin(settings: Settings, series: Series, open_time: datetime) -> Origin:
    """The origin of the bar of `series` that opens at `open_time`, from the landed bars of the base interval in it."""
    zone, streamed = RawZone(settings.raw_root), StreamZone(settings.raw_root)
    base = Series(series.symbol, settings.interval)
    length = grid_micros(series.interval) or 0
    window = Window(open_time, instant(micros(open_time) + max(length, 1)))
    month = Month.containing(open_time.date())
    landed = zone.read_landed(base, month)
    history, provenance = landed or (no_klines(), None)
    told = streamed.survey(lambda file: _of(streamed.read(file), base, window), window)
    every = pa.concat_tables([_of(history, base, window), *(rows for _, rows in told)])
    counting = one_row_per_bar([every])
    return Origin(
        counting.to_pylist(),
        [file for file in provenance.files if file.start < window.end and open_time < file.end] if provenance else [],
        _parts(told, counting),
        _disagreements(_inside(zone.read_differences(base, month), window), conflicts(counting, every)),
    )


def _of(rows: pa.Table, series: Series, window: Window) -> pa.Table:
    own = pc.and_(pc.equal(rows["symbol"], series.symbol), pc.equal(rows["interval"], series.interval))
    return _inside(rows.filter(own), window)


def _inside(rows: pa.Table, window: Window) -> pa.Table:
    opens = rows["open_time"]
    return rows.filter(pc.and_(pc.greater_equal(opens, window.start), pc.less(opens, window.end)))


def _parts(told: Sequence[tuple[StreamFile, pa.Table]], counting: pa.Table) -> list[StreamPart]:
    """In the order in which they were received. A row that two files have counts in the first of them."""
    left = [_identity(row) for row in counting.to_pylist()]
    found = []
    for file, rows in told:
        for source in sorted(set(rows["source"].to_pylist())):
            own = rows.filter(pc.equal(rows["source"], source)).to_pylist()
            counted = [identity for row in own if (identity := _identity(row)) in left]
            left = [identity for identity in left if identity not in counted]
            received = [row["ingested_at"] for row in own]
            found.append(StreamPart(source, file.path, len(own), len(counted), min(received), max(received)))
    return sorted(found, key=lambda part: part.first_received_at)


def _identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["open_time"], row["source"], row["ingested_at"]


def _disagreements(noted: pa.Table, seen: pa.Table) -> list[dict[str, Any]]:
    """What is on record, and what can be seen before history takes the stream's bars over and records it."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in [*noted.to_pylist(), *seen.to_pylist()]:
        key = (row["open_time"], row["field"], row["other_source"], row["other_value"])
        found.setdefault(key, row)
    return sorted(found.values(), key=lambda row: row["open_time"])
