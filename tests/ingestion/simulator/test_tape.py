"""A tape tells what the market has, bar after bar."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from ingestion.klines import Month, Series, months_between
from ingestion.simulator.market import Bars, Market, instant_of, micros
from ingestion.simulator.outages import Outage
from ingestion.simulator.parameters import INTERVALS
from ingestion.simulator.tape import Kline, Tape

START = datetime(2025, 6, 28, 12, 0, 30, tzinfo=UTC)
HALT = Outage(
    datetime(2025, 6, 28, 12, 39, 41, tzinfo=UTC), datetime(2025, 6, 28, 14, tzinfo=UTC), timedelta(minutes=20)
)
COLUMNS = ("open_time", "close_time", "open", "high", "low", "close", "volume", "quote_volume", "trades")
COLUMNS += ("taker_buy_base_volume", "taker_buy_quote_volume")


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(1)


@pytest.fixture(scope="module")
def halted() -> Market:
    return Market(1, [HALT])


def told(tape: Tape, count: int) -> list[Kline]:
    found = []
    for _ in range(count):
        found.append(tape.closed())
        tape.advance()
    return found


def bars_from(market: Market, series: Series, start: datetime, count: int) -> list[tuple[int, ...]]:
    """The first bars that close at `start` or later."""
    months = months_between((start - timedelta(days=32)).date(), (start + timedelta(days=200)).date())
    rows: list[tuple[int, ...]] = []
    for month in months:
        bars = market.bars(series, month)
        if bars is not None:
            rows += [row for row in rows_of(bars) if row[1] >= micros(start)]
        if len(rows) >= count:
            break
    return rows[:count]


def rows_of(bars: Bars) -> list[tuple[int, ...]]:
    return list(zip(*(getattr(bars, name).tolist() for name in COLUMNS), strict=True))


def row(kline: Kline) -> tuple[int, ...]:
    return tuple(getattr(kline, name) for name in COLUMNS)


@pytest.mark.parametrize("interval", INTERVALS)
def test_a_tape_has_the_bars_of_the_market_across_months(market: Market, interval: str) -> None:
    series = Series("SOLUSDT", interval)
    count = 4 if interval == "1M" else 150 if interval == "1d" else 1300 if interval == "5m" else 30
    assert [row(kline) for kline in told(Tape(market, series, micros(START)), count)] == bars_from(
        market, series, START, count
    )


@pytest.mark.parametrize("interval", ["1m", "5m", "1h", "4h"])
def test_a_halt_leaves_its_bars_out_and_cuts_the_one_it_met(halted: Market, interval: str) -> None:
    series = Series("BTCUSDT", interval)
    klines = [row(kline) for kline in told(Tape(halted, series, micros(START)), 60)]
    assert klines == bars_from(halted, series, START, 60)


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("seconds", [0, 1, 29, 95, 3000])
def test_an_open_bar_is_that_of_rest(market: Market, interval: str, seconds: int) -> None:
    series = Series("SOLUSDT", interval)
    instant = START + timedelta(seconds=seconds)
    kline = Tape(market, series, micros(instant)).at(micros(instant))
    shown = [
        bars_row
        for month in (Month(2025, 5), Month(2025, 6))
        if (bars := market.bars_at(series, month, instant)) is not None
        for bars_row in rows_of(bars)
    ]
    assert kline is not None
    assert row(kline) == shown[-1]


def test_a_bar_that_a_halt_keeps_empty_is_not_told(halted: Market) -> None:
    tape = Tape(halted, Series("BTCUSDT", "5m"), micros(START.replace(hour=13)))
    assert instant_of(tape.open_time) == HALT.resume
    assert tape.at(micros(START.replace(hour=13))) is None


def test_trades_are_numbered_without_hole_within_a_month(market: Market) -> None:
    klines = told(Tape(market, Series("BTCUSDT", "1m"), micros(datetime(2025, 6, 3, 23, tzinfo=UTC))), 3000)
    assert all(after.first_trade == kline.last_trade + 1 for kline, after in itertools.pairwise(klines))


@pytest.mark.parametrize("interval", ["5m", "1h", "1d"])
def test_a_bar_has_the_trades_of_its_minutes(market: Market, interval: str) -> None:
    start = micros(datetime(2025, 6, 30, 12, 1, tzinfo=UTC))
    bar = Tape(market, Series("BTCUSDT", interval), start).closed()
    minute = Tape(market, Series("BTCUSDT", "1m"), bar.open_time).closed()
    assert bar.first_trade == minute.first_trade
    assert bar.last_trade == bar.first_trade + bar.trades - 1


def test_a_bar_without_trades_has_none_to_number(halted: Market) -> None:
    tape = Tape(halted, Series("BTCUSDT", "1m"), micros(HALT.quiet_from + timedelta(seconds=1)))
    assert (tape.closed().trades, tape.closed().first_trade, tape.closed().last_trade) == (0, -1, -1)


def test_a_symbol_that_is_not_listed_yet_begins_with_its_first_bar(market: Market) -> None:
    tape = Tape(market, Series("POLUSDT", "1m"), micros(datetime(2024, 1, 1, tzinfo=UTC)))
    assert instant_of(tape.open_time) == market.listings["POLUSDT"].first


def test_a_symbol_that_ended_has_no_bar_any_more(market: Market) -> None:
    assert Tape(market, Series("MATICUSDT", "1h"), micros(START)).ended
