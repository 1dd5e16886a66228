"""Exchange text to Arrow: the CSV of the archive and the JSON of the REST API as rows of `KLINE_SCHEMA`.

Prices and volumes become decimals equal to the text to the last digit; times are normalised per value, because the
archive switched from milliseconds to microseconds on 2025-01-01 and a file name does not tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ingestion.grid import instant, micros
from ingestion.klines import DECIMAL_COLUMNS, INSTANT, KLINE_SCHEMA, PRICE, Series, grid_micros, no_klines
from ingestion.row_rules import BrokenRows, Ints, decimal_words, index_array, integers, split_broken

_CSV_COLUMNS = (
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "trades",
    "taker_buy_base_volume",
    "taker_buy_quote_volume",
    "ignore",
)
_HEADER = (
    b"open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)
# The last column means nothing, so it may be anything.
_REST_TYPES = [int if name in ("open_time", "close_time", "trades") else str for name in _CSV_COLUMNS[:-1]]
_LIMIT = Decimal(10) ** 20
# Below this, the upper of a decimal's two words says alone that the value is below the limit.
_UPPER_WORD = 10**28 >> 64
_TEXTS = ("symbol", "interval", "source")
_COLUMN_TYPES = dict.fromkeys(DECIMAL_COLUMNS, PRICE) | dict.fromkeys(("open_time", "close_time", "trades"), pa.int64())


class MalformedKlines(ValueError):
    """Text from the exchange that is not what its documentation says; the message names the place."""


@dataclass(frozen=True)
class ParsedKlines:
    """Rows in order of time, one per open time, and what was odd about the text they came from.

    `superseded` are rows of the same open time as another, later one that differs from them: the later one counts.
    `duplicates` of equal rows are only counted. `off_grid` rows, whose open time is no multiple of the interval, are
    among the rows.
    """

    rows: pa.Table
    broken: BrokenRows
    superseded: pa.Table
    duplicates: int
    off_grid: int


def parse_archive_csv(
    text: bytes, series: Series, window: tuple[datetime, datetime], source: str, ingested_at: datetime
) -> ParsedKlines:
    """Parse one archive CSV (12 columns, with or without a header line) into rows of `KLINE_SCHEMA`.

    Raises MalformedKlines for text that does not parse without loss, missing values, times of another unit than
    milliseconds or microseconds, and bars that open outside `window`.
    """
    table = _read_csv(text)
    if not table.num_rows:
        raise MalformedKlines("it holds no bars")
    return _parsed(_typed(table, series, source, ingested_at), series, window)


def parse_rest_klines(
    rows: Sequence[Sequence[Any]],
    series: Series,
    window: tuple[datetime, datetime],
    source: str,
    ingested_at: datetime,
    now: datetime,
) -> ParsedKlines:
    """Parse the rows of REST answers (12 values each); a bar that has not closed by `now` is left out.

    Raises MalformedKlines as `parse_archive_csv` does.
    """
    for row in rows:
        if [type(value) for value in row[:-1]] != _REST_TYPES:
            raise MalformedKlines(f"a row is not of the documented numbers and strings: {str(row)[:200]}")
    # At most a few thousand rows: as text they take the same way as the archive's.
    text = "\n".join(",".join(map(str, row[:-1])) + ",0" for row in rows).encode("utf-8", "replace")
    table = _typed(_read_csv(text), series, source, ingested_at)
    closed = integers(table["close_time"]) < micros(now)
    return _parsed(table.take(index_array(np.flatnonzero(closed))), series, window)


def nothing_parsed() -> ParsedKlines:
    """What an answer without bars amounts to."""
    none = no_klines()
    return ParsedKlines(none, BrokenRows(none, ()), none, 0, 0)


def _read_csv(text: bytes) -> pa.Table:
    try:
        table = csv.read_csv(
            pa.BufferReader(text),
            # Blocks that stay in the processor's cache: a quarter less CPU than blocks of a megabyte.
            read_options=csv.ReadOptions(
                column_names=_CSV_COLUMNS, skip_rows=_header_lines(text), use_threads=False, block_size=1 << 18
            ),
            parse_options=csv.ParseOptions(newlines_in_values=False),
            convert_options=csv.ConvertOptions(column_types=_COLUMN_TYPES, include_columns=_CSV_COLUMNS[:-1]),
        )
    except pa.ArrowInvalid as error:
        raise MalformedKlines(f"not the twelve columns of a kline file: {error}") from error
    for name in table.column_names:
        if table[name].null_count:
            raise MalformedKlines(f"{table[name].null_count} rows have no {name}")
    return table


def _header_lines(text: bytes) -> int:
    # Spot files have had no header so far, futures files have this one since 2022. Nothing else may pass for one: a
    # page that says "unavailable" would be a month without bars, and columns in another order go by their place here.
    return 1 if text[:200].lower().splitlines()[:1] == [_HEADER] else 0


def _typed(table: pa.Table, series: Series, source: str, ingested_at: datetime) -> pa.Table:
    """The columns of the text with the ones that it does not have, in the types of the raw zone."""
    _refuse_too_large(table)
    count = table.num_rows
    columns: dict[str, pa.Array | pa.ChunkedArray] = {name: table[name] for name in table.column_names}
    for name in ("open_time", "close_time"):
        columns[name] = instants(_micros(integers(table[name]), name))
    for name, value in zip(_TEXTS, (series.symbol, series.interval, source), strict=True):
        columns[name] = _repeated(value, count)
    columns["ingested_at"] = instants(np.full(count, micros(ingested_at)))
    return pa.table([columns[name] for name in KLINE_SCHEMA.names], schema=KLINE_SCHEMA)


def _refuse_too_large(table: pa.Table) -> None:
    # Arrow parses more digits than decimal(28, 8) has into it without a word, and Parquet then cuts them off.
    for name in DECIMAL_COLUMNS if table.num_rows else ():
        _, upper = decimal_words(table[name])
        if upper.min() > -_UPPER_WORD and upper.max() < _UPPER_WORD:
            continue
        extent = pc.min_max(table[name]).as_py()
        if not -_LIMIT < extent["min"] <= extent["max"] < _LIMIT:
            raise MalformedKlines(f"{name} has more than 20 digits before the point")


def _micros(values: Ints, name: str) -> Ints:
    """Milliseconds (13 digits) or microseconds (16 digits), decided per value."""
    is_millis = (values >= 10**12) & (values < 10**13)
    known = is_millis | ((values >= 10**15) & (values < 10**16))
    if not known.all():
        row = int(np.argmin(known))
        raise MalformedKlines(f"row {row + 1} has {name} {values[row]}, neither 13 digits (ms) nor 16 digits (us)")
    return np.where(is_millis, values * 1000, values)


def instants(micros: Ints) -> pa.Array:
    """Microseconds since 1970 as a column of instants."""
    return pa.Array.from_buffers(INSTANT, len(micros), [None, pa.py_buffer(np.ascontiguousarray(micros, np.int64))])


def _repeated(value: str, count: int) -> pa.Array:
    """A column of one text. (pa.repeat takes a scalar, and making one imports pandas: half a second.)"""
    raw = value.encode()
    offsets = np.arange(count + 1, dtype=np.int32) * len(raw)
    return pa.Array.from_buffers(pa.string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(raw * count)])


def _parsed(table: pa.Table, series: Series, window: tuple[datetime, datetime]) -> ParsedKlines:
    _refuse_outside(integers(table["open_time"]), window)
    good, broken = split_broken(table)
    rows, superseded, duplicates = _settled(good)
    length = grid_micros(series.interval)
    off_grid = int(np.count_nonzero(integers(rows["open_time"]) % length)) if length else 0
    return ParsedKlines(rows, broken, superseded, duplicates, off_grid)


def _refuse_outside(open_time: Ints, window: tuple[datetime, datetime]) -> None:
    start, end = map(micros, window)
    outside = (open_time < start) | (open_time >= end)
    if outside.any():
        first = instant(int(open_time[np.argmax(outside)]))
        raise MalformedKlines(f"a bar opens at {first}, outside of {window[0]} to {window[1]}")


def _settled(table: pa.Table) -> tuple[pa.Table, pa.Table, int]:
    """Rows by time, one per open time: of several, the one that stands last. Also those that differ from it, and how
    many are equal to it."""
    open_time = integers(table["open_time"])
    if (open_time[1:] > open_time[:-1]).all():
        return table, table.slice(0, 0), 0
    order = np.argsort(open_time, kind="stable")
    ordered = open_time[order]
    is_last = np.append(ordered[1:] != ordered[:-1], True)
    kept = table.take(index_array(order[is_last]))
    earlier = order[~is_last]
    partner = order[is_last][np.searchsorted(ordered[is_last], open_time[earlier])]
    left, right = (table.take(index_array(rows)).to_pylist() for rows in (earlier, partner))
    differs = np.array([a != b for a, b in zip(left, right, strict=True)], bool)
    return kept, table.take(index_array(earlier[differs])), int(np.count_nonzero(~differs))
