"""A run over many months of many series, and the log that it leaves."""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from ingestion.binance.exchange import Exchange
from ingestion.errors import DataQuarantined, ExchangeRefused
from ingestion.history import execution_log
from ingestion.history.month import MonthResult, land_month
from ingestion.history.plan import MonthPlan, plan_month
from ingestion.history.sources import Sources
from ingestion.klines import Month, Series
from ingestion.raw_zone import RawZone
from ingestion.settings import Settings

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedMonth:
    """One month of one series, what has landed of it, and what would be asked for."""

    series: Series
    month: Month
    landed_rows: int | None
    plan: MonthPlan


def plan_history(settings: Settings, series: Sequence[Series], months: Sequence[Month]) -> list[PlannedMonth]:
    """What `land_history` would ask for, found without asking (by this machine's clock)."""
    zone, now = RawZone(settings.raw_root), datetime.now(UTC)
    planned = []
    for one in series:
        first = zone.first_open_time(one)
        origins = zone.each(partial(zone.provenance, one), months)
        for month, landed in zip(months, origins, strict=True):
            plan = plan_month(one, month, now, landed, first)
            planned.append(PlannedMonth(one, month, landed.rows if landed else None, plan))
    return planned


def land_history(
    settings: Settings,
    series: Sequence[Series],
    months: Sequence[Month],
    *,
    on_result: Callable[[MonthResult], None] = lambda result: None,
) -> list[MonthResult]:
    """Land `months` of each series, several at a time; memory is bounded by the number of workers and cores.

    `on_result` hears of each month as it is done, from the worker's thread. What is bad is quarantined and reported in
    the results; an archive that refuses ends the whole run with ExchangeRefused, and what has landed stays. Every run,
    also one that fails, leaves a log in `logs/history/`.
    """
    with Exchange(settings) as exchange, execution_log.recording(settings, exchange.traffic) as record:

        def heard(result: MonthResult) -> None:
            record.add(result)
            on_result(result)

        return _land(settings, exchange, series, months, heard)


def _land(
    settings: Settings,
    exchange: Exchange,
    series: Sequence[Series],
    months: Sequence[Month],
    on_result: Callable[[MonthResult], None],
) -> list[MonthResult]:
    sources = Sources(exchange, RawZone(settings.raw_root))
    now = datetime.now(UTC)

    def task(one: Series, month: Month) -> MonthResult:
        result = land_month(sources, one, month, now)
        _log(result)
        on_result(result)
        return result

    with ThreadPoolExecutor(settings.download_workers, thread_name_prefix="land") as pool:
        return _results(pool, [pool.submit(task, one, month) for one in series for month in months])


def _log(result: MonthResult) -> None:
    about = {
        "symbol": result.series.symbol,
        "interval": result.series.interval,
        "month": str(result.month),
        "outcome": str(result.outcome),
        "rows": result.rows,
        "downloads": result.downloads,
        "seconds": round(result.seconds, 3),
    }
    _LOG.info("month done", extra=about)
    for problem in result.problems:
        _LOG.warning("problem", extra=about | {"problem": str(problem)})


def _results(pool: ThreadPoolExecutor, futures: Iterable[Future[MonthResult]]) -> list[MonthResult]:
    futures = list(futures)
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()  # raises what ended the run
        return [future.result() for future in futures]
    finally:  # after a failure, and after Ctrl-C, no further month is begun
        pool.shutdown(cancel_futures=True)


def raise_for(results: Sequence[MonthResult]) -> None:
    """Raise what a finished run has to answer for: what went into quarantine, or a source that refused, or both."""
    incomplete = [result for result in results if result.refused]
    reasons = " ".join(sorted({problem.reason for result in incomplete for problem in result.refused}))
    unfinished = f"{len(incomplete)} month{'s' * (len(incomplete) > 1)} could not be completed: {reasons}"
    quarantined = sum(len(result.quarantined) for result in results)
    if quarantined:
        rest = f"; {unfinished}" if incomplete else "; everything else has landed."
        raise DataQuarantined(
            f"{quarantined} files or rows were refused and are in quarantine{rest}",
            "They are tried again when they change at the source; `klinehouse status` lists them.",
        )
    if incomplete:
        raise ExchangeRefused(unfinished, "What has landed is kept; run again.")
