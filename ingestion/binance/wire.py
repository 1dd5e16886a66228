"""Exchange text to Arrow: the CSV of the archive as rows of `KLINE_SCHEMA`.

Prices and volumes become decimals equal to the text to the last digit; times are normalised per value, because the
archive switched from milliseconds to microseconds on 2025-01-01 and a file name does not tell.
"""

from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ingestion.klines import DECIMAL_COLUMNS, INSTANT, KLINE_SCHEMA, PRICE, Series

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
_LIMIT = Decimal(10) ** 20
_COLUMN_TYPES = dict.fromkeys(DECIMAL_COLUMNS, PRICE) | dict.fromkeys(("open_time", "close_time", "trades"), pa.int64())


class MalformedKlines(ValueError):
    """Text from the exchange that is not what its documentation says; the message names the place."""


def parse_archive_csv(
    text: bytes, series: Series, window: tuple[datetime, datetime], source: str, ingested_at: datetime
) -> pa.Table:
    """Parse one archive CSV (12 columns, with or without a header line) into rows of `KLINE_SCHEMA`.

    Raises MalformedKlines for text that does not parse without loss, missing values, times of another unit than
    milliseconds or microseconds, and bars that open outside `window`.
    """
    try:
        table = csv.read_csv(
            pa.BufferReader(text),
            read_options=csv.ReadOptions(
                column_names=_CSV_COLUMNS, skip_rows=_header_lines(text), use_threads=False, block_size=1 << 20
            ),
            parse_options=csv.ParseOptions(newlines_in_values=False),
            convert_options=csv.ConvertOptions(column_types=_COLUMN_TYPES, include_columns=_CSV_COLUMNS[:-1]),
        )
    except pa.ArrowInvalid as error:
        raise MalformedKlines(f"not the twelve columns of a kline file: {error}") from error
    if not table.num_rows:
        raise MalformedKlines("it holds no bars")
    for name in table.column_names:
        if table[name].null_count:
            raise MalformedKlines(f"{table[name].null_count} rows have no {name}")
    _refuse_too_large(table)
    open_time = _instants(table["open_time"], "open_time")
    _refuse_outside(open_time, window)
    constants = {"symbol": series.symbol, "interval": series.interval, "source": source, "ingested_at": ingested_at}
    columns = {name: table[name] for name in table.column_names}
    columns |= {"open_time": open_time, "close_time": _instants(table["close_time"], "close_time")}
    columns |= {
        name: pa.repeat(pa.scalar(value, KLINE_SCHEMA.field(name).type), table.num_rows)
        for name, value in constants.items()
    }
    return pa.table([columns[name] for name in KLINE_SCHEMA.names], schema=KLINE_SCHEMA)


def _header_lines(text: bytes) -> int:
    # Spot files have had no header so far, futures files have one since 2022. Nothing else may pass for one, or a page
    # that says "unavailable" would be a month without bars.
    return 1 if text[:10].lower() == b"open_time," else 0


def _refuse_too_large(table: pa.Table) -> None:
    # Arrow parses more digits than decimal(28, 8) has into it without a word, and Parquet then cuts them off.
    for name in DECIMAL_COLUMNS:
        extent = pc.min_max(table[name]).as_py()
        if not -_LIMIT < extent["min"] <= extent["max"] < _LIMIT:
            raise MalformedKlines(f"{name} has more than 20 digits before the point")


def _instants(values: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Milliseconds (13 digits) or microseconds (16 digits), decided per value, to instants."""
    is_millis = pc.and_(pc.greater_equal(values, 10**12), pc.less(values, 10**13))
    is_micros = pc.and_(pc.greater_equal(values, 10**15), pc.less(values, 10**16))
    known = pc.or_(is_millis, is_micros)
    if not pc.all(known).as_py():
        row = pc.index(known, False).as_py()
        raise MalformedKlines(f"row {row + 1} has {name} {values[row]}, neither 13 digits (ms) nor 16 digits (us)")
    return pc.if_else(is_millis, pc.multiply(values, 1000), values).cast(INSTANT)


def _refuse_outside(open_time: pa.ChunkedArray, window: tuple[datetime, datetime]) -> None:
    start, end = window
    extent = pc.min_max(open_time).as_py()
    if extent["min"] < start or extent["max"] >= end:
        raise MalformedKlines(
            f"bars open from {extent['min']} to {extent['max']}, outside of the file's own {start} to {end}"
        )
