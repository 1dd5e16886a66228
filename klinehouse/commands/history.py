"""Commands that bring history in: backfill, land."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

from ingestion.settings import Settings
from klinehouse.app import (
    End,
    Interval,
    Json,
    LogFormat,
    MaxWait,
    Start,
    Symbols,
    app,
    environment_of,
    examples,
    history_settings,
    months_until,
    show_banner,
)
from klinehouse.history_report import print_landed, print_plan
from klinehouse.output import progress

if TYPE_CHECKING:
    from ingestion.history.month import MonthResult


@app.command(
    epilog=examples(
        "klinehouse backfill",
        "klinehouse backfill --symbols BTCUSDT --interval 1h --start 2024-01 --end 2025-01",
    )
)
def backfill(
    symbols: Symbols = None,
    interval: Interval = None,
    start: Start = None,
    end: End = None,
    max_wait: MaxWait = None,
    log_format: LogFormat = None,
    json: Json = False,
) -> None:
    """Land, build and publish through Dagster: each month shows in the UI."""
    settings = history_settings(symbols, interval, start, max_wait)
    results = run_backfill(settings, end, quiet=json)
    _report(settings, results, as_json=json)


def run_backfill(settings: Settings, end: str | None, *, quiet: bool) -> "list[MonthResult]":
    months = months_until(settings, end)
    results: list[MonthResult] = []
    settings.log_dir.mkdir(parents=True, exist_ok=True)
    with progress(len(months) * len(settings.symbols), "start Dagster", quiet=quiet) as bar:
        from orchestration.backfill import backfill as run

        def landed(result: "MonthResult") -> None:
            results.append(result)
            bar.advance()

        # What dbt and Dagster print goes to a log; the UI has it too.
        with (settings.log_dir / "backfill.log").open("a") as log, redirect_stdout(log):
            run(settings, months, on_run=bar.describe, on_month=landed, log=log)
    return results


@app.command(
    epilog=examples(
        "klinehouse land --symbols BTCUSDT --start 2024-07 --end 2025-02", "klinehouse land --plan --start 2024-07"
    )
)
def land(
    symbols: Symbols = None,
    interval: Interval = None,
    start: Start = None,
    end: End = None,
    max_wait: MaxWait = None,
    log_format: LogFormat = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be asked for, and ask for nothing.")] = False,
    json: Json = False,
) -> None:
    """Land klines in the raw zone, without Dagster and dbt."""
    from ingestion.history.run import land_history, plan_history

    settings = history_settings(symbols, interval, start, max_wait)
    months = months_until(settings, end)
    if plan:
        print_plan(plan_history(settings, settings.series, months), as_json=json)
        return
    with progress(len(months) * len(settings.symbols), "land", quiet=json) as bar:
        results = land_history(settings, settings.series, months, on_result=lambda result: bar.advance())
    _report(settings, results, as_json=json)


def _report(settings: Settings, results: "Sequence[MonthResult]", *, as_json: bool) -> None:
    """Say what landed; end with DataQuarantined or ExchangeRefused when that is how it went."""
    from ingestion.history.run import raise_for

    show_banner(settings)
    print_landed(settings.series, results, environment_of(settings), as_json=as_json)
    raise_for(results)
