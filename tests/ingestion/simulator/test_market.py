from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ingestion.klines import INTERVAL_MICROS, Month, Series
from ingestion.simulator.market import Bars, Market

FIRST, JULY, AUGUST = Month(2020, 1), Month(2024, 7), Month(2024, 8)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
PRICES = ["open", "high", "low", "close"]
FLOWS = ["volume", "quote_volume", "trades", "taker_buy_base_volume", "taker_buy_quote_volume"]


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(1)


@pytest.fixture(scope="module", params=SYMBOLS)
def minutes(request: pytest.FixtureRequest, market: Market) -> Bars:
    return market.bars(Series(request.param, "1m"), JULY)


def micros(instant: datetime) -> int:
    return (instant - EPOCH) // MICROSECOND


def differing(one: Bars, other: Bars) -> list[str]:
    return [name for name in vars(one) if not np.array_equal(getattr(one, name), getattr(other, name))]


# --- determinism -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_one_seed_gives_one_market(market: Market, symbol: str) -> None:
    series = Series(symbol, "1m")
    assert differing(Market(1).bars(series, JULY), market.bars(series, JULY)) == []


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_another_seed_gives_another_market(market: Market, symbol: str) -> None:
    series = Series(symbol, "1m")
    assert set(differing(Market(2).bars(series, JULY), market.bars(series, JULY))) == {*PRICES, *FLOWS}


def test_a_month_is_the_same_alone_and_after_more_months_than_are_kept(market: Market) -> None:
    series = Series("BTCUSDT", "1h")
    busy = Market(1)
    for number in range(1, 13):
        busy.bars(series, Month(2023, number))
    assert differing(busy.bars(series, JULY), market.bars(series, JULY)) == []


def test_a_month_asked_twice_is_the_same_after_it_was_aggregated(market: Market) -> None:
    before = Market(1).bars(Series("ETHUSDT", "1m"), JULY)
    market.bars(Series("ETHUSDT", "1d"), JULY)
    assert differing(market.bars(Series("ETHUSDT", "1m"), JULY), before) == []


# --- a month of minutes ----------------------------------------------------------------------------------------


def test_a_month_has_every_minute_once(minutes: Bars) -> None:
    assert minutes.open_time.tolist() == list(range(micros(JULY.start), micros(JULY.end), 60_000_000))


def test_no_price_of_a_bar_is_above_its_high(minutes: Bars) -> None:
    assert np.all(minutes.high >= np.maximum(minutes.open, minutes.close))


def test_no_price_of_a_bar_is_below_its_low(minutes: Bars) -> None:
    assert np.all(minutes.low <= np.minimum(minutes.open, minutes.close))


def test_prices_are_positive(minutes: Bars) -> None:
    assert np.all(minutes.low > 0)


@pytest.mark.parametrize(("symbol", "tick"), [("BTCUSDT", 10**6), ("ETHUSDT", 10**6), ("SOLUSDT", 10**4)])
def test_prices_lie_on_the_tick(market: Market, symbol: str, tick: int) -> None:
    bars = market.bars(Series(symbol, "1m"), JULY)
    assert not any(np.any(getattr(bars, name) % tick) for name in PRICES)


def test_every_minute_has_trades_and_volume(minutes: Bars) -> None:
    assert np.all((minutes.trades > 0) & (minutes.volume > 0))


def test_takers_buy_no_more_than_is_traded(minutes: Bars) -> None:
    assert np.all((minutes.taker_buy_base_volume >= 0) & (minutes.taker_buy_base_volume <= minutes.volume))
    assert np.all(minutes.taker_buy_quote_volume <= minutes.quote_volume)


def test_the_mean_price_paid_lies_between_low_and_high(minutes: Bars) -> None:
    paid = minutes.quote_volume.astype(object) * 10**8
    assert np.all(minutes.low * minutes.volume.astype(object) <= paid)
    assert np.all(minutes.high * minutes.volume.astype(object) >= paid)


def test_a_minute_opens_where_the_one_before_closed(minutes: Bars) -> None:
    assert np.array_equal(minutes.open[1:], minutes.close[:-1])


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("month", [Month(2020, 8), Month(2021, 12), JULY, Month(2024, 12)], ids=str)
def test_a_month_opens_where_the_one_before_closed(market: Market, symbol: str, month: Month) -> None:
    series = Series(symbol, "1m")
    assert market.bars(series, month.next).open[0] == market.bars(series, month).close[-1]


# --- what is listed --------------------------------------------------------------------------------------------


def test_solana_starts_in_the_middle_of_a_day(market: Market) -> None:
    bars = market.bars(Series("SOLUSDT", "5m"), Month(2020, 8))
    assert bars.open_time[0] == micros(datetime(2020, 8, 11, 6, tzinfo=UTC))


def test_solana_has_no_month_before_its_first(market: Market) -> None:
    assert market.bars(Series("SOLUSDT", "5m"), Month(2020, 7)) is None


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
def test_the_others_start_with_2020(market: Market, symbol: str) -> None:
    assert market.bars(Series(symbol, "5m"), FIRST).open_time[0] == micros(FIRST.start)
    assert market.bars(Series(symbol, "5m"), Month(2019, 12)) is None


@pytest.mark.parametrize("series", [Series("BTCUSDT", "1s"), Series("DOGEUSDT", "5m")], ids=str)
def test_what_is_not_listed_has_no_bars(market: Market, series: Series) -> None:
    assert market.bars(series, JULY) is None


# --- larger intervals ------------------------------------------------------------------------------------------


def by_bucket(minutes: Bars, length: int, end: int) -> dict[str, list[int]]:
    """Bars of `length` up to `end`, minute by minute in plain Python."""
    rows = zip(*(getattr(minutes, name).tolist() for name in vars(minutes)), strict=True)
    bars: dict[int, dict[str, int]] = {}
    for values in rows:
        minute = dict(zip(vars(minutes), values, strict=True))
        if minute["open_time"] >= end:
            break
        start = minute["open_time"] // length * length
        empty = dict.fromkeys(FLOWS, 0) | {"open_time": start, "close_time": start + length - 1}
        bar = bars.setdefault(start, minute | empty)
        bar["high"], bar["low"] = max(bar["high"], minute["high"]), min(bar["low"], minute["low"])
        bar["close"] = minute["close"]
        for name in FLOWS:
            bar[name] += minute[name]
    return {name: [bar[name] for bar in bars.values()] for name in vars(minutes)}


@pytest.mark.parametrize("interval", ["3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d"])
def test_a_larger_bar_is_the_sum_of_its_minutes(market: Market, interval: str) -> None:
    end = JULY.start + timedelta(days=2)
    expected = by_bucket(market.bars(Series("BTCUSDT", "1m"), JULY), INTERVAL_MICROS[interval], micros(end))
    bars = market.bars(Series("BTCUSDT", interval), JULY).between(JULY.start, end)
    assert {name: column.tolist() for name, column in vars(bars).items()} == expected


def test_the_bar_of_a_calendar_month_is_the_sum_of_its_minutes(market: Market) -> None:
    minutes = market.bars(Series("BTCUSDT", "1m"), JULY)
    [month] = zip(*(c.tolist() for c in vars(market.bars(Series("BTCUSDT", "1M"), JULY)).values()), strict=True)
    extremes = [minutes.open[0], max(minutes.high.tolist()), min(minutes.low.tolist()), minutes.close[-1]]
    times = [micros(JULY.start), micros(JULY.end) - 1]
    assert list(month) == [*times, *extremes, *(sum(getattr(minutes, name).tolist()) for name in FLOWS)]


def test_an_interval_across_the_first_day_begins_on_its_grid(market: Market) -> None:
    bars = market.bars(Series("SOLUSDT", "4h"), Month(2020, 8))
    assert bars.open_time[0] == micros(datetime(2020, 8, 11, 4, tzinfo=UTC))


# --- slices ----------------------------------------------------------------------------------------------------


def test_a_slice_takes_its_start_and_leaves_its_end(market: Market) -> None:
    start = JULY.start + timedelta(hours=5)
    bars = market.bars(Series("BTCUSDT", "1h"), JULY).between(start, start + timedelta(hours=2))
    assert bars.open_time.tolist() == [micros(start), micros(start + timedelta(hours=1))]


def test_a_slice_between_two_bars_is_empty(market: Market) -> None:
    start = JULY.start + timedelta(minutes=1)
    assert len(market.bars(Series("BTCUSDT", "1h"), JULY).between(start, start + timedelta(minutes=9))) == 0
