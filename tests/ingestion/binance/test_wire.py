"""The oracle is Python's own csv, json and Decimal over the same text, and `support.kline_rules` row by row."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.kline_rules import broken_rules, settled

from ingestion.binance.wire import MalformedKlines, ParsedKlines, parse_archive_csv, parse_rest_klines
from ingestion.klines import KLINE_SCHEMA, Month, Series

SERIES = Series("BTCUSDT", "1h")
MONTH = Month(2024, 12)
WINDOW = (MONTH.start, MONTH.end)
FETCHED = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

# As the columns lie in the file.
DECIMALS = {
    "open": 1,
    "high": 2,
    "low": 3,
    "close": 4,
    "volume": 5,
    "quote_volume": 7,
    "taker_buy_base_volume": 9,
    "taker_buy_quote_volume": 10,
}
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)
# A real row (2024-12, its last), from the archive.
ROW = (
    "1735689300000,93548.80000000,93576.00000000,93530.00000000,93576.00000000,25.10000000,1735689599999,"
    "2348208.12345678,4321,12.50000000,1169371.00000001,0"
)


def decimal_text(units: int, digits: int) -> str:
    whole, fraction = divmod(units, 10**digits)
    return f"{whole}.{fraction:0{digits}d}" if digits else str(whole)


# Up to 20 digits before the point and 8 after it: what decimal(28, 8) holds.
decimals = st.integers(0, 8).flatmap(
    lambda digits: st.integers(0, 10 ** (20 + digits) - 1).map(lambda units: decimal_text(units, digits))
)
instants = st.integers((MONTH.start - EPOCH) // MICROSECOND, (MONTH.end - EPOCH) // MICROSECOND - 1)


def parsed(text: str | bytes) -> ParsedKlines:
    content = text if isinstance(text, bytes) else text.encode()
    return parse_archive_csv(content, SERIES, WINDOW, "archive_monthly", FETCHED)


def parse(text: str | bytes) -> list[dict[str, object]]:
    return parsed(text).rows.to_pylist()


def row_with(column: int, value: str) -> str:
    cells = ROW.split(",")
    cells[column] = value
    return ",".join(cells) + "\n"


def micros(text: str) -> int:
    return int(text) * {13: 1000, 16: 1}[len(text)]


@st.composite
def times(draw: st.DrawFn, values: st.SearchStrategy[int] = instants) -> str:
    """A time as the archive writes it, in either unit."""
    value = draw(values)
    return str(value // 1000) if draw(st.booleans()) else str(value)


@st.composite
def lines(draw: st.DrawFn) -> str:
    """A line of the archive: often one that keeps all rules, sometimes at a time that others have too."""
    prices = [draw(decimals) for _ in DECIMALS]
    if draw(st.integers(0, 3)):
        low, first, last, high = sorted(prices[:4], key=Decimal)
        taker, volume, quote_taker, quote = *sorted(prices[4:6], key=Decimal), *sorted(prices[6:8], key=Decimal)
        prices = [first, high, low, last, volume, quote, taker, quote_taker]
    opens = draw(st.sampled_from([instants, st.just(1733011200000000)]))
    cells = [draw(times(opens)), *prices[:5], draw(times(st.integers(10**15, 10**16 - 1))), prices[5]]
    return ",".join([*cells, str(draw(st.integers(0, 2**63 - 1))), *prices[6:], draw(st.sampled_from(["0", "1.5"]))])


def _by_python(text: str) -> list[dict[str, object]]:
    return [
        {name: Decimal(row[column]) for name, column in DECIMALS.items()}
        | {
            "open_time": EPOCH + micros(row[0]) * MICROSECOND,
            "close_time": EPOCH + micros(row[6]) * MICROSECOND,
            "trades": int(row[8]),
        }
        for row in csv.reader(io.StringIO(text))
        if row[0] != "open_time"
    ]


def _check_against_python(actual: ParsedKlines, expected: list[dict[str, object]]) -> None:
    def rows_of(table: pa.Table) -> list[dict[str, object]]:
        return [{name: row[name] for name in expected[0]} for row in table.to_pylist()]

    kept, superseded, duplicates = settled(row for row in expected if not broken_rules(row))
    assert rows_of(actual.rows) == kept
    assert rows_of(actual.broken.rows) == [row for row in expected if broken_rules(row)]
    assert rows_of(actual.superseded) == sorted(superseded, key=lambda row: row["open_time"])
    assert actual.duplicates == duplicates
    hour = timedelta(hours=1)
    assert actual.off_grid == sum((row["open_time"] - EPOCH) % hour > timedelta(0) for row in kept)


@given(st.lists(lines(), min_size=1, max_size=6), st.booleans(), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_every_value_equals_the_text(rows: list[str], header: bool, newline: str, ends_with_newline: bool) -> None:
    text = newline.join([HEADER, *rows] if header else rows) + (newline if ends_with_newline else "")
    _check_against_python(parsed(text), _by_python(text))


@given(st.lists(lines(), min_size=1, max_size=6))
def test_every_value_of_rest_equals_its_json(rows: list[str]) -> None:
    cells = [row.split(",") for row in rows]
    numbers = [[int(cell) if i in (0, 6, 8) else cell for i, cell in enumerate(row)] for row in cells]
    forever = datetime(9999, 1, 1, tzinfo=UTC)
    actual = parse_rest_klines(json.loads(json.dumps(numbers)), SERIES, WINDOW, "rest", FETCHED, forever)
    _check_against_python(actual, _by_python("\n".join(rows)))


@given(st.lists(lines(), min_size=1, max_size=6), st.integers(10**15, 10**16 - 1))
def test_a_bar_of_rest_that_has_not_closed_is_left_out(rows: list[str], now: int) -> None:
    cells = [row.split(",") for row in rows]
    numbers = [[int(cell) if i in (0, 6, 8) else cell for i, cell in enumerate(row)] for row in cells]
    actual = parse_rest_klines(numbers, SERIES, WINDOW, "rest", FETCHED, EPOCH + now * MICROSECOND)
    closed = [row for row in rows if micros(row.split(",")[6]) < now]
    expected = settled(row for row in _by_python("\n".join(closed)) if not broken_rules(row))[0]
    assert actual.rows["close_time"].to_pylist() == [row["close_time"] for row in expected]


REST_ROW = [int(cell) if i in (0, 6, 8) else cell for i, cell in enumerate(ROW.split(","))]


@pytest.mark.parametrize(
    "value", [None, True, 1.5, [], {}, "open_time", "", "1\n2", '"', "1,2", "NaN", "\ud800"], ids=repr
)
@pytest.mark.parametrize("column", range(11))
def test_a_value_of_rest_that_is_not_as_documented_is_refused(column: int, value: object) -> None:
    row = [*REST_ROW[:column], value, *REST_ROW[column + 1 :]]
    with pytest.raises(MalformedKlines):
        parse_rest_klines([row], SERIES, WINDOW, "rest", FETCHED, FETCHED)


@given(st.lists(st.lists(st.none() | st.booleans() | st.integers() | st.text(), min_size=12, max_size=12), max_size=3))
def test_whatever_rest_answers_is_parsed_or_refused_as_malformed(rows: list[list[object]]) -> None:
    try:
        found = parse_rest_klines(rows, SERIES, WINDOW, "rest", FETCHED, FETCHED)
    except MalformedKlines:
        return
    assert found.rows.num_rows == 0


def test_the_later_of_two_rows_of_one_time_counts_and_the_other_is_remembered() -> None:
    first, second = ROW, row_with(4, "93550.00000000").strip()
    found = parsed(f"{first}\n{first}\n{second}\n{second}\n")
    assert found.rows["close"].to_pylist() == [Decimal(93550)]
    assert (found.superseded["close"].to_pylist(), found.duplicates) == ([Decimal(93576)] * 2, 1)


def test_the_rows_have_the_schema_of_the_raw_zone() -> None:
    table = parse_archive_csv(ROW.encode(), SERIES, WINDOW, "archive_monthly", FETCHED).rows
    assert table.schema == KLINE_SCHEMA


def test_the_rows_carry_series_source_and_time_of_ingestion() -> None:
    row = parse(ROW)[0]
    assert (row["symbol"], row["interval"], row["source"], row["ingested_at"]) == (
        "BTCUSDT",
        "1h",
        "archive_monthly",
        FETCHED,
    )


def test_a_close_time_cut_short_by_a_halt_is_kept() -> None:
    assert parse(row_with(6, "1735689381646"))[0]["close_time"] == datetime(2024, 12, 31, 23, 56, 21, 646000, UTC)


def test_milliseconds_and_microseconds_are_told_apart_per_value() -> None:
    micro_row = ROW.replace("1735689300000", "1735689000000000", 1)
    opens = [row["open_time"] for row in parse(f"{ROW}\n{micro_row}\n")]
    assert opens == [datetime(2024, 12, 31, 23, minute, tzinfo=UTC) for minute in (50, 55)]


@given(st.integers(-(2**63), 2**63 - 1).filter(lambda value: value < 0 or len(str(value)) not in (13, 16)))
@example(10**12 - 1)
@example(10**13)
@example(10**15 - 1)
@example(10**16)
@pytest.mark.parametrize("column", [0, 6])
def test_a_time_in_no_known_unit_is_refused(column: int, value: int) -> None:
    with pytest.raises(MalformedKlines, match="neither 13 digits"):
        parse(row_with(column, str(value)))


def test_a_time_in_no_known_unit_is_named_with_its_row() -> None:
    with pytest.raises(MalformedKlines, match="row 2 has open_time 1735689300,"):
        parse(f"{ROW}\n{row_with(0, '1735689300')}")


@given(st.from_regex(r"[0-9]{1,19}\.[0-9]{8,11}[1-9]", fullmatch=True), st.sampled_from(sorted(DECIMALS.values())))
def test_more_than_eight_digits_after_the_point_are_refused_not_rounded(value: str, column: int) -> None:
    with pytest.raises(MalformedKlines):
        parse(row_with(column, value))


@pytest.mark.parametrize("empty", ["", "NULL", "nan"])
@pytest.mark.parametrize("column", range(11))
def test_a_missing_value_is_refused(column: int, empty: str) -> None:
    with pytest.raises(MalformedKlines):
        parse(ROW + "\n" + row_with(column, empty))


@pytest.mark.parametrize("column", range(11))
def test_a_value_that_is_no_number_is_refused(column: int) -> None:
    with pytest.raises(MalformedKlines):
        parse(row_with(column, "1.5x"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ROW.rsplit(",", 1)[0],
        ROW + ",0",
        ROW[: len(ROW) // 2],
        f"{ROW}\n{ROW[:40]}",
        "<html><body>404 Not found</body></html>",
        '{"code":0,"msg":"Service unavailable"}',
        HEADER.replace(",", ";") + "\n" + ROW.replace(",", ";"),
    ],
    ids=[
        "nothing",
        "eleven columns",
        "thirteen columns",
        "half a row",
        "half a second row",
        "a page",
        "an error body",
        "semicolons",
    ],
)
def test_text_that_is_no_kline_file_is_refused(text: str) -> None:
    with pytest.raises(MalformedKlines):
        parse(text)


def _mutations(base: bytes) -> st.SearchStrategy[bytes]:
    def mutate(edits: list[tuple[int, int]]) -> bytes:
        content = bytearray(base)
        for position, value in edits:
            content[position] = value
        return bytes(content)

    return st.lists(st.tuples(st.integers(0, len(base) - 1), st.integers(0, 255)), min_size=1, max_size=4).map(mutate)


@given(st.binary(max_size=200) | _mutations(f"{HEADER}\n{ROW}\n{ROW}\n".encode()))
def test_whatever_comes_is_parsed_or_refused_as_malformed(content: bytes) -> None:
    try:
        rows = parse(content)
    except MalformedKlines:
        return
    assert all(WINDOW[0] <= row["open_time"] < WINDOW[1] for row in rows)


def _opens_at(instant: datetime) -> str:
    return ",".join(
        [str((instant - EPOCH) // MICROSECOND), *ROW.split(",")[1:6], "1735693200000000", *ROW.split(",")[7:]]
    )


@pytest.mark.parametrize(
    "instant", [MONTH.start, MONTH.end - MICROSECOND], ids=["its first microsecond", "its last microsecond"]
)
def test_a_bar_inside_the_window_is_taken(instant: datetime) -> None:
    assert parse(_opens_at(instant))[0]["open_time"] == instant


@pytest.mark.parametrize("instant", [MONTH.start - MICROSECOND, MONTH.end], ids=["just before it", "at its end"])
def test_a_bar_outside_the_window_is_refused(instant: datetime) -> None:
    with pytest.raises(MalformedKlines, match=r"a bar opens at .*, outside of 2024-12-01 .* to 2025-01-01"):
        parse(f"{ROW}\n{_opens_at(instant)}")


def test_a_file_larger_than_one_read_block_is_parsed_whole() -> None:
    opens = [1733011200000 + 1000 * number for number in range(10_000)]
    text = "\n".join(row_with(0, str(open_time)).strip() for open_time in opens)
    assert [row["open_time"] for row in parse(text)] == [EPOCH + timedelta(milliseconds=millis) for millis in opens]


@pytest.mark.parametrize("digits", [21, 25, 28])
def test_a_number_too_large_for_the_raw_zone_is_refused_not_cut(digits: int) -> None:
    with pytest.raises(MalformedKlines):
        parse(row_with(2, "9" * digits + ".5"))


@pytest.mark.parametrize("text", ["Service temporarily unavailable\n", "\n", "open_time,open,high,low,close\n"])
def test_a_file_without_bars_is_refused_not_landed_as_an_empty_month(text: str) -> None:
    with pytest.raises(MalformedKlines):
        parse(text)


def test_a_first_bar_that_is_broken_is_not_taken_for_a_header() -> None:
    with pytest.raises(MalformedKlines):
        parse(f"x{ROW}\n{ROW}\n")
