"""Column by column against `support.kline_rules`, row by row."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kline_rules import broken_rules

from ingestion.klines import DECIMAL_COLUMNS, KLINE_SCHEMA
from ingestion.row_rules import integers, split_broken

BASE = datetime(2024, 7, 1, tzinfo=UTC)
HIGHEST = Decimal("99999999999999999999.99999999")

amounts = st.sampled_from([-HIGHEST, Decimal(-1), Decimal("-0.00000001"), Decimal(0), Decimal("0.00000001")]) | (
    st.sampled_from([Decimal(1), Decimal(2), Decimal(3), HIGHEST, Decimal("184467440737.09551616")])
)
seconds = st.integers(-2, 2)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, object]:
    good = {"open": 2, "high": 3, "low": 1, "close": 2, "volume": 5, "quote_volume": 5}
    values: dict[str, object] = {name: Decimal(good.get(name, 1)) for name in DECIMAL_COLUMNS}
    for name in draw(st.lists(st.sampled_from(DECIMAL_COLUMNS), max_size=3)):
        values[name] = draw(amounts)
    texts = {"symbol": "BTCUSDT", "interval": "1h", "source": "rest", "ingested_at": BASE}
    times = {"open_time": BASE, "close_time": BASE + timedelta(seconds=draw(st.sampled_from([1, 1, 1, 0, -1])))}
    return values | texts | times | {"trades": draw(st.sampled_from([0, 1, 2**63 - 1, -1]))}


def table(*chunks: list[dict[str, object]]) -> pa.Table:
    return pa.concat_tables([pa.Table.from_pylist(chunk, schema=KLINE_SCHEMA) for chunk in chunks])


@given(st.lists(rows(), max_size=12), st.integers(0, 12), st.integers(0, 3))
def test_rows_are_split_as_row_by_row(some: list[dict[str, object]], cut: int, skip: int) -> None:
    """Also in several chunks, and in a slice, where Arrow's buffers begin elsewhere."""
    whole = table(some[:cut], some[cut:]).slice(skip)
    some = some[skip:]
    good, broken = split_broken(whole)
    assert good.to_pylist() == [row for row in some if not broken_rules(row)]
    assert broken.rows.to_pylist() == [row for row in some if broken_rules(row)]
    for row, reason in zip(broken.rows.to_pylist(), broken.reasons, strict=True):
        assert reason in broken_rules(row)


def test_rows_that_keep_all_rules_are_not_copied() -> None:
    whole = table([_good()] * 3)
    assert split_broken(whole)[0] is whole


def _good(**changes: object) -> dict[str, object]:
    values: dict[str, object] = dict.fromkeys(DECIMAL_COLUMNS, Decimal(1))
    texts = {"symbol": "BTCUSDT", "interval": "1h", "source": "rest", "ingested_at": BASE, "trades": 1}
    return values | texts | {"open_time": BASE, "close_time": BASE + timedelta(hours=1)} | changes


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"close_time": BASE}, "open_time < close_time"),
        ({"low": Decimal(2), "high": Decimal(2), "close": Decimal(2)}, "low <= open"),
        ({"low": Decimal(2), "high": Decimal(2), "open": Decimal(2)}, "low <= close"),
        ({"open": Decimal(2)}, "open <= high"),
        ({"close": Decimal(2)}, "close <= high"),
        ({"low": Decimal(0)}, "low > 0"),
        ({"volume": Decimal(-1), "taker_buy_base_volume": Decimal(-2)}, "volume >= 0"),
        ({"quote_volume": Decimal(-1), "taker_buy_quote_volume": Decimal(-2)}, "quote_volume >= 0"),
        ({"taker_buy_base_volume": Decimal(-1)}, "taker_buy_base_volume >= 0"),
        ({"taker_buy_quote_volume": Decimal(-1)}, "taker_buy_quote_volume >= 0"),
        ({"trades": -1}, "trades >= 0"),
        ({"taker_buy_base_volume": Decimal("1.00000001")}, "taker_buy_base_volume <= volume"),
        ({"taker_buy_quote_volume": Decimal("1.00000001")}, "taker_buy_quote_volume <= quote_volume"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_rule_is_named(changes: dict[str, object], rule: str) -> None:
    broken = split_broken(table([_good(), _good(**changes)]))[1]
    assert broken.reasons == (rule,)
    assert broken.summary == f"1 row breaks {rule}"


@pytest.mark.parametrize(
    "changes",
    [
        {"close_time": BASE + timedelta(minutes=39, seconds=41, milliseconds=646)},
        {"open_time": BASE - timedelta(minutes=31, seconds=46)},
        dict.fromkeys(DECIMAL_COLUMNS[4:], Decimal(0)) | {"trades": 0},
    ],
    ids=["a close time cut short by a halt", "an open time off the grid", "a bar without trades"],
)
def test_an_odd_row_that_contradicts_nothing_is_kept(changes: dict[str, object]) -> None:
    assert split_broken(table([_good(**changes)]))[1].reasons == ()


def test_many_broken_rows_are_counted_by_rule() -> None:
    some = [_good(trades=-1), _good(), _good(trades=-1), _good(low=Decimal(0))]
    assert split_broken(table(some))[1].summary == "2 rows break trades >= 0; 1 row breaks low > 0"


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5), max_size=4), st.integers(0, 5))
def test_integers_are_those_of_the_column(chunks: list[list[int]], skip: int) -> None:
    column = pa.chunked_array([pa.array(chunk, pa.int64()) for chunk in chunks], pa.int64()).slice(skip)
    np.testing.assert_array_equal(integers(column), np.array(list(chain(*chunks))[skip:], np.int64))
