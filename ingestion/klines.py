"""The kline: intervals, series, windows and the Arrow schema of the raw zone.

Belongs here: what a kline *is*. Does not: where it comes from (`binance/`) or where it lies (`raw_zone`).
All times are UTC instants; all windows are half-open, `[start, end)`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import total_ordering

import pyarrow as pa

from ingestion.errors import UsageError

_MINUTE = 60_000_000
_HOUR = 60 * _MINUTE
DAY_MICROS = 24 * _HOUR

# Length in microseconds; a calendar month has none. The sixteen intervals of the exchange.
INTERVAL_MICROS: dict[str, int | None] = {
    "1s": 1_000_000,
    "1m": _MINUTE,
    "3m": 3 * _MINUTE,
    "5m": 5 * _MINUTE,
    "15m": 15 * _MINUTE,
    "30m": 30 * _MINUTE,
    "1h": _HOUR,
    "2h": 2 * _HOUR,
    "4h": 4 * _HOUR,
    "6h": 6 * _HOUR,
    "8h": 8 * _HOUR,
    "12h": 12 * _HOUR,
    "1d": DAY_MICROS,
    "3d": 3 * DAY_MICROS,
    "1w": 7 * DAY_MICROS,
    "1M": None,
}

# The exchange's own rule for symbols (non-ASCII letters occur since 2025), minus names that mean something to a path.
_SYMBOL = re.compile(r"(?!\.)[\w.&-]{1,50}")
_LOWER_CASE = re.compile(r"[a-z]")

PRICE = pa.decimal128(28, 8)
INSTANT = pa.timestamp("us", tz="UTC")

DECIMAL_COLUMNS = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "taker_buy_base_volume",
    "taker_buy_quote_volume",
)

KLINE_SCHEMA = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("interval", pa.string(), nullable=False),
        pa.field("open_time", INSTANT, nullable=False),
        pa.field("close_time", INSTANT, nullable=False),
        pa.field("open", PRICE, nullable=False),
        pa.field("high", PRICE, nullable=False),
        pa.field("low", PRICE, nullable=False),
        pa.field("close", PRICE, nullable=False),
        pa.field("volume", PRICE, nullable=False),
        pa.field("quote_volume", PRICE, nullable=False),
        pa.field("trades", pa.int64(), nullable=False),
        pa.field("taker_buy_base_volume", PRICE, nullable=False),
        pa.field("taker_buy_quote_volume", PRICE, nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("ingested_at", INSTANT, nullable=False),
    ]
)


def no_klines() -> pa.Table:
    """No rows, in KLINE_SCHEMA. (`Schema.empty_table` imports pandas, which takes half a second.)"""
    return pa.Table.from_batches([], schema=KLINE_SCHEMA)


@dataclass(frozen=True, order=True)
class Series:
    """One symbol at one interval, such as BTCUSDT 5m. Both are checked, so they are safe in paths, URLs and SQL."""

    symbol: str
    interval: str

    def __post_init__(self) -> None:
        if not _SYMBOL.fullmatch(self.symbol) or _LOWER_CASE.search(self.symbol) or ".." in self.symbol:
            raise UsageError(
                f"{self.symbol!r} is not a symbol.", "Symbols are the exchange's, in upper case, such as BTCUSDT."
            )
        if self.interval not in INTERVAL_MICROS:
            raise UsageError(f"{self.interval!r} is not an interval.", f"Choose one of {' '.join(INTERVAL_MICROS)}.")

    def __str__(self) -> str:
        return f"{self.symbol} {self.interval}"


@total_ordering
@dataclass(frozen=True)
class Month:
    """A calendar month in UTC, the unit in which history is planned, landed and replaced."""

    year: int
    number: int

    @classmethod
    def containing(cls, day: date) -> "Month":
        return cls(day.year, day.month)

    @classmethod
    def parse(cls, text: str) -> "Month":
        """`2024-07` (or a day in that month) to a month; ValueError when it is neither."""
        return cls.containing(date.fromisoformat(text if len(text) > 7 else f"{text}-01"))

    @property
    def first_day(self) -> date:
        return date(self.year, self.number, 1)

    @property
    def start(self) -> datetime:
        return datetime(self.year, self.number, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        return self.next.start

    @property
    def next(self) -> "Month":
        return Month(self.year + self.number // 12, self.number % 12 + 1)

    def days(self) -> Iterator[date]:
        day = self.first_day
        while day < self.next.first_day:
            yield day
            day += timedelta(days=1)

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.number:02d}"

    def __lt__(self, other: "Month") -> bool:
        return (self.year, self.number) < (other.year, other.number)


def months_between(start: date, end: date) -> list[Month]:
    """The months that `[start, end)` touches, in order; none when the window is empty."""
    months = []
    month = Month.containing(start)
    while start < end and month.first_day < end:
        months.append(month)
        month = month.next
    return months


def month_window(window: tuple[datetime, datetime]) -> list[Month]:
    """The months that a half-open window of instants touches, in order."""
    start, end = window
    if start >= end:
        return []
    return months_between(start.date(), (end - timedelta(microseconds=1)).date() + timedelta(days=1))


def grid_micros(interval: str) -> int | None:
    """The length of an interval whose bars open at multiples of it since 1970; None for 3d, 1w and 1M, which do not."""
    length = INTERVAL_MICROS[interval]
    return length if length is not None and length <= DAY_MICROS else None
