"""Asking the exchange for what is missing, and building what came."""

from collections.abc import Callable, Mapping, Sequence

from ingestion.history.month import MonthResult
from ingestion.history.run import land_history
from ingestion.klines import Month, Series, month_window
from ingestion.settings import Settings
from warehouse.build import build_changed
from warehouse.serving import publish, run_query


def heal(
    settings: Settings,
    missing: Mapping[Series, Sequence[Month]],
    on_result: Callable[[MonthResult], None] = lambda result: None,
) -> list[MonthResult]:
    """Land these months again, exactly what they lack; then build and publish what changed."""
    results = [
        result
        for series, months in missing.items()
        if months
        for result in land_history(settings, [series], months, on_result=on_result)
    ]
    if any(result.files for result in results):
        build_changed(settings)
        publish(settings)
    return results


def missing_months(settings: Settings) -> dict[Series, list[Month]]:
    """The months of each series in which the published bars have a gap that nobody has asked the exchange about."""
    rows = run_query(
        settings,
        """select symbol, klines_gaps.interval, first_missing_open_time, resumed_at from klines_gaps
        where verdict = 'missing' order by symbol, resumed_at""",
    ).rows
    found: dict[Series, set[Month]] = {}
    for symbol, interval, first, resumed_at in rows:
        found.setdefault(Series(symbol, interval), set()).update(month_window((first, resumed_at)))
    return {series: sorted(months) for series, months in found.items()}
