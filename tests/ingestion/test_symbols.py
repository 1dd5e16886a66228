from __future__ import annotations

import contextlib
import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.binance.rest import MalformedAnswer
from ingestion.errors import ExchangeRefused
from ingestion.raw_zone import RawZone
from ingestion.settings import load_settings
from ingestion.simulator.server import build_app, running
from ingestion.symbols import SYMBOL_SCHEMA, land_symbols, parse_exchange_info

if TYPE_CHECKING:
    from tests.ingestion.conftest import ArchiveHost

FETCHED = datetime(2026, 1, 2, tzinfo=UTC)


def entry(symbol: str = "BTCUSDT", **changes: Any) -> dict[str, Any]:
    filters = [
        {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"},
        {"filterType": "LOT_SIZE", "stepSize": "0.00001000"},
        {"filterType": "NOTIONAL", "minNotional": "5.00000000"},
    ]
    base = {"symbol": symbol, "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT", "filters": filters}
    return base | changes


def test_a_symbol_becomes_a_row() -> None:
    rows = parse_exchange_info([entry()], FETCHED)
    assert rows.schema == SYMBOL_SCHEMA
    assert rows.to_pylist() == [
        {
            "symbol": "BTCUSDT",
            "status": "TRADING",
            "base_asset": "BTC",
            "quote_asset": "USDT",
            "tick_size": Decimal("0.01"),
            "lot_size": Decimal("0.00001"),
            "min_notional": Decimal(5),
            "fetched_at": FETCHED,
        }
    ]


def test_symbols_are_ordered_and_those_that_ended_stay() -> None:
    rows = parse_exchange_info([entry("ETHUSDT"), entry("BCCUSDT", status="BREAK")], FETCHED)
    assert rows.select(["symbol", "status"]).to_pylist() == [
        {"symbol": "BCCUSDT", "status": "BREAK"},
        {"symbol": "ETHUSDT", "status": "TRADING"},
    ]


def test_the_old_name_of_the_smallest_order_is_understood() -> None:
    old = entry(filters=[{"filterType": "MIN_NOTIONAL", "minNotional": "10.00000000"}])
    [row] = parse_exchange_info([old], FETCHED).to_pylist()
    assert (row["min_notional"], row["tick_size"]) == (Decimal(10), None)


@pytest.mark.parametrize("name", ["symbol", "status", "baseAsset", "quoteAsset", "filters"])
@pytest.mark.parametrize("value", [None, 5, ..., [1], {"x": 1}], ids=["null", "number", "nothing", "list", "object"])
def test_a_symbol_without_what_is_documented_is_malformed(name: str, value: object) -> None:
    broken = entry(**{name: value})
    if value is ...:
        del broken[name]
    with pytest.raises(MalformedAnswer, match="exchangeInfo describes a symbol without"):
        parse_exchange_info([broken], FETCHED)


@pytest.mark.parametrize(
    "size", [None, "", "x", "NaN", "Infinity", "-1", "1e400", "0.000000001", "1" + "0" * 20, [], {}, [0, [1], 0]]
)
def test_a_size_that_is_none_is_malformed(size: object) -> None:
    with pytest.raises(MalformedAnswer):
        parse_exchange_info([entry(filters=[{"filterType": "PRICE_FILTER", "tickSize": size}])], FETCHED)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(_json | st.builds(lambda name, value: entry(**{name: value}), st.sampled_from([*entry()]), _json)))
def test_whatever_is_listed_is_taken_or_malformed(symbols: list[Any]) -> None:
    with contextlib.suppress(MalformedAnswer):
        assert parse_exchange_info(symbols, FETCHED).num_rows == len(symbols)


@pytest.mark.shared
def test_the_recorded_exchange_info_is_understood(shared_data: Path) -> None:
    recorded = json.loads(gzip.decompress((shared_data / "exchange_info/exchangeInfo-2021-10-12.json.gz").read_bytes()))
    rows = {row["symbol"]: row for row in parse_exchange_info(recorded["symbols"], FETCHED).to_pylist()}
    assert len(rows) == len(recorded["symbols"]) == 1695
    assert sum(row["status"] == "BREAK" for row in rows.values()) == 433
    by_hand = {one["symbol"]: one for one in recorded["symbols"]}
    for symbol, row in rows.items():
        [tick] = [f["tickSize"] for f in by_hand[symbol]["filters"] if f["filterType"] == "PRICE_FILTER"]
        assert row["tick_size"] == Decimal(tick)


def test_symbols_are_kept_only_when_they_changed(tmp_path: Path) -> None:
    renamed = datetime(2024, 9, 12, tzinfo=UTC)
    seen: list[int] = []
    for now in (renamed, renamed.replace(hour=5), datetime(2024, 9, 14, tzinfo=UTC)):
        with running(build_app(now=now)) as url:
            settings = load_settings(archive_url=url, home=tmp_path)
            rows = land_symbols(settings)
        seen.append(len(RawZone(settings.raw_root).symbol_files()))
    assert seen == [1, 1, 2]
    status = dict(zip(rows["symbol"].to_pylist(), rows["status"].to_pylist(), strict=True))
    assert (status["MATICUSDT"], status["POLUSDT"]) == ("BREAK", "TRADING")
    assert RawZone(settings.raw_root).latest_symbols().equals(rows)


def test_an_exchange_that_refuses_leaves_nothing(host: ArchiveHost, tmp_path: Path) -> None:
    host.blocked = host.reply(451)
    settings = load_settings(archive_url=host.url, rest_url=host.url, home=tmp_path)
    with pytest.raises(ExchangeRefused, match="451"):
        land_symbols(settings)
    assert not (tmp_path / "raw").exists()
