"""Commands about the health of the data: coverage, gaps, heal, why, check, reconcile, symbols."""

import dataclasses
from typing import Annotated

import typer

from ingestion.klines import Month, Series
from ingestion.settings import load_settings
from klinehouse import health_report
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
    parse_instant,
    show_banner,
)
from klinehouse.errors import DataDiffers
from klinehouse.history_report import print_landed
from klinehouse.output import out, print_json, print_table, progress


@app.command(epilog=examples("klinehouse coverage", "klinehouse coverage --symbols BTCUSDT --json"))
def coverage(symbols: Symbols = None, interval: Interval = None, start: Start = None, json: Json = False) -> None:
    """Show what has landed: a line per series, a cell per month."""
    from ingestion.history.coverage import coverage as read
    from ingestion.raw_zone import RawZone

    settings = history_settings(symbols, interval, start)
    found = read(RawZone(settings.raw_root), settings.series, Month.containing(settings.start))
    show_banner(settings)
    if json:
        print_json({"series": health_report.coverage_json(found), **environment_of(settings)})
    else:
        health_report.print_coverage(found)


@app.command(epilog=examples("klinehouse gaps", "klinehouse gaps --verdict missing --json"))
def gaps(
    symbols: Symbols = None,
    verdict: Annotated[str | None, typer.Option(help="Only exchange, missing or late.")] = None,
    json: Json = False,
) -> None:
    """List the gaps of the published bars, and why each is there."""
    from warehouse.serving import run_query

    settings = load_settings(symbols=symbols)
    result = run_query(
        settings,
        """select symbol, klines_gaps.interval, first_missing_open_time, last_missing_open_time, missing_bars,
            last_close_time, resumed_at, verdict, outage, outage_title
        from klines_gaps where strpos(?, concat(' ', symbol, ' ')) > 0 and verdict = coalesce(?, verdict)
        order by symbol, resumed_at""",
        parameters=[f" {' '.join(settings.symbols)} ", verdict],
    )
    show_banner(settings)
    if json:
        print_json([dict(zip(result.columns, row, strict=True)) for row in result.rows])
        return
    if result.rows:
        print_table(f"{len(result.rows)} gaps", result.columns, result.rows)
    else:
        out.print("No gaps.")


@app.command(epilog=examples("klinehouse heal", "klinehouse heal --symbols BTCUSDT --max-wait 600"))
def heal(
    symbols: Symbols = None,
    interval: Interval = None,
    start: Start = None,
    end: End = None,
    max_wait: MaxWait = None,
    log_format: LogFormat = None,
    json: Json = False,
) -> None:
    """Ask the exchange for exactly what is missing, holes in the middle included; then build and publish it."""
    from ingestion.history.coverage import coverage as read
    from ingestion.history.run import raise_for
    from ingestion.raw_zone import RawZone
    from warehouse import healing

    settings = history_settings(symbols, interval, start, max_wait)
    wanted = set(months_until(settings, end))
    found = read(RawZone(settings.raw_root), settings.series, Month.containing(settings.start))
    missing = {line.series: [month for month in line.missing if month in wanted] for line in found}
    with progress(sum(map(len, missing.values())), "heal, then build", quiet=json) as bar:
        results = healing.heal(settings, missing, on_result=lambda result: bar.advance())
    show_banner(settings)
    print_landed(settings.series, results, environment_of(settings), as_json=json, title="Healed")
    raise_for(results)


@app.command(
    epilog=examples("klinehouse why BTCUSDT 5m 2024-03-05T12:00", "klinehouse why BTCUSDT 1d 2024-03-05T00:00 --json")
)
def why(
    symbol: Annotated[str, typer.Argument(help="Symbol of the exchange, such as BTCUSDT.")],
    interval: Annotated[str, typer.Argument(help="Interval of the bar, such as 5m.")],
    open_time: Annotated[str, typer.Argument(help="When the bar opens, UTC, such as 2024-03-05T12:00.")],
    json: Json = False,
) -> None:
    """Explain one bar: its source, what other sources said, and the steps to its indicators."""
    from warehouse.explain import explain

    settings = load_settings()
    found = explain(settings, Series(symbol, interval), parse_instant(open_time, "OPEN_TIME"))
    show_banner(settings)
    if json:
        print_json(dataclasses.asdict(found) | environment_of(settings))
    else:
        health_report.print_explanation(found)


@app.command(epilog=examples("klinehouse check", "klinehouse check --json"))
def check(json: Json = False) -> None:
    """Compare raw zone, warehouse and serving row for row; exit code 1 when they differ."""
    from warehouse.compare import compare_layers

    settings = load_settings()
    found = compare_layers(settings)
    show_banner(settings)
    if json:
        print_json(dataclasses.asdict(found) | environment_of(settings))
    else:
        out.print(
            f"{found.raw_rows:,} rows in the raw zone, {found.warehouse_rows:,} in the warehouse (with derived "
            f"intervals), {found.serving_rows:,} served: {'they differ' if found.differences else 'all equal'}."
        )
        if found.differences:
            columns = [field.name for field in dataclasses.fields(found.differences[0])]
            print_table("Differences", columns, [dataclasses.astuple(one) for one in found.differences])
    if found.differences:
        raise DataDiffers(
            f"The layers differ in {len(found.differences)} months.",
            "`klinehouse build` builds what changed in the raw zone; `klinehouse build --full-refresh` everything.",
        )


@app.command(epilog=examples("klinehouse reconcile --start 2023-01 --end 2023-07 --symbols BTCUSDT"))
def reconcile(
    symbols: Symbols = None,
    interval: Interval = None,
    start: Start = None,
    end: End = None,
    max_wait: MaxWait = None,
    log_format: LogFormat = None,
    json: Json = False,
) -> None:
    """Compare what has landed with REST, bar by bar; the table klines_reconciliation has the differences."""
    from ingestion.history.compare import compare_with_rest
    from warehouse.build import build_changed
    from warehouse.serving import publish

    settings = history_settings(symbols, interval, start, max_wait)
    months = months_until(settings, end)
    with progress(len(months) * len(settings.symbols), "compare", quiet=json) as bar:
        compared = compare_with_rest(settings, settings.series, months, on_result=lambda result: bar.advance())
        bar.describe("build")
        build_changed(settings)
        publish(settings)
    show_banner(settings)
    health_report.print_compared(compared, as_json=json)


@app.command(epilog=examples("klinehouse symbols --refresh", "klinehouse symbols --status BREAK --search USDT --json"))
def symbols(
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask the exchange, and keep the answer.")] = False,
    status: Annotated[str | None, typer.Option(help="Only TRADING, BREAK, HALT, ...")] = None,
    search: Annotated[str, typer.Option(help="Only symbols that contain this.")] = "",
    json: Json = False,
) -> None:
    """List what the exchange trades and has traded, with tick and lot sizes."""
    from ingestion.raw_zone import RawZone
    from ingestion.symbols import land_symbols

    settings = load_settings()
    found = None if refresh else RawZone(settings.raw_root).latest_symbols()
    rows = (land_symbols(settings) if found is None else found).to_pylist()
    wanted = [row for row in rows if search in row["symbol"] and status in (None, row["status"])]
    show_banner(settings)
    if json:
        print_json(wanted)
    else:
        columns = list(rows[0]) if rows else []
        print_table(f"{len(wanted)} of {len(rows)} symbols", columns, [list(row.values()) for row in wanted])
