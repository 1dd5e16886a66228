"""Commands about the warehouse: build, status, query."""

import dataclasses
from typing import Annotated

import typer

from ingestion.settings import load_settings
from klinehouse.app import End, Json, Start, app, environment_of, examples, instant, show_banner
from klinehouse.output import err, out, print_json, print_table, progress
from klinehouse.status_report import print_status


@app.command(epilog=examples("klinehouse build", "klinehouse build --start 2024-07 --end 2024-08"))
def build(
    start: Start = None,
    end: End = None,
    full_refresh: Annotated[bool, typer.Option("--full-refresh", help="Build the tables anew from nothing.")] = False,
    json: Json = False,
) -> None:
    """Build what changed in the raw zone since the last time, and publish it, without Dagster.

    With --start or --end that time is built whether it changed or not; with --full-refresh everything, from nothing.
    """
    from warehouse.build import build as run
    from warehouse.build import build_changed, require_window
    from warehouse.serving import publish

    settings = load_settings()
    window = require_window(settings, instant(start, "--start"), instant(end, "--end"))
    with progress(2, "build bars and indicators", quiet=json) as bar:
        if full_refresh or start or end:
            run(settings, window, full_refresh=full_refresh)
        else:
            build_changed(settings)
        bar.advance()
        bar.describe("publish")
        published = publish(settings)
        bar.advance()
    show_banner(settings)
    if json:
        print_json(dataclasses.asdict(published) | environment_of(settings))
    else:
        files = f" in {published.files:,} files; {published.months_written:,} months were written"
        out.print(f"{published.rows:,} rows{files if published.files else ''}.")


@app.command(epilog=examples("klinehouse status", "klinehouse status --json"))
def status(json: Json = False) -> None:
    """Show series, rows, first and last bar, sizes, where the data came from, and how the live path stands."""
    from warehouse.status import status as read

    settings = load_settings()
    found = read(settings)
    if json:
        told = {name: value for name, value in dataclasses.asdict(found).items() if name != "environment"}
        print_json(told | environment_of(settings))
        return
    show_banner(settings)
    print_status(found)


@app.command(
    epilog=examples(
        "klinehouse query \"select * from market_data_unified where symbol = 'BTCUSDT' limit 5\"",
        'klinehouse query --json "select symbol, max(high) from market_data_unified group by all"',
    )
)
def query(
    sql: Annotated[str, typer.Argument(help="SQL over the published tables, as the engine understands it.")],
    limit: Annotated[int, typer.Option(min=1, help="Rows to show in a table; JSON has all.")] = 50,
    max_gb: Annotated[
        float | None, typer.Option(min=0, help="Most that BigQuery may read, in GiB; KLINEHOUSE_BIGQUERY_QUERY_GB.")
    ] = None,
    json: Json = False,
) -> None:
    """Ask the published warehouse. Read-only; it sees nothing but the published tables."""
    from warehouse.serving import run_query

    settings = load_settings()
    result = run_query(settings, sql, None if json else limit + 1, max_gb=max_gb)
    show_banner(settings)
    if json:
        print_json([dict(zip(result.columns, row, strict=True)) for row in result.rows])
        return
    print_table("", result.columns, result.rows[:limit])
    if len(result.rows) > limit:
        err.print(f"Only the first {limit} rows are shown; --limit shows more, --json all.")
