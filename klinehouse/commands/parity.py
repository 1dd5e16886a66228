"""`klinehouse parity`: the tables of BigQuery beside what this home has published."""

import dataclasses
from datetime import UTC, datetime
from typing import Annotated

import typer

from ingestion.errors import UsageError
from ingestion.settings import load_settings
from klinehouse.app import End, Json, Start, app, examples, instant, show_banner
from klinehouse.errors import DataDiffers
from klinehouse.output import out, print_json, print_table

_GIB = 1 << 30


@app.command(epilog=examples("klinehouse parity --dry-run", "klinehouse parity --start 2024-01 --end 2024-03 --json"))
def parity(
    start: Start = None,
    end: End = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be read, and its price.")] = False,
    max_gb: Annotated[
        float | None, typer.Option(min=0, help="Most that BigQuery may read, in GiB; KLINEHOUSE_BIGQUERY_QUERY_GB.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare the tables of BigQuery with what this home has published, both built from the same raw files.

    First it shows what BigQuery would read for that, and what it costs.
    """
    from warehouse.parity import compare_engines, estimate

    settings = load_settings()
    since = instant(start, "--start") or datetime.combine(settings.start, datetime.min.time(), UTC)
    until = instant(end, "--end") or datetime.now(UTC)
    cost = estimate(settings, since, until)
    allowed = settings.bigquery_query_gb if max_gb is None else max_gb
    told = f"BigQuery would read {cost.bytes / _GIB:.3f} GiB, {cost.usd:.4f} USD at list price."
    if cost.bytes > allowed * _GIB:
        raise UsageError(told, f"{allowed:g} GiB are allowed: narrow --start and --end, or allow more with --max-gb.")
    if not json:
        show_banner(settings)
        out.print(told)
    if dry_run:
        if json:
            print_json(dataclasses.asdict(cost))
        return
    found = list(compare_engines(settings, since, until))
    if json:
        print_json(dataclasses.asdict(cost) | {"marts": [dataclasses.asdict(one) for one in found]})
    else:
        columns = [field.name for field in dataclasses.fields(found[0])]
        print_table("Both engines", columns, [dataclasses.astuple(one) for one in found])
    differing = [one.mart for one in found if not one.is_equal]
    if differing:
        raise DataDiffers(
            f"The engines differ in {', '.join(differing)}.",
            "Build both from the same raw zone: `klinehouse build` with KLINEHOUSE_TARGET=duckdb, and with bigquery.",
        )
