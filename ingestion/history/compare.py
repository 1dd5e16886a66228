"""Comparing landed months with what REST says now, bar by bar and field by field."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ingestion.binance.exchange import Exchange
from ingestion.binance.wire import nothing_parsed
from ingestion.grid import Window
from ingestion.history.sources import Sources
from ingestion.klines import Month, Series
from ingestion.provenance import REST
from ingestion.raw_zone import DIFFERENCE_SCHEMA, RawZone
from ingestion.reconcile import differences
from ingestion.settings import Settings


@dataclass(frozen=True)
class ComparedMonth:
    """One month of a series: bars compared, bars about which REST disagrees, and fields in all."""

    series: Series
    month: Month
    bars: int
    differing_bars: int
    differing_fields: int


def compare_with_rest(
    settings: Settings,
    series: Sequence[Series],
    months: Sequence[Month],
    *,
    on_result: Callable[[ComparedMonth], None] = lambda result: None,
) -> list[ComparedMonth]:
    """Ask REST for every landed month and keep where it disagrees; `klines_reconciliation` has it after a build.

    Nothing that has landed is changed: the archive is trusted more. Raises ExchangeRefused.
    """
    zone = RawZone(settings.raw_root)
    with Exchange(settings) as exchange:
        sources = Sources(exchange, zone)

        def task(one: Series, month: Month) -> ComparedMonth | None:
            compared = _compare(sources, one, month)
            if compared is not None:
                on_result(compared)
            return compared

        with ThreadPoolExecutor(settings.download_workers, thread_name_prefix="compare") as pool:
            futures = [pool.submit(task, one, month) for one in series for month in months]
            return [compared for future in futures if (compared := future.result()) is not None]


def _compare(sources: Sources, series: Series, month: Month) -> ComparedMonth | None:
    landed = sources.zone.provenance(series, month)
    if landed is None:
        return None
    rows = sources.zone.read_history(series, month)
    end = min(landed.covered_until, sources.now())
    found = sources.rest_klines(series, Window(month.start, end)).parsed or nothing_parsed()
    every = [
        differences(found.rows, rows.filter(pc.equal(rows["source"], source)), windows, REST, source)
        for source in landed.sources
        if source != REST and (windows := landed.spoke(source))
    ]
    told = pa.concat_tables([DIFFERENCE_SCHEMA.empty_table(), *every])
    if told.num_rows:
        sources.zone.add_differences(series, month, told)
    differing_bars = pc.count_distinct(told["open_time"]).as_py() if told.num_rows else 0
    return ComparedMonth(series, month, rows.num_rows, differing_bars, told.num_rows)
