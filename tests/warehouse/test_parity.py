"""Differences between two engines are found, whatever they are."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from support.homes import home

from ingestion.settings import Settings
from warehouse import parity
from warehouse.parity import KEYS, Parity, compare_engines, estimate

START, END = datetime(2024, 1, 30, tzinfo=UTC), datetime(2024, 2, 3, tzinfo=UTC)
DAYS = [START + timedelta(days) for days in range(4)]
_INSTANT = pa.timestamp("us", "UTC")
_KEY = {"symbol": ["BTCUSDT"], "interval": ["1d"]}


def marts() -> dict[str, pa.Table]:
    """One small table of each mart."""
    at = pa.array([START], _INSTANT)
    bars = {
        "symbol": ["BTCUSDT"] * 4,
        "interval": ["1d"] * 4,
        "open_time": pa.array(DAYS, _INSTANT),
        "close": [100.0, 101.5, 0.1, 3e-7],
        "trades": [1, 2, 3, 4],
        "ema_50": [None, 100.25, -0.5, 0.0],
        "source": ["archive_monthly"] * 4,
    }
    told = {"field": ["close"], "kept_source": ["rest"], "other_source": ["stream"], "other_value": ["1.50"]}
    return {
        "market_data_unified": pa.table(bars),
        "dim_dates": pa.table({"date_day": [date(2024, 1, 30)], "year": [2024]}),
        "dim_hours": pa.table({"hour": [0, 1]}),
        "dim_symbols": pa.table({"symbol": ["BTCUSDT"], "renamed_to": pa.array([None], pa.string())}),
        "klines_gaps": pa.table({**_KEY, "resumed_at": at, "verdict": ["exchange"]}),
        "klines_reconciliation": pa.table({**_KEY, "open_time": at, **told, "kept_value": ["1.51"]}),
    }


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., dict[str, Parity]]]:
    """Compare these tables (the others are the same) of BigQuery with `marts()`."""
    theirs = marts()
    published = duckdb.connect()
    published.execute("set TimeZone = 'UTC'")
    for name, table in marts().items():
        published.register(name, table)

    def read(sql: str, *, purpose: str) -> pa.Table:
        mart, bounds = re.search(r"from (\w+)", sql), re.findall(r"'(\d{4}-[^']+)'", sql)
        assert mart is not None
        connection = duckdb.connect()
        connection.execute("set TimeZone = 'UTC'")
        connection.register("theirs", theirs[mart[1]])
        where = f"where open_time >= '{bounds[0]}' and open_time < '{bounds[1]}'" if bounds else ""
        return connection.sql(f"select * from theirs {where}").to_arrow_table()

    @contextmanager
    def opened(settings: Settings) -> Iterator[Any]:
        yield SimpleNamespace(read=read)

    @contextmanager
    def reading(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
        assert settings.target == "duckdb"
        yield published

    monkeypatch.setattr(parity, "opened", opened)
    monkeypatch.setattr(parity, "reading", reading)
    settings = home(tmp_path, target="bigquery")

    def compared(**changed: pa.Table) -> dict[str, Parity]:
        theirs.update(changed)
        return {one.mart: one for one in compare_engines(settings, START, END)}

    yield compared
    published.close()


def with_values(mart: str, column: str, values: Mapping[int, Any]) -> pa.Table:
    """A mart with other values in some rows of a column."""
    table = marts()[mart]
    found = [values.get(i, value) for i, value in enumerate(table[column].to_pylist())]
    place = table.schema.get_field_index(column)
    return table.set_column(place, table.schema.field(place), pa.array(found, table.schema.field(place).type))


def test_the_same_rows_are_equal_in_whatever_order(compare: Callable[..., dict[str, Parity]]) -> None:
    found = compare(market_data_unified=marts()["market_data_unified"].take([3, 1, 0, 2]))
    assert list(found) == list(KEYS)
    assert [one for one in found.values() if not one.is_equal] == []
    assert {one.largest_difference for one in found.values()} == {0}
    assert found["market_data_unified"].rows_duckdb == 4


def test_the_last_digits_of_an_indicator_may_differ(compare: Callable[..., dict[str, Parity]]) -> None:
    bars = with_values("market_data_unified", "ema_50", {1: 100.25 * (1 + 5e-10)})
    found = compare(market_data_unified=bars)["market_data_unified"]
    assert found.is_equal
    assert found.largest_difference == pytest.approx(5e-10, rel=1e-3)


PLANTED: Mapping[str, tuple[str, pa.Table, str]] = {
    "a row that is missing there": (
        "market_data_unified",
        marts()["market_data_unified"].take([0, 1, 3]),
        "only_duckdb",
    ),
    "a row that is missing here": (
        "dim_hours",
        pa.table({"hour": [0, 1, 2]}),
        "only_bigquery",
    ),
    "a key that is another": (
        "klines_gaps",
        with_values("klines_gaps", "resumed_at", {0: END}),
        "only_bigquery",
    ),
    "an indicator": ("market_data_unified", with_values("market_data_unified", "ema_50", {1: 100.2500003}), "unequal"),
    "an indicator of the other sign": (
        "market_data_unified",
        with_values("market_data_unified", "ema_50", {2: 0.5}),
        "unequal",
    ),
    "an indicator that is missing": (
        "market_data_unified",
        with_values("market_data_unified", "ema_50", {2: None}),
        "unequal",
    ),
    "an indicator that is there": (
        "market_data_unified",
        with_values("market_data_unified", "ema_50", {0: 1.0}),
        "unequal",
    ),
    "an indicator that is no number": (
        "market_data_unified",
        with_values("market_data_unified", "ema_50", {1: float("nan")}),
        "unequal",
    ),
    "an indicator that is infinite": (
        "market_data_unified",
        with_values("market_data_unified", "ema_50", {1: float("inf")}),
        "unequal",
    ),
    "a price": ("market_data_unified", with_values("market_data_unified", "close", {0: 100.0000002}), "unequal"),
    "a count": ("market_data_unified", with_values("market_data_unified", "trades", {3: 5}), "unequal"),
    "a text": ("klines_reconciliation", with_values("klines_reconciliation", "kept_value", {0: "1.510"}), "unequal"),
    "a text in the place of none": ("dim_symbols", with_values("dim_symbols", "renamed_to", {0: ""}), "unequal"),
}


@pytest.mark.parametrize(("mart", "table", "where"), PLANTED.values(), ids=PLANTED)
def test_what_differs_is_counted_where_it_is(
    compare: Callable[..., dict[str, Parity]], mart: str, table: pa.Table, where: str
) -> None:
    found = compare(**{mart: table})
    assert [one.mart for one in found.values() if not one.is_equal] == [mart]
    assert getattr(found[mart], where) == 1


def test_the_last_digit_of_a_price_is_in_the_hash(compare: Callable[..., dict[str, Parity]]) -> None:
    bars = with_values("market_data_unified", "close", {0: 100.00000000000001})
    found = compare(market_data_unified=bars)["market_data_unified"]
    assert (found.unequal, found.is_equal) == (0, False)


def test_a_row_that_is_there_thrice_is_found_though_its_hash_is_that_of_one(
    compare: Callable[..., dict[str, Parity]],
) -> None:
    found = compare(market_data_unified=marts()["market_data_unified"].take([0, 0, 0, 1, 2, 3]))["market_data_unified"]
    assert found.hash_duckdb == found.hash_bigquery
    assert not found.is_equal


def test_the_price_is_that_of_what_all_marts_would_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @contextmanager
    def opened(settings: Settings) -> Iterator[Any]:
        yield SimpleNamespace(bytes_of=lambda sql: 1 << 39)

    monkeypatch.setattr(parity, "opened", opened)
    found = estimate(home(tmp_path, target="bigquery"), START, END)
    assert (found.bytes, found.usd) == (len(KEYS) << 39, len(KEYS) * 6.25 / 2)
