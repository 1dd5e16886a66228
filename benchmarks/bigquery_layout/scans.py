"""Bytes that BigQuery reads and bills for the project's own statements, computed from the layout of its tables.

Sizes of types: https://docs.cloud.google.com/bigquery/docs/reference/standard-sql/data-types#data_type_sizes; of DML:
https://docs.cloud.google.com/bigquery/docs/reference/standard-sql/dml-syntax#on-demand-query-size-calculation; each
table of a statement is billed with 10 MB at least: https://cloud.google.com/bigquery/pricing#on_demand_pricing.

An upper bound: partitions are pruned by literal instants, blocks of clustered tables are not pruned at all, and a table
that a statement names several times is read several times. Times are days since the midnight before the increment.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ingestion.klines import INTERVAL_MICROS, KLINE_SCHEMA

LEAST_BILLED = 10 << 20
# How many bars the averages remember, and how far an increment looks whether they are there: memory_bars() and the last
# of reaches() of the dbt project, see its macros. It reads no further than they remember, unless there are holes.
MEMORY, REACH = 1024, 1536
ROLLUPS = ("15m", "1h", "4h", "1d")

_MARTS = Path(__file__).parents[2] / "dbt_project" / "models" / "marts" / "_marts.yml"
_NEXT_DAY = 0.5  # how much of today there is, on average, when yesterday is built again
_LENGTHS = {"symbol": len("BTCUSDT"), "source": len("archive_monthly")}
_KINDS = {"instant": 8, "double": 8, "whole": 8}

_KEY = ("symbol", "interval", "open_time")
_LOOKS_BACK = ((REACH, _KEY), (MEMORY, (*_KEY, "close")))
_COVERAGE = ("symbol", "interval", "month_start", "source", "covered_from", "covered_until")
_TESTS, _NOTES = 7, 6
# A streaming run hands over to the next after half an hour, which looks so many days back for bars it has to compute.
STREAMING_RUNS, DAYS_LOOKED_THROUGH = 48, 35
TIDYINGS = 24  # a day
# Columns of int_bars_of_days.
DAYS = ("symbol", "interval", "day_start", "first_open_time", "last_open_time", "last_close_time", "bars")
_HALF_A_MONTH = 15


def _mart_columns() -> dict[str, str]:
    """Columns of market_data_unified and their kinds, as its contract in the dbt project has them."""
    contract = _MARTS.read_text().partition("- name: market_data_unified")[2].partition("- name: dim_dates")[0]
    return dict(re.findall(r"- name: (\w+)\n.*?data_type: \*(\w+)", contract, re.DOTALL))


MART = _mart_columns()
_BARS = (*list(MART)[: list(MART).index("sma_20")], "source", "ingested_at")


@dataclass
class Statement:
    """One statement, and how many bytes it reads of each table."""

    name: str
    reads: Mapping[str, float] = field(default_factory=dict)

    @property
    def bytes_read(self) -> float:
        return sum(self.reads.values())

    @property
    def bytes_billed(self) -> float:
        return sum(max(size, LEAST_BILLED) for size in self.reads.values())


@dataclass(frozen=True)
class Layout:
    """A warehouse: how many symbols, from which base interval on, over how many years. With `own_tables` derived
    intervals would lie in tables of their own, so that looking far back for one would not read the others."""

    symbols: int
    interval: str
    years: float = 6.0
    own_tables: bool = False

    @property
    def levels(self) -> tuple[str, ...]:
        base = length(self.interval)
        return (self.interval, *(level for level in ROLLUPS if length(level) > base and length(level) % base == 0))

    @property
    def raw_rows_per_day(self) -> float:
        return self.symbols * bars_per_day(self.interval)

    @property
    def mart_rows_per_day(self) -> float:
        return self.symbols * sum(bars_per_day(level) for level in self.levels)

    def raw_day(self, columns: Sequence[str] = tuple(KLINE_SCHEMA.names)) -> float:
        """Bytes of these columns of a day of a table of klines."""
        return self.raw_rows_per_day * sum(_raw_bytes(name, self.interval) for name in columns)

    def mart_day(self, columns: Sequence[str] = tuple(MART), level: str | None = None) -> float:
        """Bytes of these columns of a day of market_data_unified; of one interval where that has a table of its own."""
        levels = [level] if level and self.own_tables else self.levels
        return sum(self.symbols * bars_per_day(one) * sum(_mart_bytes(name, one) for name in columns) for one in levels)

    @property
    def coverage(self) -> float:
        """Bytes of klines_coverage: an answer of the exchange per symbol and month."""
        row = sum(
            _size("text", name, self.interval) if name in _LENGTHS or name == "interval" else 8 for name in _COVERAGE
        )
        return self.symbols * self.years * 12 * row

    @property
    def run_symbols(self) -> float:
        return self.symbols * _size("text", "symbol", "")


def length(level: str) -> int:
    """Microseconds of an interval."""
    micros = INTERVAL_MICROS[level]
    assert micros is not None, level  # noqa: S101 - a month is no base interval
    return micros


def bars_per_day(level: str) -> float:
    return length("1d") / length(level)


def live_increments(layout: Layout, minutes: int) -> Iterator[list[Statement]]:
    """The statements of each increment of one day of streaming."""
    for number in range(1, 1440 // minutes + 1):
        begin, end = (number - 1) * minutes / 1440, number * minutes / 1440
        closed = [level for level in layout.levels if level == layout.interval or _closes(level, begin, end)]
        yield increment(layout, closed, begin, end)


def handed_over(layout: Layout) -> list[Statement]:
    """What a streaming run asks when it starts."""
    landed, made = layout.raw_day(_KEY), layout.mart_day(_KEY, layout.interval)
    stream, mart = DAYS_LOOKED_THROUGH * landed, DAYS_LOOKED_THROUGH * made
    return [
        Statement("newest bar", {"coverage": layout.coverage}),
        Statement("left behind", {"stream": stream, "mart": mart}),
    ]


def question(layout: Layout) -> Statement:
    """What a question to market_data_live reads at most, at noon, besides the bars of market_data_unified that it asks
    for: the base interval as far back as the averages remember, to compute the newest bars."""
    begin = 0.5 - REACH / bars_per_day(layout.interval)
    known, streamed = (_days(begin, math.inf, 0.5) * day for day in (layout.mart_day(_BARS), layout.raw_day()))
    landed = _days(begin, 0, 0.5) * layout.raw_day()
    return Statement("live", {"mart": known, "stream": streamed, "klines": landed, "coverage": layout.coverage})


def tidying(layout: Layout) -> list[Statement]:
    """What a streaming run asks each hour, at noon: gaps and days since yesterday, and the dimensions."""
    return kept_beside(layout, 0.5 - 1 - 1 / TIDYINGS, 0.5, 0.5) + _made_of_days(layout)


def daily_increment(layout: Layout, days: int = 1) -> list[Statement]:
    """The statements of a run over whole days that ended last midnight: all intervals, and the tests."""
    tests = [Statement("test", {"mart": days * layout.mart_day() / _TESTS}) for _ in range(_TESTS)]
    beside = kept_beside(layout, 0.0, float(days), days + _NEXT_DAY)
    return increment(layout, layout.levels, 0.0, float(days)) + beside + tests


def history_refresh(layout: Layout) -> list[Statement]:
    """The statements of what happens each morning, when the archive has yesterday: the running month of every symbol is
    loaded again, and built again."""
    klines = _HALF_A_MONTH * layout.raw_day()
    loaded = [
        Statement("load out", {"klines": _HALF_A_MONTH * layout.raw_day(_KEY) + klines}),
        Statement("load in", {"staging": klines}),
        *[Statement("what is loaded", {"klines_loaded": layout.coverage}) for _ in range(_NOTES)],
    ]
    return loaded + daily_increment(layout, _HALF_A_MONTH)


def dimensions(layout: Layout) -> list[Statement]:
    """The models and tests of the dimensions."""
    days = layout.years * 365.25 * layout.symbols
    return [
        *_made_of_days(layout),
        Statement("dim_dates_covers_bars", {"days": days * _days_bytes("day_start")}),
        Statement("dim_symbols_covers_bars", {"days": days * _days_bytes("day_start", "symbol")}),
    ]


def _made_of_days(layout: Layout) -> list[Statement]:
    days = layout.years * 365.25 * layout.symbols
    times = ("first_open_time", "last_open_time", "last_close_time")
    return [
        Statement("dim_dates", {"days": days * _days_bytes("day_start")}),
        Statement("dim_symbols", {"days": days * _days_bytes("symbol", *times, "bars")}),
    ]


def kept_beside(layout: Layout, begin: float, end: float, now: float) -> list[Statement]:
    """The statements that keep int_klines_gaps and int_bars_of_days over `[begin, end)`. There are no gaps."""
    columns = (*_KEY, "close_time")
    around = _days(_start(layout.interval, begin) - REACH / bars_per_day(layout.interval), math.inf, now)
    counted = _days(math.floor(begin), math.ceil(end), now)
    month = 31 * layout.symbols * _days_bytes(*DAYS)
    small = {"run_symbols": layout.run_symbols}
    return [
        Statement("gaps", {"mart": around * layout.mart_day(columns), "coverage": layout.coverage}),
        *[Statement("gaps kept", {**small, "made": 0.0, "gaps": 0.0}) for _ in range(2)],
        Statement("days", {**small, "mart": counted * layout.mart_day(columns)}),
        Statement("days that change", {**small, "made": 0.0, "days": month}),
        Statement("days kept", {**small, "made": 0.0, "days": 2 * month}),
    ]


def increment(layout: Layout, levels: Sequence[str], begin: float, end: float) -> list[Statement]:
    """The statements of one increment over `[begin, end)`, in their order, that makes bars of `levels`: whole days that
    are over, or a part of the running one."""
    whole_days = end - begin >= 1
    # Until when there are rows: those of today's partition too are written again, because they remember the window.
    now = end + _NEXT_DAY if whole_days else end
    starts = {level: _start(level, begin) for level in levels}
    after = {level: _days(_start_after(level, end), math.inf, now) for level in levels}
    window = _days(0, end, now)
    small = {"run_symbols": layout.run_symbols, "coverage": layout.coverage}
    known, before = (
        sum(
            _days(starts[level] - bars / bars_per_day(level), starts[level], now) * layout.mart_day(columns, level)
            for level in levels
        )
        for bars, columns in _LOOKS_BACK
    )
    rewritten_after = sum(after[level] * layout.mart_day(_BARS, level) for level in levels)
    touched = window * layout.mart_day(_KEY)
    made = layout.mart_day() * (now if whole_days else end - begin)
    return [
        Statement("end", {"coverage": layout.coverage}),
        Statement("coverage", {"stream": window * layout.raw_day(_KEY), "coverage": 2 * layout.coverage}),
        Statement("symbols out", {"run_symbols": layout.run_symbols}),
        Statement("symbols in", {"stream": window * layout.raw_day(_KEY)}),
        Statement("intervals", {**small, "mart": touched}),
        Statement("reach", {**small, "mart": known}),
        Statement(
            "bars",
            {
                **small,
                "klines": window * layout.raw_day() if whole_days else 0.0,
                "stream": window * layout.raw_day(),
                "mart": touched + before + rewritten_after,
            },
        ),
        Statement("partitions", {"made": made, "run_symbols": layout.run_symbols, "mart": touched}),
        # All columns of the partitions that are replaced, as they are read and as they are written.
        Statement("merge", {"made": 2 * made, "run_symbols": layout.run_symbols, "mart": 2 * now * layout.mart_day()}),
        Statement("live start", {"coverage": layout.coverage}),
    ]


def look_back(layout: Layout, level: str) -> float:
    """Bytes that a daily increment reads of earlier bars for one interval; 0 when the warehouse does not have it."""
    if level not in layout.levels:
        return 0.0
    return sum(math.ceil(bars / bars_per_day(level)) * layout.mart_day(columns, level) for bars, columns in _LOOKS_BACK)


def _closes(level: str, begin: float, end: float) -> bool:
    bars = bars_per_day(level)
    return math.floor(end * bars + 1e-9) > math.floor(begin * bars + 1e-9)


def _start(level: str, at: float) -> float:
    bars = bars_per_day(level)
    return math.floor(at * bars + 1e-9) / bars


def _start_after(level: str, at: float) -> float:
    bars = bars_per_day(level)
    return math.ceil(at * bars - 1e-9) / bars


def _days(begin: float, end: float, now: float) -> float:
    """Days' worth of rows of the partitions that hold `[begin, end)`, of which there are rows until `now`."""
    last = now if end == math.inf else math.ceil(end - 1e-9)
    return max(min(last, now) - math.floor(begin + 1e-9), 0.0)


def _raw_bytes(name: str, level: str) -> int:
    kind = KLINE_SCHEMA.field(name).type
    if pa.types.is_decimal(kind):
        return 16
    return _size("text" if pa.types.is_string(kind) else "whole", name, level)


def _days_bytes(*names: str) -> int:
    return sum(_size("text" if name in ("symbol", "interval") else "whole", name, "1d") for name in names)


def _mart_bytes(name: str, level: str) -> int:
    return _size(MART[name], name, level)


def _size(kind: str, name: str, level: str) -> int:
    return 2 + (len(level) if name == "interval" else _LENGTHS[name]) if kind == "text" else _KINDS[kind]
