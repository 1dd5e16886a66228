"""The bars of one series in order of time, as a stream tells them: the bar of the hour, and how it is so far.

Read ahead in pieces of a few days (a month for 3d, 1w and 1M), so that a hundred series take some megabytes and their
bars cost no look-up in the market.
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from ingestion.klines import DAY_MICROS, INTERVAL_MICROS, Month, Series
from ingestion.simulator.market import Bars, Ints, Market, instant_of, micros, open_bar

_PIECE = timedelta(days=5)
_EPOCH = Month(2019, 12)
_END = Month(2040, 1)
# More than any symbol trades in a month, so that the ids of one month end before those of the next begin.
_IDS_PER_MONTH = 10**9


@dataclass(frozen=True)
class Kline:
    """One bar at one moment: times in microseconds, prices and volumes in units of 10^-8, ids of its trades (or -1)."""

    open_time: int
    close_time: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    quote_volume: int
    trades: int
    taker_buy_base_volume: int
    taker_buy_quote_volume: int
    first_trade: int
    last_trade: int

    @property
    def traded(self) -> tuple[int, int, int]:
        """What changes when somebody trades."""
        return self.open_time, self.volume, self.trades


@dataclass(frozen=True)
class _Piece:
    """Bars that open in a window, the minutes that they are made of, and the id of each bar's first trade."""

    bars: Bars
    minutes: Bars
    first_trades: Ints


class Tape:
    """Stands at one bar of a series: the first that closes at `start` or later, then each next one."""

    def __init__(self, market: Market, series: Series, start: int) -> None:
        self._market, self._series = market, series
        self._listing = market.listings[series.symbol]
        length = INTERVAL_MICROS[series.interval]
        self._by_month = length is None or length > DAY_MICROS
        # The bar that is open at `start` opened on the same day; one of more than a day in its month or that before.
        first = max(instant_of(start), self._listing.first)
        self._next_window = first.replace(hour=0, minute=0, second=0, microsecond=0)
        if self._by_month:
            self._next_window = Month.containing((first - timedelta(days=7)).date()).start
        self._pieces: list[_Piece] = []
        self._place = 0
        self._fill()
        while not self.ended and self.close_time < start:
            self.advance()

    @property
    def ended(self) -> bool:
        """Whether there is no bar any more."""
        return not self._pieces

    @property
    def is_low(self) -> bool:
        """Whether the bars read ahead run out soon."""
        return len(self._pieces) == 1 and self._place * 4 > len(self._pieces[0].bars) * 3

    @property
    def open_time(self) -> int:
        return int(self._pieces[0].bars.open_time[self._place])

    @property
    def close_time(self) -> int:
        return int(self._pieces[0].bars.close_time[self._place])

    def advance(self) -> None:
        """Go on to the next bar."""
        self._place += 1
        if self._place == len(self._pieces[0].bars):
            del self._pieces[0]
            self._place = 0
            self._fill()

    def closed(self) -> Kline:
        """The bar as it is in the end."""
        piece = self._pieces[0]
        return _kline(piece.bars.part(self._place, self._place + 1), int(piece.first_trades[self._place]))

    def at(self, instant: int) -> Kline | None:
        """The bar as it is at `instant`, before its close; None when it has not begun or a halt has kept it empty."""
        piece = self._pieces[0]
        bar = piece.bars.part(self._place, self._place + 1)
        first, last = np.searchsorted(piece.minutes.open_time, [bar.open_time[0], instant + 1])
        if first >= last:
            return None
        minutes = piece.minutes.part(int(first), int(last))
        return _kline(open_bar(minutes, bar, instant, self._listing), int(piece.first_trades[self._place]))

    def read_ahead(self) -> None:
        """Read the next piece, if there is one; it may be empty."""
        start = self._next_window
        if start >= _END.start:
            return
        month = Month.containing(start.date())
        end = month.end if self._by_month else min(start + _PIECE, month.end)
        self._next_window = end
        bars = self._market.bars(self._series, month)
        bars = bars.between(start, end) if bars else None
        if bars is None or not len(bars):
            if self._listing.end and start > self._listing.end:
                self._next_window = _END.start
            return
        self._pieces.append(self._piece(month, bars))

    def _fill(self) -> None:
        """Read until there is a bar, or no more to read."""
        while not self._pieces and self._next_window < _END.start:
            self.read_ahead()

    def _piece(self, month: Month, bars: Bars) -> _Piece:
        # Copies: views would keep the whole month in memory.
        symbol, last = self._series.symbol, int(bars.close_time[-1]) + 1
        before = self._market.minutes(symbol, micros(month.start), int(bars.open_time[-1]))
        sold = np.concatenate(([0], np.cumsum(before.trades)))
        first_id = ((month.year - _EPOCH.year) * 12 + month.number) * _IDS_PER_MONTH
        ids = first_id + sold[np.searchsorted(before.open_time, bars.open_time)]
        return _Piece(_copy(bars), _copy(self._market.minutes(symbol, int(bars.open_time[0]), last)), ids)


def _copy(bars: Bars) -> Bars:
    return Bars(**{name: column.copy() for name, column in vars(bars).items()})


def _kline(bar: Bars, first_trade: int) -> Kline:
    values = {name: int(column[0]) for name, column in vars(bar).items()}
    if not values["trades"]:
        return Kline(**values, first_trade=-1, last_trade=-1)
    return Kline(**values, first_trade=first_trade, last_trade=first_trade + values["trades"] - 1)
