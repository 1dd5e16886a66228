"""The truth of the simulated exchange: one-minute bars, deterministic by seed, from which every face is served.

A month of a symbol is made on its own, in any order: monthly price levels come from one seeded walk, and the minutes of
a month are a bridge between two of them. Volatility clusters over hours and has a daily rhythm; volume follows it. All
prices and volumes are integers (units of 10^-8), so larger intervals add up exactly.
"""

import functools
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from ingestion.klines import INTERVAL_MICROS, Month, Series, months_between

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

UNIT = 10**8
_MINUTE = 60_000_000
_MICROS = timedelta(microseconds=1)


@dataclass(frozen=True)
class Listing:
    """What the simulated exchange trades: first minute, first price, tick and lot in units of 10^-8, hourly volume."""

    first: datetime
    price: float
    tick: int
    lot: int
    base_volume: float
    yearly_growth: float
    minute_volatility: float


LISTINGS: dict[str, Listing] = {
    "BTCUSDT": Listing(datetime(2020, 1, 1, tzinfo=UTC), 7_195.0, 1_000_000, 1_000, 25.0, 0.45, 0.0008),
    "ETHUSDT": Listing(datetime(2020, 1, 1, tzinfo=UTC), 129.0, 1_000_000, 10_000, 300.0, 0.50, 0.0010),
    "SOLUSDT": Listing(datetime(2020, 8, 11, 6, tzinfo=UTC), 3.2, 10_000, 10_000, 4_000.0, 0.65, 0.0014),
}

_EPOCH = Month(2020, 1)
_LAST = Month(2040, 1)


@dataclass(frozen=True)
class Bars:
    """Bars of one series, column by column: times in microseconds, prices and volumes in units of 10^-8."""

    open_time: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints
    quote_volume: Ints
    trades: Ints
    taker_buy_base_volume: Ints
    taker_buy_quote_volume: Ints

    def __len__(self) -> int:
        return len(self.open_time)

    def between(self, start: datetime, end: datetime) -> "Bars":
        """The bars that open in `[start, end)`."""
        first, last = np.searchsorted(self.open_time, [_micros(start), _micros(end)])
        return Bars(**{name: column[first:last] for name, column in vars(self).items()})


class Market:
    """Bars of any listed symbol, interval and month; the same for the same seed, in whatever order they are asked."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.name = f"seed {seed}"
        # Faces ask for several intervals of a month in a row: keep a few months of minutes, 3.6 MB each.
        self._minutes = functools.lru_cache(maxsize=8)(self._make_minutes)
        self._levels = functools.cache(self._make_levels)

    def bars(self, series: Series, month: Month) -> Bars | None:
        """The bars that open in `month`, closed or not; None when the symbol or interval is not served then."""
        length = INTERVAL_MICROS[series.interval]
        listing = LISTINGS.get(series.symbol)
        if listing is None or month.end <= listing.first or not _EPOCH <= month < _LAST:
            return None
        minutes = self._minutes(series.symbol, month)
        if length is None:
            return _merge(minutes, np.zeros(1, np.int64), np.full(1, _micros(month.start)))
        # A week, or three days, may begin in the month before: those bars are not made.
        if not _MINUTE <= length <= 1440 * _MINUTE:
            return None
        bucket = minutes.open_time - minutes.open_time % length
        first = np.flatnonzero(np.diff(bucket, prepend=bucket[0] - 1))
        return _merge(minutes, first, bucket[first])

    def _make_minutes(self, symbol: str, month: Month) -> Bars:
        listing = LISTINGS[symbol]
        rng = self._rng(symbol, str(month))
        begin = max(month.start, listing.first)
        count = (month.end - begin) // timedelta(minutes=1)
        volatility = listing.minute_volatility * _volatility(rng, count)
        levels = self._levels(symbol)
        index = (month.year - _EPOCH.year) * 12 + month.number - _EPOCH.number
        close = _bridge(rng.standard_t(5, count) * volatility, levels[index], levels[index + 1])
        close_ticks = np.maximum(np.rint(close * UNIT / listing.tick).astype(np.int64), 1)
        first_tick = max(round(float(np.exp(levels[index])) * UNIT / listing.tick), 1)
        open_ticks = np.concatenate(([first_tick], close_ticks[:-1]))
        reach = np.abs(rng.normal(0, 1, (2, count))) * volatility * close_ticks * 0.6
        high = np.maximum(open_ticks, close_ticks) + reach[0].astype(np.int64)
        low = np.maximum(np.minimum(open_ticks, close_ticks) - reach[1].astype(np.int64), 1)
        flows = _flows(rng, listing, volatility, open_ticks, close_ticks)
        prices = {"open": open_ticks, "high": high, "low": low, "close": close_ticks}
        return Bars(
            open_time=_micros(begin) + np.arange(count) * _MINUTE,
            **{name: ticks * listing.tick for name, ticks in prices.items()},
            **flows,
        )

    def _make_levels(self, symbol: str) -> Floats:
        """Logarithm of the price at the start of each month since the epoch: a walk with drift, kept near its trend."""
        listing = LISTINGS[symbol]
        months = len(months_between(_EPOCH.first_day, _LAST.first_day)) + 1
        steps = self._rng(symbol, "levels").normal(0, 0.16, months)
        deviation = np.zeros(months)
        for i in range(1, months):
            deviation[i] = 0.93 * deviation[i - 1] + steps[i]
        return np.asarray(np.log(listing.price) + listing.yearly_growth / 12 * np.arange(months) + deviation)

    def _rng(self, *scope: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *(zlib.crc32(part.encode()) for part in scope)])


def _volatility(rng: np.random.Generator, minutes: int) -> Floats:
    """A factor per minute, about 1: hours of unrest and of calm (log-normal, memory of a day), and a daily rhythm."""
    memory = np.exp(-np.arange(72) / 24.0)
    hours = minutes // 60 + 2
    noise = rng.normal(0, 0.5 / np.sqrt(np.sum(memory**2)), hours + len(memory) - 1)
    regime = np.interp(np.arange(minutes) / 60.0, np.arange(hours), np.convolve(noise, memory, mode="valid"))
    rhythm = 0.25 * np.sin(2 * np.pi * (np.arange(minutes) / 1440.0 - 0.35))
    return np.asarray(np.exp(regime + rhythm))


def _bridge(returns: Floats, start: float, end: float) -> Floats:
    """Prices after each minute of a walk with these returns, bent to begin at exp(start) and to end at exp(end)."""
    path = np.cumsum(returns)
    share = np.arange(1, len(path) + 1) / len(path)
    return np.asarray(np.exp(start + path + share * (end - start - path[-1])))


def _flows(
    rng: np.random.Generator, listing: Listing, volatility: Floats, open_ticks: Ints, close_ticks: Ints
) -> dict[str, Ints]:
    """Volumes, trades and the takers' share; the mean price paid lies between open and close, on a tick."""
    count = len(volatility)
    unrest = volatility / listing.minute_volatility
    volume = rng.lognormal(np.log(listing.base_volume / 60) - 0.5, 1.0, count) * unrest
    lots = np.maximum((volume * UNIT / listing.lot).astype(np.int64), 1)
    taker_lots = (lots * rng.beta(20, 20, count)).astype(np.int64)
    trades = 1 + (rng.gamma(4.0, 12.0, count) * unrest).astype(np.int64)
    price = (open_ticks + close_ticks) // 2
    return {
        "volume": lots * listing.lot,
        "quote_volume": _quote(lots, price, listing),
        "trades": np.minimum(trades, lots),
        "taker_buy_base_volume": taker_lots * listing.lot,
        "taker_buy_quote_volume": _quote(taker_lots, price, listing),
    }


def _quote(lots: Ints, price_ticks: Ints, listing: Listing) -> Ints:
    # lot x tick has more than eight decimals for no listing, so the product is exact: 10^3 x 10^6 / 10^8 = 10.
    return lots * price_ticks * (listing.lot * listing.tick // UNIT)


def _merge(minutes: Bars, first: Ints, open_time: Ints) -> Bars:
    """Minutes merged into bars: bar i holds the minutes from position `first[i]` up to `first[i + 1]`."""
    last = np.append(first[1:], len(minutes)) - 1
    summed = ("volume", "quote_volume", "trades", "taker_buy_base_volume", "taker_buy_quote_volume")
    return Bars(
        open_time=open_time,
        open=minutes.open[first],
        high=np.maximum.reduceat(minutes.high, first),
        low=np.minimum.reduceat(minutes.low, first),
        close=minutes.close[last],
        **{name: np.add.reduceat(getattr(minutes, name), first) for name in summed},
    )


def _micros(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROS
