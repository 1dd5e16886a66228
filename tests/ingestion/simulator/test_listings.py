from typing import Any

import numpy as np

from ingestion.klines import Month, Series
from ingestion.simulator.listings import LISTINGS, UNIT, more_listings
from ingestion.simulator.market import Market

MORE = more_listings(999)


def test_more_symbols_are_named_by_number() -> None:
    assert list(more_listings(2)) == ["SIM001USDT", "SIM002USDT"]


def test_a_symbol_is_the_same_however_many_there_are() -> None:
    assert more_listings(7)["SIM007USDT"] == MORE["SIM007USDT"]


def test_an_amount_of_any_symbol_is_exact() -> None:
    assert [listing for listing in MORE.values() if listing.lot * listing.tick % UNIT] == []


def test_every_symbol_has_prices_that_move() -> None:
    market = Market(1, listings=more_listings(48))
    for symbol in market.listings:
        bars = market.bars(Series(symbol, "1d"), Month(2024, 7))
        assert bars is not None
        assert len(np.unique(bars.close)) > 20, symbol
        assert bars.low.min() > 0, symbol
        assert bars.quote_volume.min() > 0, symbol


def test_the_market_of_a_seed_does_not_change_with_more_symbols() -> None:
    series, month = Series("BTCUSDT", "1d"), Month(2024, 7)
    plain, more = Market(1), Market(1, listings=LISTINGS | more_listings(3))
    assert (plain.name, more.name) == ("seed 1", "seed 1")
    ours, theirs = plain.bars(series, month), more.bars(series, month)
    assert ours is not None
    assert theirs is not None
    assert np.array_equal(ours.close, theirs.close)


def test_more_symbols_are_on_every_face(exchange: Any) -> None:
    at = exchange(more_symbols=2)
    listed = [entry["symbol"] for entry in at.get("/api/v3/exchangeInfo").json()["symbols"]]
    assert listed == [*LISTINGS, "SIM001USDT", "SIM002USDT"]
    [kline] = at.klines("SIM002USDT", "1d", startTime=1_719_792_000_000, limit=1)
    assert at.archived("SIM002USDT", "1d", "2024-07")[0][1:5] == kline[1:5]
