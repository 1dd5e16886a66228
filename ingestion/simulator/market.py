"""The truth of the simulated exchange: one-minute bars, deterministic by seed, from which every face is served.

A month of a symbol is made on its own, in any order: monthly price levels come from one seeded walk, and the minutes of
a month are a bridge between two of them. Volatility clusters over hours and has a daily rhythm; volume follows it. All
prices and volumes are integers (units of 10^-8), so larger intervals add up exactly.

The exchange lists every interval except `1s`: its truth is the minute.
"""

import functools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from ingestion.klines import INTERVAL_MICROS, Month, Series, months_between
from ingestion.simulator.listings import LISTINGS, UNIT, Listing
from ingestion.simulator.outages import Outage, in_order

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_MINUTE = 60_000_000
_DAY = 1440 * _MINUTE
_ZERO = datetime(1970, 1, 1, tzinfo=UTC)
_MICROS = timedelta(microseconds=1)
# The epoch, 1970-01-01, was a Thursday; weeks open on Monday.
_FIRST_MONDAY = 4 * _DAY


_EPOCH = Month(2020, 1)
_LAST = Month(2040, 1)
_WEEK_BEFORE_EPOCH = Month(2019, 12)  # the week of a first day may open in the month before


@dataclass(frozen=True)
class Bars:
    """Bars of one series, column by column: times in microseconds, prices and volumes in units of 10^-8.

    `close_time` is the last microsecond of the bar, or of the trading in it when a halt cut it short.
    """

    open_time: Ints
    close_time: Ints
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
        first, last = np.searchsorted(self.open_time, [micros(start), micros(end)])
        return self.part(int(first), int(last))

    def part(self, first: int, last: int) -> "Bars":
        """The bars at positions `[first, last)`."""
        return Bars(**{name: column[first:last] for name, column in vars(self).items()})

    def where(self, mask: npt.NDArray[np.bool_]) -> "Bars":
        return Bars(**{name: column[mask] for name, column in vars(self).items()})

    @staticmethod
    def joined(parts: "Sequence[Bars]") -> "Bars":
        return Bars(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})


_PRICES = ("open", "high", "low", "close")
_FLOWS = ("volume", "quote_volume", "trades", "taker_buy_base_volume", "taker_buy_quote_volume")
_NO_BARS = Bars(**dict.fromkeys(("open_time", "close_time", *_PRICES, *_FLOWS), np.zeros(0, np.int64)))


class Market:
    """Bars of any listed symbol, interval and month; the same for the same seed, in whatever order they are asked."""

    def __init__(self, seed: int, outages: Sequence[Outage] = (), listings: Mapping[str, Listing] = LISTINGS) -> None:
        self.seed = seed
        self.outages = in_order(outages)
        self.listings = listings
        self.name = f"seed {seed}"
        if self.outages:  # another truth, which must not mix with the seed's own
            self.name += f", halted {' '.join(map(str, self.outages))}"
        # Faces ask for several intervals of a month in a row: keep a few months of minutes, 4 MB each.
        self._minutes = functools.lru_cache(maxsize=12)(self._make_minutes)
        self._merged = functools.lru_cache(maxsize=64)(self._make_merged)
        self._days = functools.lru_cache(maxsize=2048)(self._make_days)
        self._levels = functools.cache(self._make_levels)

    def bars(self, series: Series, month: Month) -> Bars | None:
        """The bars that open in `month`, past or future; None when there are none."""
        if series.symbol not in self.listings or not _WEEK_BEFORE_EPOCH <= month < _LAST:
            return None
        length = INTERVAL_MICROS[series.interval]
        if length is not None and length < _MINUTE:
            return None
        if length is None or length >= _DAY:
            bars = self._days(series, month)
        elif length == _MINUTE:
            bars = self._minutes(series.symbol, month)
        else:
            bars = self._merged(series, month)
        return bars if len(bars) else None

    def bars_at(self, series: Series, month: Month, now: datetime) -> Bars | None:
        """The bars of `month` that are shown at `now`: the last one may be open, with what has traded so far."""
        bars = self.bars(series, month)
        instant = micros(now)
        if bars is None or bars.close_time[-1] < instant:
            return bars
        closed = int(np.searchsorted(bars.close_time, instant))
        parts = [bars.part(0, closed)]
        if closed < len(bars) and bars.open_time[closed] <= instant:
            bar = bars.part(closed, closed + 1)
            minutes = self.minutes(series.symbol, int(bar.open_time[0]), instant + 1)
            parts.append(open_bar(minutes, bar, instant, self.listings[series.symbol]))
        return Bars.joined(parts) if sum(map(len, parts)) else None

    def minutes(self, symbol: str, start: int, end: int) -> Bars:
        """The minutes of a listed symbol that open in `[start, end)`, in microseconds; those that were traded."""
        if start >= end:
            return _NO_BARS
        months = months_between(instant_of(start).date(), instant_of(end - 1).date() + timedelta(days=1))
        minutes = Bars.joined([self._minutes(symbol, month) for month in months])
        first, last = np.searchsorted(minutes.open_time, [start, end])
        return minutes.part(int(first), int(last))

    def _make_merged(self, series: Series, month: Month) -> Bars:
        """Bars of an interval shorter than a day."""
        length = INTERVAL_MICROS[series.interval]
        minutes = self._minutes(series.symbol, month)
        return self._by_start(minutes, minutes.open_time - minutes.open_time % (length or 1), length or 1)

    def _make_days(self, series: Series, month: Month) -> Bars:
        """Bars of a day or more, from days; one that reaches into the next month takes its days from there too."""
        day = Series(series.symbol, "1d")
        length = INTERVAL_MICROS[series.interval]
        if length == _DAY:
            minutes = self._minutes(series.symbol, month)
            return self._by_start(minutes, minutes.open_time - minutes.open_time % _DAY, _DAY)
        if length is None:
            days = self._days(day, month)
            return self._by_start(
                days, np.full(len(days), micros(month.start)), micros(month.end) - micros(month.start)
            )
        days = Bars.joined([self._days(day, month), self._days(day, month.next)])
        # Weeks open on Monday, three days are counted from the symbol's first day.
        origin = _FIRST_MONDAY if series.interval == "1w" else micros(self.listings[series.symbol].first)
        origin -= origin % _DAY
        start = days.open_time - (days.open_time - origin) % length
        inside = (start >= micros(month.start)) & (start < micros(month.end))
        return self._by_start(days.where(inside), start[inside], length)

    def _by_start(self, parts: Bars, start: Ints, length: int) -> Bars:
        """Merge neighbours with the same start into bars of `length`."""
        if not len(parts):
            return parts
        first = np.flatnonzero(np.diff(start, prepend=start[0] - 1))
        return _merge(parts, first, start[first], self._close_times(start[first], length))

    def _close_times(self, open_time: Ints, length: int) -> Ints:
        """The last microsecond of each bar; a halt that lasts to the end of a bar cuts it short."""
        close_time = open_time + length - 1
        for outage in self.outages:
            halt, resume = micros(outage.halt), micros(outage.resume)
            cut = (open_time < halt) & (halt <= close_time) & (close_time < resume)
            close_time[cut] = halt - 1
        return close_time

    def _make_minutes(self, symbol: str, month: Month) -> Bars:
        """The minutes of a month that were traded; none before the listing, after its end and during a halt."""
        listing = self.listings[symbol]
        begin = max(month.start, listing.first)
        if begin >= month.end or (listing.end and begin >= listing.end) or not _EPOCH <= month < _LAST:
            return _NO_BARS
        rng = self._rng(symbol, str(month))
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
        open_time = micros(begin) + np.arange(count) * _MINUTE
        minutes = Bars(
            open_time=open_time,
            close_time=self._close_times(open_time, _MINUTE),
            **{name: ticks * listing.tick for name, ticks in prices.items()},
            **flows,
        )
        for outage in self.outages:
            minutes = _halted(minutes, outage, listing)
        return minutes.between(begin, listing.end) if listing.end else minutes

    def _make_levels(self, symbol: str) -> Floats:
        """Logarithm of the price at the start of each month since the epoch: a walk with drift, kept near its trend."""
        listing = self.listings[symbol]
        months = len(months_between(_EPOCH.first_day, _LAST.first_day)) + 1
        steps = self._rng(listing.follows or symbol, "levels").normal(0, 0.16, months)
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


def _halted(minutes: Bars, outage: Outage, listing: Listing) -> Bars:
    """Minutes without those of a halt: quiet ones before it are flat, the one that it met ends with it."""
    halt, resume = micros(outage.halt), micros(outage.resume)
    met_at = halt - halt % _MINUTE
    first, met, last = np.searchsorted(minutes.open_time, [micros(outage.quiet_from), met_at, resume]).tolist()
    if first == last:
        return minutes
    quiet = minutes.part(first, met)
    if len(quiet):
        quiet = _flat(quiet, quiet.open[0])
    parts = [minutes.part(0, first), quiet]
    if halt > met_at and minutes.open_time[met] == met_at:
        cut = minutes.part(met, met + 1)
        parts.append(_flat(cut, quiet.open[0]) if len(quiet) else _cut(cut, halt, listing, _MINUTE))
    return Bars.joined([*parts, minutes.part(last, len(minutes))])


def _flat(bars: Bars, price: np.int64) -> Bars:
    """Bars in which nobody trades."""
    prices = dict.fromkeys(_PRICES, np.full(len(bars), price))
    return replace(bars, **prices, **dict.fromkeys(_FLOWS, np.zeros(len(bars), np.int64)))


def _cut(minute: Bars, instant: int, listing: Listing, length: int | None = None) -> Bars:
    """One minute as it is at `instant`: some of its lots have been traded, on the straight way from open to close.

    `length` is what the whole minute takes, by default until its close time.
    """
    passed = instant - int(minute.open_time[0])
    length = length or int(minute.close_time[0] + 1 - minute.open_time[0])
    whole = minute.volume // listing.lot
    lots, taker_lots, trades = (
        amount * passed // length for amount in (whole, minute.taker_buy_base_volume // listing.lot, minute.trades)
    )
    way = np.maximum(whole, 1)
    ticks = {name: getattr(minute, name) // listing.tick for name in _PRICES}
    close = ticks["open"] + (ticks["close"] - ticks["open"]) * lots // way
    upper, lower = np.maximum(ticks["open"], ticks["close"]), np.minimum(ticks["open"], ticks["close"])
    price = (ticks["open"] + close) // 2
    return replace(
        minute,
        high=(np.maximum(ticks["open"], close) + (ticks["high"] - upper) * lots // way) * listing.tick,
        low=(np.minimum(ticks["open"], close) - (lower - ticks["low"]) * lots // way) * listing.tick,
        close=close * listing.tick,
        volume=lots * listing.lot,
        quote_volume=_quote(lots, price, listing),
        trades=np.maximum(trades, np.minimum(lots, 1)),
        taker_buy_base_volume=taker_lots * listing.lot,
        taker_buy_quote_volume=_quote(taker_lots, price, listing),
    )


def open_bar(minutes: Bars, bar: Bars, instant: int, listing: Listing) -> Bars:
    """The bar as it is at `instant`, from its minutes that have opened; no bar when a halt has kept it empty so far."""
    if not len(minutes):
        return minutes
    if minutes.close_time[-1] >= instant:
        last = len(minutes) - 1
        open_minute = _cut(minutes.part(last, last + 1), instant, listing)
        minutes = Bars.joined([minutes.part(0, last), open_minute])
    return _merge(minutes, np.zeros(1, np.int64), bar.open_time, bar.close_time)


def _merge(minutes: Bars, first: Ints, open_time: Ints, close_time: Ints) -> Bars:
    """Bars merged into larger ones: bar i holds those from position `first[i]` up to `first[i + 1]`."""
    last = np.append(first[1:], len(minutes)) - 1
    return Bars(
        open_time=open_time,
        close_time=close_time,
        open=minutes.open[first],
        high=np.maximum.reduceat(minutes.high, first),
        low=np.minimum.reduceat(minutes.low, first),
        close=minutes.close[last],
        **{name: np.add.reduceat(getattr(minutes, name), first) for name in _FLOWS},
    )


def micros(instant: datetime) -> int:
    """Microseconds since 1970."""
    return (instant - _ZERO) // _MICROS


def instant_of(value: int) -> datetime:
    return _ZERO + timedelta(microseconds=value)
