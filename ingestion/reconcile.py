"""Where two sources disagree about bars: field by field, and bars that only one of them has."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingestion.grid import Window, instant, micros
from ingestion.klines import KLINE_SCHEMA
from ingestion.provenance import REST, SOURCES, STREAM
from ingestion.raw_zone import DIFFERENCE_SCHEMA
from ingestion.row_rules import index_array, integers

_KEY = ("symbol", "interval", "open_time")
_FIELDS = [name for name in KLINE_SCHEMA.names if name not in (*_KEY, "source", "ingested_at")]


def differences(
    new: pa.Table, known: pa.Table, windows: Iterable[Window], new_source: str, known_source: str
) -> pa.Table:
    """What two sources say differently about the bars that open in `windows`, where both were asked.

    Both tables are rows of one series in the schema of the raw zone, one per open time. The result is in
    DIFFERENCE_SCHEMA: the more trusted source is the one that is kept, `new` when the two are trusted alike.
    """
    new_wins = SOURCES.index(new_source) <= SOURCES.index(known_source)
    kept, other = (new, known) if new_wins else (known, new)
    kept_source, other_source = (new_source, known_source) if new_wins else (known_source, new_source)
    kept, other = (_inside(table, list(windows)) for table in (kept, other))
    opens, other_opens = integers(kept["open_time"]), integers(other["open_time"])
    _, left, right = np.intersect1d(opens, other_opens, assume_unique=True, return_indices=True)
    kept_alone = kept.take(index_array(np.flatnonzero(~np.isin(opens, other_opens))))
    other_alone = other.take(index_array(np.flatnonzero(~np.isin(other_opens, opens))))
    # A bar that only the less trusted source has is kept, unless a later archive file took back an earlier one's.
    survives = not new_wins or other_source in (REST, STREAM)
    return _table(
        [
            *_changed(kept.take(index_array(left)), other.take(index_array(right))),
            *_alone(kept_alone, kept_source, other_source, is_kept=True),
            *_alone(other_alone, other_source, kept_source, is_kept=survives),
        ]
    )


def conflicts(kept: pa.Table, superseded: pa.Table) -> pa.Table:
    """How rows of one answer differ from the later rows of the same open time that were kept, in DIFFERENCE_SCHEMA."""
    places = np.searchsorted(integers(kept["open_time"]), integers(superseded["open_time"]))
    return _table(list(_changed(kept.take(index_array(places)), superseded)))


def _table(rows: Sequence[dict[str, object]]) -> pa.Table:
    if not rows:
        return DIFFERENCE_SCHEMA.empty_table()
    found_at = datetime.now(UTC)
    return pa.Table.from_pylist([row | {"found_at": found_at} for row in rows], schema=DIFFERENCE_SCHEMA)


def _inside(table: pa.Table, windows: list[Window]) -> pa.Table:
    opens = integers(table["open_time"])
    inside = np.zeros(len(opens), bool)
    for window in windows:
        inside |= (opens >= micros(window.start)) & (opens < micros(window.end))
    return table.take(index_array(np.flatnonzero(inside)))


def _changed(kept: pa.Table, other: pa.Table) -> Iterator[dict[str, object]]:
    for field in _FIELDS:
        differs = pc.not_equal(_comparable(kept[field]), _comparable(other[field]))
        if not pc.any(differs).as_py():
            continue
        rows = pa.table(
            [*(kept[name] for name in (*_KEY, "source")), _text(kept[field]), other["source"], _text(other[field])],
            names=[*_KEY, "kept_source", "kept_value", "other_source", "other_value"],
        )
        for row in rows.filter(differs).to_pylist():
            yield row | {"field": field}


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Instants to the millisecond: since 2025 archive files tell microseconds, and REST and streams do not."""
    if not pa.types.is_timestamp(column.type):
        return column
    return pa.chunked_array([integers(column) // 1000])


def _alone(rows: pa.Table, source: str, lacking: str, *, is_kept: bool) -> Iterator[dict[str, object]]:
    for row in rows.select(_KEY).to_pylist():
        if is_kept:
            values = {"kept_source": source, "kept_value": "present", "other_source": lacking, "other_value": None}
        else:
            values = {"kept_source": lacking, "kept_value": None, "other_source": source, "other_value": "present"}
        yield row | values | {"field": "bar"}


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as text: decimals to the last digit, instants in ISO 8601."""
    if not pa.types.is_timestamp(column.type):
        return pc.cast(column, pa.string())
    return pa.chunked_array([[instant(int(value)).isoformat() for value in integers(column)]], pa.string())
