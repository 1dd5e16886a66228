"""Two sources told of the same bars: what they say differently."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
from support.homes import random_walk

from ingestion.grid import Window
from ingestion.klines import Series
from ingestion.reconcile import conflicts, differences

START = datetime(2025, 3, 1, tzinfo=UTC)
HOURS = Window(START, START + timedelta(hours=6))
ROWS = random_walk(Series("BTCUSDT", "1h"), START, 6)


def told(source: str, **changed: object) -> pa.Table:
    """The six bars by another source; `changed` are fields of the third."""
    rows = [row | {"source": source} for row in ROWS.to_pylist()]
    rows[2] |= changed
    return pa.Table.from_pylist(rows, schema=ROWS.schema)


def test_sources_that_say_the_same_differ_in_nothing() -> None:
    assert differences(ROWS, told("rest"), [HOURS], "archive_monthly", "rest").num_rows == 0


def test_each_field_that_differs_is_told_with_both_values() -> None:
    other = told("stream", close=Decimal("1.50000000"), trades=7)
    found = differences(ROWS, other, [HOURS], "archive_monthly", "stream").to_pylist()
    assert [(row["open_time"], row["field"], row["other_value"]) for row in found] == [
        (START + timedelta(hours=2), "close", "1.50000000"),
        (START + timedelta(hours=2), "trades", "7"),
    ]


def test_times_in_microseconds_and_in_milliseconds_are_the_same_times() -> None:
    """The archive since 2025 has a bar close at .999999, REST and streams at .999."""
    closed = [row | {"close_time": row["open_time"] + timedelta(hours=1, microseconds=-1)} for row in ROWS.to_pylist()]
    archive = pa.Table.from_pylist(closed, schema=ROWS.schema)
    assert differences(archive, told("rest"), [HOURS], "archive_monthly", "rest").num_rows == 0
    assert conflicts(archive, told("archive_monthly")).num_rows == 0


def test_a_bar_that_closed_a_millisecond_earlier_differs() -> None:
    earlier = told("rest", close_time=START + timedelta(hours=3, milliseconds=-2))
    (row,) = differences(ROWS, earlier, [HOURS], "archive_monthly", "rest").to_pylist()
    assert (row["field"], row["kept_value"]) == ("close_time", "2025-03-01T02:59:59.999000+00:00")
