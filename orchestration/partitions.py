"""How history is cut for Dagster: months, and months x symbols."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from ingestion.klines import Month, Series
from ingestion.raw_zone import HistoryFile, RawZone
from ingestion.settings import Settings
from warehouse.dbt import Window

MONTH_FORMAT = "%Y-%m"


@dataclass(frozen=True)
class PartitionSpace:
    """What there is to partition: symbols, and months from the first one on (to the running month)."""

    first_month: Month
    symbols: tuple[str, ...]

    def months(self) -> dg.MonthlyPartitionsDefinition:
        return dg.MonthlyPartitionsDefinition(start_date=str(self.first_month), fmt=MONTH_FORMAT, end_offset=1)

    def months_by_symbol(self) -> dg.MultiPartitionsDefinition:
        symbols = dg.StaticPartitionsDefinition(list(self.symbols))
        return dg.MultiPartitionsDefinition({"month": self.months(), "symbol": symbols})


def partition_space(settings: Settings, landed: Sequence[HistoryFile]) -> PartitionSpace:
    """The settings' symbols and start, and whatever has landed beyond them."""
    first = min([Month.containing(settings.start), *(file.month for file in landed)])
    symbols = dict.fromkeys([*settings.symbols, *(file.series.symbol for file in landed)])
    return PartitionSpace(first, tuple(symbols))


def current_partition_space(settings: Settings) -> PartitionSpace:
    """What has landed is asked only where that takes no network: every process that loads the definitions asks."""
    if settings.target == "bigquery":
        return partition_space(settings, [])
    return partition_space(settings, RawZone(settings.raw_root).history_files(interval=settings.interval))


def month_symbol_key(month: Month, symbol: str) -> dg.MultiPartitionKey:
    return dg.MultiPartitionKey({"month": str(month), "symbol": symbol})


def landing_plan(keys: Iterable[str], interval: str) -> list[tuple[list[Series], list[Month]]]:
    """Partition keys of raw_klines (`2024-07|BTCUSDT`) to what is landed at once: series, and the same months of each.

    Dagster cuts a backfill of many symbols into runs of one month of many of them."""
    months: dict[Series, list[Month]] = {}
    for key in keys:
        month, _, symbol = str(key).partition("|")
        months.setdefault(Series(symbol, interval), []).append(Month.parse(month))
    series: dict[tuple[Month, ...], list[Series]] = {}
    for one, of_it in months.items():
        series.setdefault(tuple(of_it), []).append(one)
    return [(found, list(of_them)) for of_them, found in series.items()]


def run_window(time_window: tuple[datetime, datetime]) -> Window:
    """The half-open time window of a run's month partitions, as the window of its dbt models."""
    return Window.around(*time_window)


def refresh_months(now: datetime) -> tuple[Month, Month]:
    """The months that change on the archive's own schedule: the last one (its zip may come late), and this one."""
    this = Month.containing(now.date())
    previous = Month(this.year - (this.number == 1), (this.number - 2) % 12 + 1)
    return previous, this
